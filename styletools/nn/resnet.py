"""The residual network of fast style transfer: two steps down, residual blocks, two steps up.

Papers: arXiv:1603.08155 (Johnson et al., 2016); instance normalisation: arXiv:1607.08022; many styles by their own
scales and shifts: arXiv:1610.07629; resizing before convolving, which leaves no checkerboard: arXiv:1610.07629, too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools.nn.norm import conditional_instance_norm


class StyleNorm(nn.Module):
    """Instance normalisation with a scale and a shift for each of a number of styles."""

    def __init__(self, styles: int, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        """x: (N, C, H, W); mixture: (N or 1, styles), what of each style there shall be."""
        # No matrix product, which autocast would round.
        scale, shift = ((mixture[:, :, None] * values).sum(1) for values in (self.scale, self.shift))
        return conditional_instance_norm(x, scale, shift)


class Layer(nn.Module):
    """Convolution with reflection padding, then normalisation."""

    def __init__(self, styles: int, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = _conv(channels_in, channels_out, kernel, stride)
        self.norm = StyleNorm(styles, channels_out)

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        return self.norm(self.conv(x), mixture)


class Repainter(nn.Module):
    """Photograph to picture; `widths` are the channels at full, half and quarter resolution."""

    def __init__(self, widths: Sequence[int], blocks: int, styles: int = 1, kernel: int = 9):
        super().__init__()
        full, half, quarter = widths
        self.down = nn.ModuleList([Layer(styles, 3, full, kernel)])
        self.down += [Layer(styles, full, half, stride=2), Layer(styles, half, quarter, stride=2)]
        self.first = nn.ModuleList(Layer(styles, quarter, quarter) for _ in range(blocks))
        self.second = nn.ModuleList(Layer(styles, quarter, quarter) for _ in range(blocks))
        self.up = nn.ModuleList([Layer(styles, quarter, half), Layer(styles, half, full)])
        self.out = _conv(full, 3, kernel)

    def forward(self, images: Tensor, mixture: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 4 and at least 8, and (N or 1, styles), to pictures."""
        x = images - 0.5
        for layer in self.down:
            x = F.relu(layer(x, mixture))
        for first, second in zip(self.first, self.second):
            x = x + second(F.relu(first(x, mixture)), mixture)
        for layer in self.up:
            x = F.relu(layer(F.interpolate(x, scale_factor=2, mode="nearest"), mixture))
        return self.out(x).float() + 0.5


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, padding_mode="reflect")
