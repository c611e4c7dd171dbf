"""pix2pix: a network that translates pictures as pairs have taught it; runs a published model.

Paper: arXiv:1611.07004 (Isola, Zhu, Zhou and Efros, 2017): a U-Net whose levels halve the picture until one pixel is
left, or the network of residual blocks, both with batch normalisation by the picture at hand, as in training one
picture at a time; `-O statistics=stored` takes what training has stored, which suits larger batches. Difference: the
paper draws dropout anew for each picture; here there is none, so that the same picture gives the same result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors
from styletools.methods import Method
from styletools.nn import translator
from styletools.nn.norm import InstanceNorm
from styletools.nn.translator import Translator

APPLIES_TO = "image"
TRAINS_ON = "nothing"
NEEDS_MODEL = True
LAYOUTS = ("pix2pix",)
ADJUSTABLE = ("statistics",)

WIDEST = 8  # times the width: levels do not get wider than that
NETWORKS, NORMS, STATISTICS = ("unet", "resnet"), ("batch", "instance"), ("picture", "stored")


@dataclass(frozen=True)
class Config:
    network: Annotated[str, "unet or resnet"] = "unet"
    width: Annotated[int, "channels of the first layer"] = 64
    levels: Annotated[int, "halvings of a U-Net: 8 for 256 pixels, 7 for 128"] = 8
    blocks: Annotated[int, "residual blocks of the other network"] = 9
    norm: Annotated[str, "batch or instance"] = "batch"
    statistics: Annotated[str, "picture: those of the picture at hand; stored: what training has seen"] = "picture"


class Normalization(nn.BatchNorm2d):
    """Batch normalisation by the stored statistics, or by those of each picture, as in a batch of one."""

    by_picture = False

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = (None, None) if self.by_picture else (self.running_mean, self.running_var)
        if mean is None:
            return F.instance_norm(x.float(), weight=self.weight, bias=self.bias, eps=self.eps).to(x.dtype)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


class UNet(nn.Module):
    """Down by halves and up again; on the way up each level sees what it was on the way down."""

    def __init__(self, width: int, levels: int, norm: str):
        super().__init__()
        batch = norm == "batch"
        widths = [min(2**level, WIDEST) * width for level in range(levels)]

        def normalization(channels: int) -> nn.Module:
            return Normalization(channels) if batch else InstanceNorm()

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.down_norm, self.up_norm = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(widths):
            outermost, innermost = level == 0, level == levels - 1
            above = 3 if outermost else widths[level - 1]
            self.down.append(nn.Conv2d(above, channels, 4, 2, 1, bias=not batch))
            given = channels if innermost else 2 * channels
            self.up.append(nn.ConvTranspose2d(given, above, 4, 2, 1, bias=outermost or not batch))
            self.down_norm.append(nn.Identity() if outermost or innermost else normalization(channels))
            self.up_norm.append(nn.Identity() if outermost else normalization(above))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 2 to the power of the levels, to the same."""
        x, seen = 2 * images - 1, []
        for level, (conv, norm) in enumerate(zip(self.down, self.down_norm)):
            x = norm(conv(F.leaky_relu(x, 0.2) if level else x))
            seen.append(x)
        for level in reversed(range(len(self.up))):
            x = seen[level] if level == len(self.up) - 1 else torch.cat([seen[level], x], 1)
            x = self.up_norm[level](self.up[level](F.relu(x)))
        return (x.float().tanh() + 1) / 2


class Pix2Pix(Method):
    """Translates A to B. It is not trained here."""

    def __init__(self, config: Config):
        self.config = config
        for name, known in (("network", NETWORKS), ("norm", NORMS), ("statistics", STATISTICS)):
            if getattr(config, name) not in known:
                raise errors.UsageError(f"{name}={getattr(config, name)}: {' or '.join(known)} expected")
        if min(config.width, config.levels, config.blocks) < 1:
            raise errors.UsageError("width, levels and blocks must be 1 or more")
        if config.network == "unet":
            generator = UNet(config.width, config.levels, config.norm)
            self.multiple = 2**config.levels
        else:
            norm = Normalization if config.norm == "batch" else None
            generator = Translator(config.width, config.blocks, "transposed", norm)
            self.multiple = 4
        for layer in generator.modules():
            if isinstance(layer, Normalization):
                layer.by_picture = config.statistics == "picture"
        self.nets = nn.ModuleDict({"generator": generator})

    def apply(self, image, *, style=None, alpha=1.0):
        """Translate (N, 3, H, W) RGB in [0, 1]; alpha: the share of the network's picture in the result."""
        return torch.lerp(image, self.nets["generator"](image), alpha)

    @staticmethod
    def detect(state_dict):
        if translator.published_layout(state_dict) == LAYOUTS[0] or _levels(state_dict):
            return LAYOUTS[0]
        return ""

    @staticmethod
    def convert(state_dict):
        levels = _levels(state_dict)
        if not levels:
            width, blocks, tensors = translator.from_published(state_dict)
            config = Config(network="resnet", width=width, blocks=blocks)
            return config, {f"generator.{key}": tensor for key, tensor in tensors.items()}
        batch = len(levels) < 3 or f"{levels[1]}2.weight" in state_dict
        config = Config(width=len(state_dict[f"{levels[0]}0.weight"]), levels=len(levels),
                        norm="batch" if batch else "instance")  # fmt: skip
        tensors = {}
        for level, begins in enumerate(levels):
            for number, name in _layers(level, len(levels)).items():
                for key, tensor in state_dict.items():
                    kind = key.removeprefix(f"{begins}{number}.")
                    stored = kind in ("running_mean", "running_var", "num_batches_tracked")
                    if key.startswith(f"{begins}{number}.") and "." not in kind and (batch or not stored):
                        tensors[f"generator.{name}.{level}.{kind}"] = tensor if "num" in kind else tensor.float()
        return config, tensors


def _layers(level: int, levels: int) -> dict[int, str]:
    """Return {its number in the published level: our name} of what has weights."""
    if level == 0:
        return {0: "down", 3: "up"}
    if level == levels - 1:
        return {1: "down", 3: "up", 4: "up_norm"}
    return {1: "down", 2: "down_norm", 5: "up", 6: "up_norm"}


def _levels(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Return what the keys of each level of a published U-Net begin with, outermost first; [] where there is none."""
    first = state_dict.get("model.model.0.weight")
    if first is None or first.dim() != 4 or tuple(first.shape[1:]) != (3, 4, 4):
        return []
    levels = ["model.model."]
    inner = "model.model.1.model."
    while f"{inner}1.weight" in state_dict:
        levels.append(inner)
        inner += "3.model."
    return levels if len(levels) > 1 else []
