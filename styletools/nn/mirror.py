"""Padding that mirrors at the edges, for pictures whose channels lie together in memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mirrored(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Return (N, C, H, W) mirrored at its edges as F.pad does it ("reflect"), channels last.

    On a GPU, F.pad brings x to another order first, and the convolution brings the result back: three passes over the
    memory where this takes one. Without gradients only.
    """
    count, channels, height, width = x.shape
    if min(height - max(top, bottom), width - max(left, right)) < 1:
        return F.pad(x, (left, right, top, bottom), mode="reflect")  # which says what is wrong
    size = (count, channels, top + height + bottom, left + width + right)
    result = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows = result[:, :, top : top + height]
    rows[..., left : left + width] = x
    for i in range(left):
        rows[..., i] = x[..., left - i]
    for i in range(right):
        rows[..., left + width + i] = x[..., width - 2 - i]
    for i in range(top):
        result[:, :, i] = result[:, :, 2 * top - i]
    for i in range(bottom):
        result[:, :, top + height + i] = result[:, :, top + height - 2 - i]
    return result


class Mirrored(nn.Module):
    """A convolution that pads by reflection, computed channels last; it shares the weights of `layer`."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer, (vertical, horizontal) = layer, layer.padding
        self.around = (horizontal, horizontal, vertical, vertical)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        return F.conv2d(
            mirrored(x.to(layer.weight.dtype), *self.around), layer.weight, layer.bias, layer.stride, 0,
            layer.dilation, layer.groups,
        )  # fmt: skip


def replace_padding(networks: nn.Module) -> None:
    """Put a Mirrored in the place of every plain convolution that pads by reflection."""
    for parent in list(networks.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d and layer.padding_mode == "reflect":
                setattr(parent, name, Mirrored(layer))
