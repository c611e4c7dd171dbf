"""Restyling pictures of any size, depth and number of channels with any method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import errors, log, stats, streams
from styletools.methods import Method

MINIMUM = 16  # networks are never shown less than this many pixels a side


def to_tensor(image: streams.Image) -> tuple[Tensor, np.ndarray | None]:
    """Return a picture as (1, 3, H, W) float32 RGB in [0, 1], and its alpha plane (H, W), if it has one.

    Grey becomes three equal channels; colours are not premultiplied.
    """
    colours, alpha = streams.to_rgb(image)
    # torch has few operations on uint16.
    planes = colours.transpose(2, 0, 1)[None].astype(np.float32 if colours.dtype == np.uint16 else np.uint8)
    return torch.from_numpy(np.ascontiguousarray(planes)).float() / np.iinfo(colours.dtype).max, alpha


def to_image(tensor: Tensor, like: streams.Image, alpha: np.ndarray | None) -> streams.Image:
    """Return (1, 3, H, W) RGB in [0, 1] as a picture with the depth, name and metadata of `like`.

    Values are rounded to the nearest level.
    """
    top = np.iinfo(like.array.dtype).max
    levels = tensor[0].detach().float().clamp(0, 1).mul(top).round().permute(1, 2, 0).cpu().numpy()
    array = levels.astype(like.array.dtype)
    if alpha is not None:
        array = np.concatenate([array, alpha[..., None]], axis=2)
    return streams.Image(array, name=like.name, index=like.index, meta=dict(like.meta))


def to_levels(picture: Tensor) -> Tensor:
    """Return (3, H, W) RGB in [0, 1] as (H, W, 3) uint8 on the CPU, rounded to the nearest level."""
    return picture.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().cpu()


def resize(image: Tensor, short: int | tuple[int, int] | None) -> Tensor:
    """Scale (1, 3, H, W) as streams.scaled says, bicubic and antialiased."""
    size = streams.scaled(tuple(image.shape[-2:]), short)
    if size == tuple(image.shape[-2:]):
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def pad(image: Tensor, multiple: int, minimum: int = MINIMUM) -> Tensor:
    """Mirror (N, C, H, W) at its right and bottom edges up to the next multiple, and to at least `minimum`.

    Works for any size: what is thinner than the padding is mirrored to and fro.
    """
    for dim in (-2, -1):
        size = image.shape[dim]
        wanted = -(-max(size, minimum) // multiple) * multiple
        if wanted != size:
            period = max(2 * (size - 1), 1)
            there = torch.arange(wanted, device=image.device) % period
            image = image.index_select(dim, torch.minimum(there, period - there).clamp(0, size - 1))
    return image


def to_plane(image: streams.Image) -> Tensor:
    """Return a picture as a mask (H, W) in [0, 1]: how white it is; what is transparent counts as black."""
    colour, opacity = to_tensor(image)
    plane = colour[0].mean(0)
    if opacity is None:
        return plane
    return plane * torch.from_numpy(opacity.astype(np.float32) / np.iinfo(opacity.dtype).max)


@dataclass
class Restyler:
    """A method set up to restyle pictures: call it with a picture, get the picture restyled.

    The size of a picture stays what it is, unless `size` gives another; depth, alpha and metadata stay.
    `outside` is the style record outside of `mask` ((H, W) in [0, 1], scaled to each picture); None: the photograph.
    With `alpha` 0 the photograph comes back as it is, whatever the method; below 1, what a method loses even
    without any style comes back by that much. `limits` hold for what `size` makes of a picture, too.
    """

    method: Method
    style: dict[str, Tensor] | None = None
    alpha: float = 1.0
    size: int | tuple[int, int] | None = None
    preserve_color: str = ""
    mask: Tensor | None = None
    outside: dict[str, Tensor] | None = None
    limits: streams.Limits = streams.Limits()

    def __call__(self, image: streams.Image) -> streams.Image:
        """Restyle one picture. Raises DataError for what is no picture, TryAgain when memory runs out."""
        return self.carry(image, self.paint)

    def carry(self, image: streams.Image, paint: Callable[[Tensor], Tensor]) -> streams.Image:
        """Return what `paint` makes of a picture's colours, (1, 3, H, W) at the size wanted, as a picture like it."""
        if not isinstance(image, streams.Image):
            raise errors.DataError("holds tensors, not a picture")
        height, width = streams.scaled(image.array.shape[:2], self.size)
        if self.size is not None:
            self.limits.check_size(width, height)
        original, opacity = to_tensor(image)
        original = original.to(self.method.device)
        if (height, width) != image.array.shape[:2]:
            original = resize(original, self.size)
            if opacity is not None:
                opacity = _resize_plane(opacity, original.shape[-2:])
        return to_image(paint(original), image, opacity)

    def paint(self, original: Tensor, restyle: Callable[[Tensor, dict | None], Tensor] | None = None) -> Tensor:
        """Restyle (1, 3, H, W) RGB in [0, 1] inside and outside of the mask; another `restyle` may do each of them."""
        restyle = restyle or self.restyle
        result = restyle(original, self.style)
        if self.mask is None:
            return result
        mask = F.interpolate(
            self.mask[None, None].to(original.device), original.shape[-2:], mode="bilinear", antialias=True
        )
        other = original if self.outside is None else restyle(original, self.outside)
        return torch.lerp(other, result, mask)

    def restyle(self, original: Tensor, style: dict[str, Tensor] | None) -> Tensor:
        """Restyle (1, 3, H, W) RGB in [0, 1] of any size; mask and size are not its business. Raises as a call does."""
        if self.alpha == 0:
            return original
        bar = log.Progress(None, "step")

        def report(step: int, steps: int, losses: dict[str, float]) -> None:
            bar.total = steps
            bar.update(step, " ".join(f"{name} {value:.4g}" for name, value in losses.items()), losses=losses)

        self.method.progress = report
        try:
            result = self.compute(original, style)
        finally:
            bar.close()
        if result.isnan().any():
            raise errors.DataError("no picture came of it but values that are not numbers: is the model damaged?")
        return result.clamp(0, 1)

    def compute(self, original: Tensor, style: dict[str, Tensor] | None) -> Tensor:
        """Do what `restyle` does but look at nothing, so that a GPU need not be waited for: (N, 3, H, W), not clamped."""
        height, width = original.shape[-2:]
        padded = pad(original, self.method.multiple).contiguous(memory_format=torch.channels_last)
        with torch.no_grad() if self.method.iterative else torch.inference_mode():
            result = self.method.apply(padded, style=style, alpha=self.alpha)
            if self.alpha < 1 and not self.method.iterative:
                # So that there is no jump at 0, and methods that know no alpha are blended.
                result = result + (1 - self.alpha) * (padded - self.method.apply(padded, style=style, alpha=0.0))
            result = result[..., :height, :width]
            if self.preserve_color:
                result = stats.COLOR_TRANSFERS[self.preserve_color](result, original)
        return result


def _resize_plane(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    scaled = F.interpolate(
        torch.from_numpy(plane.astype(np.float32))[None, None], tuple(size), mode="bilinear", antialias=True
    )
    return scaled[0, 0].round().numpy().astype(plane.dtype)
