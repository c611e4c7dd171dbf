"""microast: any painting as style, by small encoders that need no VGG; runs a published model.

Paper: arXiv:2211.15313 (Wang, Zhao, Zuo, Li, Chen, Xing and Lu, 2022). The style image gives two kinds of signals, at
two depths each: mean and deviation that the photograph's features are brought to (FeatMod); and for every channel a
factor on what the decoder's convolutions make of it and a share of what they were given (FilterMod).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import stats
from styletools.methods import Graphs, Method

APPLIES_TO = "image+style"
TRAINS_ON = "nothing"
NEEDS_MODEL = True
LAYOUTS = ("MicroAST",)

DEPTHS = ("shallow", "deep")
SMALLEST = 16  # a style image whose short side has fewer pixels is enlarged: mirroring at the edges needs some
# What the published tensors are called, and what ours are.
NETS = {"content_encoder": "enc1.", "style_encoder": "enc1.", "modulator": "weight1.", "decoder": "dec1."}
RENAMED = {
    "enc1.": "shallow.", "enc2.0.": "deep.", "dec1.": "deep.", "dec2.": "shallow.", "dec3.": "up.",
    "weight1.0.": "shallow_factor.", "bias1.0.": "shallow_share.",
    "weight2.0.": "deep_factor.", "bias2.0.": "deep_share.",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    channels: Annotated[int, "width of the first layer; later ones have twice and four times as many"] = 16


def _conv(channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, padding_mode="reflect")


class Residual(nn.Module):
    """Two convolutions beside a way around them; a factor and a share (N or 1, C, 1, 1) modulate both."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels, 3), _conv(channels, channels, 3)

    def forward(self, x: Tensor, factor: Tensor | float = 1.0, share: Tensor | float = 0.0) -> Tensor:
        y = F.relu(factor * self.conv1(x) + share * x)
        return x + factor * self.conv2(y) + share * y


class Encoder(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to features at a quarter of the resolution, from two depths."""

    def __init__(self, width: int):
        super().__init__()
        self.shallow = nn.Sequential(
            _conv(3, width, 9), nn.ReLU(),
            _conv(width, 2 * width, 3, stride=2, groups=width), nn.ReLU(),
            _conv(2 * width, 2 * width, 1), nn.ReLU(),
            _conv(2 * width, 4 * width, 3, stride=2, groups=2 * width), nn.ReLU(),
            _conv(4 * width, 4 * width, 1), nn.ReLU(),
            Residual(4 * width),
        )  # fmt: skip
        self.deep = Residual(4 * width)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shallow = self.shallow(images)
        return {"shallow": shallow, "deep": self.deep(shallow)}


class Modulator(nn.Module):
    """Features of the style encoder to the factors and shares of the decoder's convolutions, (N, C) each."""

    def __init__(self, width: int):
        super().__init__()
        for depth in DEPTHS:
            for kind in ("factor", "share"):
                self.add_module(f"{depth}_{kind}", _conv(4 * width, 4 * width, 3, groups=4 * width))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: conv(features[name.partition("_")[0]]).mean((2, 3)) for name, conv in self.named_children()}


class Decoder(nn.Module):
    """Features of a photograph, made to follow a style record, to a picture."""

    def __init__(self, width: int):
        super().__init__()
        self.deep, self.shallow = Residual(4 * width), Residual(4 * width)
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _conv(4 * width, 2 * width, 3, groups=2 * width), nn.ReLU(),
            _conv(2 * width, 2 * width, 1), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _conv(2 * width, width, 3, groups=width), nn.ReLU(),
            _conv(width, width, 1), nn.ReLU(),
            _conv(width, 3, 9),
        )  # fmt: skip

    def forward(self, x: Tensor, style: dict[str, Tensor], alpha: float) -> Tensor:
        for depth in reversed(DEPTHS):
            # Of the two signals, alpha weakens the moments alone; the filters stay the style's.
            x = torch.lerp(x, _renormalize(x, style[f"{depth}_mean"], style[f"{depth}_std"]), alpha)
            factor, share = (style[f"{depth}_{kind}"].to(x.dtype)[..., None, None] for kind in ("factor", "share"))
            x = getattr(self, depth)(x, factor, share)
        return self.up(x)


class MicroAST(Method):
    """Arbitrary style transfer by moments and modulated filters. It is not trained here."""

    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        width = config.channels
        self.nets = nn.ModuleDict({
            "content_encoder": Encoder(width), "style_encoder": Encoder(width),
            "modulator": Modulator(width), "decoder": Decoder(width),
        })  # fmt: skip

    def encode_style(self, images, weights):
        """Return {"<depth>_<mean, std, factor or share>": (C,)} of style images, merged by `weights`."""
        records = []
        for image in images:
            short = min(image.shape[-2:])
            if short < SMALLEST:
                size = [max(round(side * SMALLEST / short), 1) for side in image.shape[-2:]]
                image = F.interpolate(image, size, mode="bilinear", align_corners=False)
            records.append(self._record(image))
        return stats.merge(records, weights)

    def _record(self, image: Tensor) -> dict[str, Tensor]:
        features = self.nets["style_encoder"](image)
        record = {name: value[0].float() for name, value in self.nets["modulator"](features).items()}
        for depth, x in features.items():
            average, std = _mean_std(x)
            record |= {f"{depth}_mean": average[0], f"{depth}_std": std[0]}
        return record

    def apply(self, image, *, style=None, alpha=1.0):
        style = {name: value.to(image.device)[None] for name, value in style.items()}
        features = self.nets["content_encoder"](image)
        return self.nets["decoder"](features["deep"], style, alpha).float().clamp(0, 1)

    def graphs(self):
        def encode(image):
            return self._record(image / 255)

        def paint(image, shallow_mean, shallow_std, shallow_factor, shallow_share, deep_mean, deep_std, deep_factor,
                  deep_share):  # fmt: skip
            given = {name: value.view(1, -1) for name, value in locals().items() if "_" in name}
            features = self.nets["content_encoder"](image / 255)
            return (self.nets["decoder"](features["deep"], given, 1.0) * 255).clamp(0, 255)

        return Graphs(paint, encode, alpha="")

    @staticmethod
    def detect(state_dict):
        return LAYOUTS[0] if set(_parts(state_dict)) == set(NETS) else ""

    @staticmethod
    def convert(state_dict):
        tensors = {}
        for net, file in _parts(state_dict).items():
            for key, tensor in state_dict.items():
                if not key.startswith(file):
                    continue
                name = key.removeprefix(file).replace(".conv_layer.", ".")
                for theirs, ours in RENAMED.items():
                    if name.startswith(theirs):
                        name = ours + name.removeprefix(theirs)
                        break
                tensors[f"{net}.{name}"] = tensor
        return Config(channels=len(tensors["content_encoder.shallow.0.weight"])), tensors


def _parts(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {net: what the keys of its file begin with}, of as many of NETS as one file can be told to hold.

    The encoders are of one shape, and told apart by the names of their files.
    """
    found: dict[str, set[str]] = {}
    for key in state_dict:
        file, slash, name = key.rpartition("/")
        for net, first in NETS.items():
            kind = net.removesuffix("_encoder") if net.endswith("_encoder") else ""
            if name.startswith(first) and ".conv_layer." in name and kind in file.lower():
                found.setdefault(net, set()).add(file + slash)
    return {net: files.pop() for net, files in found.items() if len(files) == 1}


def _mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over pixels, (N, C) in float32; the variance is the unbiased one, plus 1e-5."""
    if (known := stats.taken(x, "unbiased")) is not None:
        return known[0], (known[1] + stats.EPS).sqrt()
    average, std = stats.mean_std(x, eps=0.0)
    pixels = torch.ones_like(x[:, :1], dtype=torch.float32).sum((2, 3))
    return average, (std.square() * (pixels / (pixels - 1).clamp_min(1)) + stats.EPS).sqrt()


def _renormalize(x: Tensor, average: Tensor, std: Tensor) -> Tensor:
    """Give the channels of (N, C, H, W) other means and deviations, (N or 1, C): adaptive instance normalisation."""
    own_average, own_std = _mean_std(x)
    factor = std / own_std
    return torch.addcmul(
        (average - factor * own_average)[..., None, None], x.float(), factor[..., None, None]
    ).to(x.dtype)
