"""A picture as metrics see it, and the networks that judge, each loaded and run no more often than needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import backbones
from styletools.backbones._backbone import Backbone

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # of a VGG: what style and content are judged by
SMALLEST = 17  # pixels a side that SqueezeNet needs


def network(name: str, device="cpu") -> Backbone:
    """Return a backbone that judges, loaded once for all metrics. Raises Unavailable as `backbones.load` does."""
    return _load(name, device, backbones.find_weights(name))


@functools.cache
def _load(name: str, device, weights) -> Backbone:
    return backbones.load(name, device=device)


class Look:
    """A picture, (1, 3, H, W) RGB in [0, 1], and what has been found out about it.

    `flow`, of a content frame: (1, 2, H, W), by how many pixels to the right and down each pixel of the frame before
    has moved to come to this frame, with NaN where that is not known; None: to be estimated.
    """

    def __init__(self, image: Tensor, name: str = "", flow: Tensor | None = None):
        self.image, self.name, self.flow = image, name, flow
        self._kept: dict[Any, Any] = {}
        self._features: dict[str, dict[str, Tensor]] = {}
        self._passing: dict[Any, Any] = {}

    @torch.no_grad()
    def features(self, judge: Backbone, layers: Sequence[str] = LAYERS) -> dict[str, Tensor]:
        """Return what a backbone sees: {layer: (1, C, h, w)}, kept until `forget`.

        It sees sides shorter than SMALLEST pixels continued by their last row or column.
        """
        found = self._features.setdefault(judge.name, {})
        if not set(layers) <= set(found):
            missing = [max(SMALLEST - side, 0) for side in self.image.shape[-2:]]
            found.update(judge(F.pad(self.image, (0, missing[1], 0, missing[0]), mode="replicate"), layers))
        return {layer: found[layer] for layer in layers}

    def keep(self, key, make: Callable[[], Any]) -> Any:
        """Return what `make` made when it was first asked for under `key`: small things, for many pairs to come."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def once(self, key, make: Callable[[], Any]) -> Any:
        """Return what `make` made when it was first asked for under `key`: large things, kept until `forget`."""
        if key not in self._passing:
            self._passing[key] = make()
        return self._passing[key]

    def forget(self) -> None:
        """Let go of what is large, its own and that of its other sizes, but not of what was kept."""
        self._features.clear()
        self._passing.clear()
        for kept in self._kept.values():
            if isinstance(kept, Look):
                kept.forget()

    def fitted(self, size: Sequence[int]) -> Look:
        """Return the picture at another size (height, width): scaled to cover it, its middle cut out."""
        if tuple(self.image.shape[-2:]) == tuple(size):
            return self
        return self.keep(("fitted", *size), lambda: Look(fit(self.image, size), self.name))

    def scaled(self, size: Sequence[int]) -> Look:
        """Return the picture, and its flow, scaled to another size (height, width), whatever that does to its shape."""
        if tuple(self.image.shape[-2:]) == tuple(size):
            return self
        flow = None if self.flow is None else resize_flow(self.flow, size)
        return self.keep(("scaled", *size), lambda: Look(resize(self.image, size), self.name, flow))


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """Scale (N, 3, H, W) to (height, width), bicubic and antialiased."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, tuple(size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def resize_flow(flow: Tensor, size: Sequence[int]) -> Tensor:
    """Scale (N, 2, H, W), in pixels, to pictures of another size (height, width)."""
    factors = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, tuple(size), mode="nearest") * factors


def fit(image: Tensor, size: Sequence[int]) -> Tensor:
    """Scale (N, 3, H, W) to cover (height, width), its proportions kept, and cut out the middle."""
    height, width = image.shape[-2:]
    factor = max(size[0] / height, size[1] / width)
    return crop(resize(image, (max(round(height * factor), size[0]), max(round(width * factor), size[1]))), size)


def crop(image: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the middle, of (height, width), out of (N, C, H, W)."""
    y, x = (image.shape[-2] - size[0]) // 2, (image.shape[-1] - size[1]) // 2
    return image[..., y : y + size[0], x : x + size[1]].contiguous()
