"""animegan: photographs as if drawn for an animated film; runs a published model.

Paper: AnimeGAN (Chen, Liu and Chen, 2020, ISICA), in its second version as animegan2-pytorch publishes it: inverted
residuals, normalisation over all channels at once, bilinear upsampling instead of transposed convolutions.
"""

import re
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors
from styletools.methods import Method

APPLIES_TO = "image"
TRAINS_ON = "nothing"
NEEDS_MODEL = True
LAYOUTS = ("animegan2-pytorch",)
ADJUSTABLE = ("align_corners",)


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "channels at full resolution"] = 32
    residuals: Annotated[int, "inverted residuals"] = 4
    align_corners: Annotated[bool, "whether upsampling keeps corners in place, as for models of faces"] = True


class Layer(nn.Module):
    """Convolution of mirrored edges, normalisation over channels and pixels, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=groups > 1)
        self.norm = Norm(channels_out)
        # The steps down see one more row and column at the bottom and right alone.
        self.around = [0, 1, 0, 1] if stride > 1 else [kernel // 2] * 4

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(F.pad(x, self.around, mode="reflect"))), 0.2)


class Norm(nn.GroupNorm):
    """Mean 0 and variance 1 over all channels and pixels of a picture, in float32, then a scale and shift a channel."""

    def __init__(self, channels: int):
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


class Residual(nn.Module):
    """Twice as wide inside, where each channel is convolved by itself."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        inner = 2 * channels_in
        self.widen, self.each = Layer(channels_in, inner, 1), Layer(inner, inner, groups=inner)
        self.narrow, self.norm = nn.Conv2d(inner, channels_out, 1, bias=False), Norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.narrow(self.each(self.widen(x))))
        return x + y if x.shape == y.shape else y


class Generator(nn.Module):
    """Two steps down, residuals, two steps up; its parts are called as its authors call them."""

    def __init__(self, width: int, residuals: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        w = width
        wide = [Residual(4 * w if i == 0 else 8 * w, 8 * w) for i in range(residuals)]
        self.a = nn.Sequential(Layer(3, w, 7), Layer(w, 2 * w, stride=2), Layer(2 * w, 2 * w))
        self.b = nn.Sequential(Layer(2 * w, 4 * w, stride=2), Layer(4 * w, 4 * w))
        self.c = nn.Sequential(Layer(4 * w, 4 * w), *wide, Layer(8 * w if wide else 4 * w, 4 * w))
        self.d = nn.Sequential(Layer(4 * w, 4 * w), Layer(4 * w, 4 * w))
        self.e = nn.Sequential(Layer(4 * w, 2 * w), Layer(2 * w, 2 * w), Layer(2 * w, w, 7))
        self.out = nn.Conv2d(w, 3, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same; without `align_corners` sides are multiples of 4."""
        half = self.a(2 * images - 1)
        x = self._resized(self.c(self.b(half)), half)
        x = self.e(self._resized(self.d(x), images))
        return (self.out(x).float().tanh() + 1) / 2

    def _resized(self, x: Tensor, like: Tensor) -> Tensor:
        """Make x as large as another picture."""
        if not self.align_corners:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


class AnimeGAN(Method):
    """Draws photographs. It is not trained here."""

    def __init__(self, config: Config):
        if config.width < 1 or config.residuals < 0:
            raise errors.UsageError("width must be 1 or more, and residuals not negative")
        self.config = config
        self.multiple = 1 if config.align_corners else 4
        self.nets = nn.ModuleDict({"generator": Generator(config.width, config.residuals, config.align_corners)})

    def apply(self, image, *, style=None, alpha=1.0):
        """Draw (N, 3, H, W) RGB in [0, 1]; alpha: the share of the network's picture in the result."""
        return torch.lerp(image, self.nets["generator"](image), alpha)

    @staticmethod
    def detect(state_dict):
        first, last = (state_dict.get(key) for key in ("block_a.0.1.weight", "out_layer.0.weight"))
        if first is None or last is None or tuple(first.shape) != (len(first), 3, 7, 7):
            return ""
        return LAYOUTS[0] if tuple(last.shape) == (3, len(first), 1, 1) else ""

    @staticmethod
    def convert(state_dict):
        residuals = sum(_name(key).endswith(".narrow.weight") for key in state_dict)
        config = Config(width=len(state_dict["block_a.0.1.weight"]), residuals=residuals)
        return config, {f"generator.{_name(key)}": tensor.float() for key, tensor in state_dict.items()}


def _name(key: str) -> str:
    """Return what we call a published tensor: block_c.2.layers.0.1.weight is c.2.widen.conv.weight."""
    for theirs, ours in (
        (r"^block_", ""), (r"^out_layer\.0\.", "out."),
        (r"layers\.0\.([12])\.", r"widen.\1."), (r"layers\.1\.([12])\.", r"each.\1."),
        (r"layers\.2\.", "narrow."), (r"layers\.3\.", "norm."),
        (r"\.1\.(weight|bias)$", r".conv.\1"), (r"\.2\.(weight|bias)$", r".norm.\1"),
    ):  # fmt: skip
        key = re.sub(theirs, ours, key)
    return key
