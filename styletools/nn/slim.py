"""The network of slim: a narrow VGG-19, and the 1x1 maps to VGG-19's features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from styletools.nn.vgg import FULL_WIDTHS, VGG, VGG19

HEADS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class Slim(nn.Module):
    """`network`: a VGG-19 of `widths` channels per block, to relu5_1; `heads`: a 1x1 convolution a layer of HEADS."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.network = VGG(VGG19, widths, last="relu5_1")
        self.heads = nn.ModuleDict({layer: nn.Conv2d(widths[i], FULL_WIDTHS[i], 1) for i, layer in enumerate(HEADS)})

    def forward(self, images: Tensor, layers: Sequence[str] = HEADS) -> dict[str, Tensor]:
        """Return {layer: features in VGG-19's space} for (N, 3, H, W) RGB in [0, 1]."""
        return {layer: torch.relu(self.heads[layer](x)) for layer, x in self.network(images, layers).items()}
