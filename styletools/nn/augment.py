"""Augmentation that gradients pass through, so that a discriminator of few pictures does not learn them by heart.

Paper: arXiv:2006.10738 (Zhao et al., 2020). What the discriminator is shown, real or made, is changed at random in the
same ways; the generator learns through the change, and so does not learn to make changed pictures.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import errors

GREY = 0.5  # what is shown where a picture was moved away or cut out


def parse(policy: str) -> list[str]:
    """Return the kinds of change in "color,translation,cutout", in their order; none in "".

    Raises UsageError for a kind that there is not.
    """
    kinds = [word.strip() for word in policy.split(",") if word.strip()]
    for kind in kinds:
        if kind not in CHANGES:
            raise errors.UsageError(f"unknown augmentation {kind!r}: choose from {', '.join(CHANGES)}")
    return kinds


def augment(images: Tensor, policy: str) -> Tensor:
    """Change each of (N, 3, H, W) RGB in [0, 1] in ways of its own, drawn from torch's global generator.

    Colours may leave the range: to cut them off would take their gradient away. Raises as `parse`.
    """
    for kind in parse(policy):
        images = CHANGES[kind](images)
    return images


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Return a number for each image, (N, 1, 1, 1), drawn on the CPU: the same ones for any device."""
    return torch.empty(len(images), 1, 1, 1).uniform_(low, high).to(images.device)


def _color(images: Tensor) -> Tensor:
    """Change brightness (by up to a quarter), saturation (none to double) and contrast (by up to a half)."""
    images = images + _uniform(images, -0.25, 0.25)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * _uniform(images, 0, 2)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (images - middle) * _uniform(images, 0.5, 1.5)


def _translation(images: Tensor) -> Tensor:
    """Move by up to an eighth of each side."""
    height, width = images.shape[-2:]
    room = [max(round(side / 8), 1) for side in (height, width)]
    padded = F.pad(images, (room[1], room[1], room[0], room[0]), value=GREY)
    where = torch.stack([torch.randint(0, 2 * most + 1, (len(images),)) for most in room], 1).tolist()
    return torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(padded, where)])


def _cutout(images: Tensor) -> Tensor:
    """Cover a square of half the side, which may lie partly outside."""
    inside = torch.ones(len(images), 1, 1, 1, dtype=torch.bool)
    for dim in (-2, -1):
        side = images.shape[dim]
        first = torch.randint(-(side // 4), side - side // 4 + 1, (len(images), 1, 1, 1))
        place = torch.arange(side).view(-1, 1) if dim == -2 else torch.arange(side)
        inside = inside & (place >= first) & (place < first + side // 2)
    return images.masked_fill(inside.to(images.device), GREY)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {"color": _color, "translation": _translation, "cutout": _cutout}
