"""Padding that mirrors at the edges."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mirrored(x: Tensor, vertical: int, horizontal: int) -> Tensor:
    """Return (N, C, H, W) mirrored at its edges by so many rows and columns, as F.pad does it, channels last.

    On a GPU, F.pad brings x to another order first, and the convolution brings the result back: three passes over the
    memory where this takes one. Without gradients only.
    """
    count, channels, height, width = x.shape
    if height < 2 * vertical + 2 or width < 2 * horizontal + 2:
        return F.pad(x, (horizontal, horizontal, vertical, vertical), mode="reflect")
    size = (count, channels, height + 2 * vertical, width + 2 * horizontal)
    result = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows = result[:, :, vertical : vertical + height]
    rows[..., horizontal : horizontal + width] = x
    for i in range(horizontal):
        rows[..., _both(i, size[3])] = x[..., _both(horizontal - i, width)]
    for i in range(vertical):
        result[:, :, _both(i, size[2])] = rows[:, :, _both(vertical - i, height)]
    return result


def extended(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Return (N, C, H, W) mirrored at its right and bottom edges up to (height, width).

    Works for any size: what is thinner than what is added is mirrored to and fro.
    """
    for dim, wanted in zip((-2, -1), sides):
        side = x.shape[dim]
        if wanted != side:
            # Counted on the device, since a copy to it would be waited for.
            period = max(2 * (side - 1), 1)
            there = torch.arange(wanted, device=x.device) % period
            x = x.index_select(dim, torch.minimum(there, period - there).clamp(0, side - 1))
    return x


def _both(place: int, size: int) -> slice:
    """Return the slice of two places: `place`, and the one as far from the other end."""
    return slice(place, size - place, size - 1 - 2 * place)


class Mirrored(nn.Module):
    """A convolution that pads by reflection, computed channels last; it shares the weights of `layer`."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        return F.conv2d(
            mirrored(x.to(layer.weight.dtype), *layer.padding), layer.weight, layer.bias, layer.stride, 0,
            layer.dilation, layer.groups,
        )  # fmt: skip


def replace_padding(networks: nn.Module) -> None:
    """Put a Mirrored in the place of every plain convolution that pads by reflection."""
    for parent in list(networks.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d and layer.padding_mode == "reflect":
                setattr(parent, name, Mirrored(layer))
