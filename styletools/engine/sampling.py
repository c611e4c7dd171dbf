"""Pictures from noise: each from a seed and its number alone, walks from one to the next, sheets of many."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from styletools import streams
from styletools.engine import infer
from styletools.methods import Method

SHEET = 16  # pictures of the sheets that training makes


def latent(seed: int, index: int, z_dim: int, truncation: float = math.inf) -> Tensor:
    """Return the noise (z_dim,) of one picture, of N(0, 1): it depends on seed and index alone.

    truncation: no value is larger; the distribution is cut off there (arXiv:1809.11096). The picture stays related to
    that of the same seed and index without, but becomes more like the others.
    """
    # Through the inverse of the distribution function, so that every value has its place whatever the truncation.
    uniform = torch.from_numpy(np.random.default_rng([seed, index]).random(z_dim)).clamp_min(2.0**-54)
    cut = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
    return torch.special.ndtri(cut + uniform * (1 - 2 * cut)).float()


def walk(points: Tensor, frames: int) -> Iterator[Tensor]:
    """Yield `frames` latents (z_dim,) of a closed walk through points (K, z_dim), the first of them the first point.

    It goes on great circles, on which noise keeps the length that the network knows; on straight lines it would pass
    near the middle, where there is none.
    """
    for frame in range(frames):
        here, share = divmod(frame * len(points) / frames, 1)
        yield slerp(points[int(here)], points[(int(here) + 1) % len(points)], share)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return the point on the great circle from a (share 0) to b (share 1); lengths are interpolated."""
    lengths = a.norm(), b.norm()
    starts = a / lengths[0].clamp_min(1e-12), b / lengths[1].clamp_min(1e-12)
    angle = torch.dot(*starts).clamp(-1, 1).acos()
    if angle.sin() < 1e-4:  # the same direction, or opposite ones, between which there is no one circle
        return torch.lerp(a, b, share)
    direction = (((1 - share) * angle).sin() * starts[0] + (share * angle).sin() * starts[1]) / angle.sin()
    return direction * torch.lerp(*lengths, share)


@torch.no_grad()
def generate(method: Method, latents: Iterable[Tensor], batch: int, device="cpu") -> Iterator[Tensor]:
    """Yield a picture (3, H, W) in [0, 1], on the CPU, for each latent; `batch` of them are made at once.

    The last batch is filled up, so that a picture does not depend on how many there are.
    """
    waiting: list[Tensor] = []

    def made() -> Iterator[Tensor]:
        filled = waiting + waiting[-1:] * (batch - len(waiting))
        yield from method.generate(torch.stack(filled).to(device)).float().clamp(0, 1).cpu()[: len(waiting)]
        waiting.clear()

    for each in latents:
        waiting.append(each)
        if len(waiting) == batch:
            yield from made()
    if waiting:
        yield from made()


def sheet(pictures: Iterable[Tensor]) -> Tensor:
    """Return pictures (3, H, W) side by side in rows, as near to a square as may be; what is left is white."""
    many = list(pictures)
    columns = math.ceil(math.sqrt(len(many)))
    many += [torch.ones_like(many[0])] * (-len(many) % columns)
    rows = [torch.cat(many[i : i + columns], -1) for i in range(0, len(many), columns)]
    return torch.cat(rows, -2)


def example(method: Method, device="cpu") -> Tensor:
    """Return a sheet of the first sixteen pictures of seed 0."""
    return sheet(generate(method, (latent(0, i, method.config.z_dim) for i in range(SHEET)), SHEET, device))


def to_image(picture: Tensor, name: str = "", index: int = 0) -> streams.Image:
    """Return (3, H, W) in [0, 1] as a picture of 8 bits."""
    return streams.Image(infer.to_levels(picture).numpy(), name=name, index=index)
