"""The generator of unpaired translation: two steps down, residual blocks, two steps up.

Papers: arXiv:1703.10593 (CycleGAN, Zhu et al., 2017), after arXiv:1603.08155. It is not the network of
`styletools.nn.resnet`, of the same descent: its normalisation learns nothing, its inner layers are read (by CUT), and
its layers are numbered as in the checkpoints that CycleGAN's authors publish, so that these can be put into it.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools.nn.init import normal_
from styletools.nn.norm import InstanceNorm

Norm = Callable[[int], nn.Module]
UPSAMPLING = ("resize", "transposed", "antialiased")


class Translator(nn.Module):
    """Picture to picture: c7s1-W, d2W, d4W, `blocks` times R4W, u2W, uW, c7s1-3, where W is `width`.

    upsampling: `resize` doubles the size by repeating pixels, then convolves: every pixel of the result has the same
    number of summands, so that a short training has no checkerboard to unlearn (arXiv:1610.07629).
    `transposed` is the paper's, and what published weights are made for. The keys are `model.N.weight` either way.
    `antialiased` is CUT's: whole convolutions, blurred and thinned out on the way down, bilinear on the way up.
    """

    def __init__(self, width: int = 64, blocks: int = 9, upsampling: str = "resize", norm: Norm | None = None):
        """norm: what makes a normalisation of its channels; it brings its own bias. None: InstanceNorm."""
        super().__init__()
        self.blocks = blocks
        smooth, bias, norm = upsampling == "antialiased", norm is None, norm or (lambda channels: InstanceNorm())
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), norm(width), nn.ReLU()]
        for channels in (width, 2 * width):
            layers.append(nn.Conv2d(channels, 2 * channels, 3, 1 if smooth else 2, 1, bias=bias))
            layers += [norm(2 * channels), nn.ReLU()]
            layers += [Thin()] if smooth else []
        layers += [Residual(4 * width, norm, bias) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            if upsampling == "transposed":
                layers.append(nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1, bias=bias))
            elif smooth:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
                layers.append(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=bias))
            else:
                layers.append(ResizeConv(channels, channels // 2, 3, padding=1, padding_mode="reflect", bias=bias))
            layers += [norm(channels // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = normal_(nn.Sequential(*layers))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 4 and at least 8, to the same."""
        return (self.model(2 * images - 1).float() + 1) / 2

    def features(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return what comes out of these layers (numbers in `model`, ascending), and go no further than the last."""
        x, found = 2 * images - 1, []
        for number, layer in enumerate(self.model[: layers[-1] + 1]):
            x = layer(x)
            if number in layers:
                found.append(x)
        return found

    def inner_layers(self) -> dict[int, int]:
        """Return {layer: channels} of those that CUT compares: the pixels, both steps down, the first and fifth block.

        With less than five blocks the last one stands for the fifth.
        """
        width = self.model[1].out_channels
        first = next(i for i, layer in enumerate(self.model) if isinstance(layer, Residual))
        second = 8 if first == 12 else 7
        return {0: 3, 4: 2 * width, second: 4 * width, first: 4 * width, first - 1 + min(5, self.blocks): 4 * width}


class Residual(nn.Module):
    """Two convolutions, whose result is added to what comes in."""

    def __init__(self, channels: int, norm: Norm, bias: bool):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResizeConv(nn.Conv2d):
    """A convolution of what is first made twice as large by repeating pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class Thin(nn.Module):
    """Every second pixel of what is blurred by 1-2-1 first, so that no fine pattern passes for a coarse one.

    Paper: arXiv:1904.11486 (Zhang, 2019)
    """

    def __init__(self):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", (row[:, None] * row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = self.blur.to(x.dtype).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(x, [1] * 4, mode="reflect"), weight, stride=2, groups=channels)


# ---- generators as their authors publish them -----------------------------------------------------------------------


def published_layout(state: Mapping[str, Tensor]) -> str:
    """Return whose generator of residual blocks these tensors are: CycleGAN, CUT, pix2pix, or "" for nobody's.

    Those of pix2pix have batch normalisation. The keys may hold buffers of instance normalisation, as before 2018.
    """
    first, block = (state.get(key) for key in ("model.1.weight", "model.12.conv_block.1.weight"))
    if first is None or first.dim() != 4 or tuple(first.shape[1:]) != (3, 7, 7) or block is None:
        return ""
    if any(key.endswith(".filt") for key in state):
        return "CUT" if {f"model.{i}.filt" for i in (7, 11)} <= set(state) else ""
    return "pix2pix" if "model.2.weight" in state else "CycleGAN"


def from_published(state: Mapping[str, Tensor]) -> tuple[int, int, dict[str, Tensor]]:
    """Return width, number of blocks, and the tensors of a Translator, of a generator that its authors publish.

    What only training used, dropout and instance normalisation's buffers, is taken out.
    """
    batch = "model.2.weight" in state
    places = [int(found[1]) for key in state if (found := re.fullmatch(r"model\.(\d+)\.conv_block\.1\.weight", key))]
    # Dropout takes a place among the layers of a block.
    second = state.get(f"model.{places[0]}.conv_block.6.weight")
    shift = 1 if second is not None and second.dim() == 4 else 0
    left_out = (".filt",) if batch else (".filt", ".running_mean", ".running_var", ".num_batches_tracked")

    def renamed(match: re.Match) -> str:
        return f"conv_block.{int(match[1]) - shift * (int(match[1]) > 4)}."

    tensors = {
        re.sub(r"conv_block\.(\d)\.", renamed, key): tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
        if not key.endswith(left_out)
    }
    return len(state["model.1.weight"]), len(places), tensors
