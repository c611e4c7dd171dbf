"""The VGG family of feature extractors, with layers named as the papers name them.

Paper: arXiv:1409.1556 (Simonyan and Zisserman, 2014)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
FULL_WIDTHS = (64, 128, 256, 512, 512)


def conv_names(depths: Sequence[int], last: str | None = None) -> list[str]:
    """Return conv1_1, conv1_2, conv2_1, ... for the given convolutions per block, up to and with `last`."""
    names = [f"conv{block}_{i}" for block, depth in enumerate(depths, 1) for i in range(1, depth + 1)]
    return names if last is None else names[: names.index(last.replace("relu", "conv")) + 1]


def torchvision_index(depths: Sequence[int], conv: str) -> int:
    """Return the position of a convolution in torchvision's `vgg().features`, where ReLU and pooling count too."""
    block, i = map(int, conv.removeprefix("conv").split("_"))
    return sum(2 * depth + 1 for depth in depths[: block - 1]) + 2 * (i - 1)


def mirrored(x: Tensor) -> Tensor:
    """Pad (N, C, H, W) by one pixel on each side: mirrored, or repeated where there is but one to mirror."""
    return F.pad(x, (1, 1, 1, 1), mode="reflect" if min(x.shape[-2:]) > 1 else "replicate")


class VGG(nn.Module):
    """The convolutional part of a VGG network: 3x3 convolutions with ReLU, 2x2 max-pooling between blocks.

    Input: (N, 3, H, W) RGB in [0, 1]; the ImageNet normalisation is part of the network.
    `depths`: convolutions per block; `widths`: channels per block; `last`: the deepest convolution that
    exists here (None: all of them).
    """

    ceil = False  # whether pooling keeps the last row and column of odd sizes

    def __init__(self, depths: Sequence[int] = VGG19, widths: Sequence[int] = FULL_WIDTHS, last: str | None = None):
        super().__init__()
        self.depths = tuple(depths)
        self.convs = nn.ModuleDict()
        channels = 3
        for name in conv_names(depths, last):
            width = widths[int(name[4]) - 1]
            self.convs[name] = nn.Conv2d(channels, width, 3, padding=1)
            channels = width
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    @property
    def layers(self) -> list[str]:
        """The layers that can be asked for, shallow to deep: relu1_1, relu1_2, ..."""
        return [name.replace("conv", "relu") for name in self.convs]

    def _normalize(self, images: Tensor) -> Tensor:
        """Bring RGB in [0, 1] to what the first convolution takes."""
        return (images - self.mean) / self.std

    def _convolve(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """Apply one convolution, with the padding that these weights were trained with."""
        return conv(x)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return {layer: (N, C, h, w) features after ReLU} for the layers asked for; stops at the deepest one."""
        wanted, found = set(layers), {}
        x = self._normalize(images)
        block = "1"
        for name, conv in self.convs.items():
            if name[4] != block:
                if min(x.shape[-2:]) > 1:
                    x = F.max_pool2d(x, 2, ceil_mode=self.ceil)
                block = name[4]
            x = F.relu(self._convolve(conv, x))
            layer = name.replace("conv", "relu")
            if layer in wanted:
                found[layer] = x
                if len(found) == len(wanted):
                    break
        return found


class MirroredVGG(VGG):
    """A VGG with its colour preprocessing in a 1x1 convolution `colour`, and mirrored edges: AdaIN's and its heirs'."""

    def __init__(self, depths: Sequence[int] = VGG19, widths: Sequence[int] = FULL_WIDTHS, last: str | None = None):
        super().__init__(depths, widths, last)
        self.colour = nn.Conv2d(3, 3, 1)
        for conv in self.convs.values():
            conv.padding = (0, 0)

    def _normalize(self, images: Tensor) -> Tensor:
        return self.colour(images)

    def _convolve(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        return conv(mirrored(x))
