"""Generator and discriminator of pictures of one size, made from noise, and what methods that use them share.

Paper: arXiv:1511.06434 (Radford, Metz and Chintala, 2015): convolutions only, each halving or doubling the side,
normalisation between them, weights from N(0, 0.02). Difference: the generator doubles the side by interpolation, then
convolves. A transposed convolution has other weights for each of four neighbouring pixels; where these do not agree,
even a plain surface comes out as a checkerboard (Odena et al., 2016, distill.pub/2016/deconv-checkerboard). Here a
plain surface stays plain, whatever the weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from styletools import errors, losses

SIZES = (16, 32, 64, 128, 256)
NORMS = ("batch", "spectral", "layer")


def _widths(size: int, channels: int) -> list[int]:
    """Return the channels at sides size / 2, size / 4 ... 4: doubled with each halving, up to eight times."""
    return [channels * min(2**i, 8) for i in range(SIZES.index(size) + 2)]


def check_size(size: int) -> None:
    """Raise UsageError for a side that the networks cannot make."""
    if size not in SIZES:
        raise errors.UsageError(f"image_size={size}: one of {', '.join(map(str, SIZES))} expected")


def check_crops(images: Tensor, size: int) -> None:
    """Raise UsageError for crops of another side than the pictures that a model makes."""
    height, side = images.shape[-2:]
    if height != side:
        raise errors.UsageError(f"a picture of {side} x {height} pixels: {size} x {size} expected")
    if side != size:
        also = f", or -O image_size={side}" if side in SIZES else ""
        raise errors.UsageError(f"crops of {side} pixels for pictures of {size}: --crop-size {size}{also}")


class Generator(nn.Module):
    """Noise (N, z_dim) to pictures (N, 3, size, size), RGB in [0, 1]."""

    def __init__(self, size: int, z_dim: int, channels: int):
        super().__init__()
        widths = [*reversed(_widths(size, channels)), channels]  # at sides 4, 8 ... size
        self.first = nn.Linear(z_dim, 16 * widths[0], bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.up = nn.ModuleList(_Doubled(before, after) for before, after in zip(widths, widths[1:]))
        self.out = nn.Conv2d(channels, 3, 3, padding=1)
        self.apply(_start)

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(z).unflatten(1, (-1, 4, 4))))
        for block in self.up:
            x = block(x)
        return (torch.tanh(self.out(x).float()) + 1) / 2


class _Doubled(nn.Module):
    """Twice the side: interpolation, convolution, normalisation."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.relu(self.norm(self.conv(larger)))


class Discriminator(nn.Module):
    """Pictures (N, 3, size, size), RGB in [0, 1], to logits (N,): higher for what is taken to be real."""

    def __init__(self, size: int, channels: int, norm: str = "batch"):
        """norm: batch; layer, which keeps pictures apart; or spectral, which bounds every convolution instead."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for after in _widths(size, channels):
            normed = before != 3 and norm != "spectral"  # the colours of the pictures must be seen as they are
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=not normed))
            if normed:
                layers.append(nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(1, after))
            layers.append(nn.LeakyReLU(0.2))
            before = after
        layers.append(nn.Conv2d(before, 1, 4))
        self.layers = nn.Sequential(*layers)
        self.apply(_start)
        if norm == "spectral":
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(2 * images - 1).flatten().float()


def _start(layer: nn.Module) -> None:
    """Draw the first weights of a layer."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.normal_(layer.weight, 0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(layer.weight, 1, 0.02)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)


def noise(images: Tensor, z_dim: int) -> Tensor:
    """Return noise (N, z_dim) for as many pictures as there are images, from torch's global generator."""
    return torch.randn(len(images), z_dim).to(images.device)


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return how different two crowds of pictures (N, 3, H, W) are, at 8 x 8 pixels (losses.energy_distance)."""
    return losses.energy_distance(*(F.adaptive_avg_pool2d(x.float(), 8).flatten(1) for x in (a, b)))
