"""The convolutional part of SqueezeNet 1.1.

Paper: arXiv:1602.07360 (Iandola et al., 2016); 1.1 is the authors' later version, which pools earlier.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Fire modules: (squeezed channels, channels of each of the two expansions); None: a pooling.
FIRES = {
    "pool1": None, "fire2": (16, 64), "fire3": (16, 64), "pool3": None, "fire4": (32, 128), "fire5": (32, 128),
    "pool5": None, "fire6": (48, 192), "fire7": (48, 192), "fire8": (64, 256), "fire9": (64, 256),
}  # fmt: skip


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 2 x expanded, H, W)."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 to fire9. Input: (N, 3, H, W) RGB in [0, 1]; the ImageNet normalisation is part of the network."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        self.fires = nn.ModuleDict()
        channels = 64
        for name, widths in FIRES.items():
            if widths:
                self.fires[name] = Fire(channels, *widths)
                channels = 2 * widths[1]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    @property
    def layers(self) -> list[str]:
        """The layers that can be asked for, shallow to deep: relu1, fire2, ..."""
        return ["relu1", *self.fires]

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return {layer: (N, C, h, w) features after ReLU} for the layers asked for; images of at least 17 pixels."""
        x = F.relu(self.conv1((images - self.mean) / self.std))
        found = {"relu1": x}
        for name in FIRES:
            x = self.fires[name](x) if name in self.fires else F.max_pool2d(x, 3, 2, ceil_mode=True)
            found[name] = x
        return {layer: found[layer] for layer in layers}
