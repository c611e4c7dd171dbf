"""Restyling pictures of any size, depth and number of channels with any method."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import errors, log, stats, streams
from styletools.engine import device as devices
from styletools.engine import edges, tiles
from styletools.engine import memory as memories
from styletools.engine.edges import MINIMUM
from styletools.methods import Method
from styletools.nn import mirror

# Bytes a pixel that no network needs, or hardly one: smaller pictures are restyled as they are, without another look.
PLENTY = 2048
BESIDE = 40  # bytes a pixel beside those of the network: the picture before and after it, as float32


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
    return mirror.extended(image, [edges.padded(side, multiple, minimum) for side in image.shape[-2:]])


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
    `memory` is how many bytes the process may take, about; 0: with half of what is free. Pictures for which that is not
    enough are worked on in tiles, and so are those after which a device ran out of memory; it makes no difference.
    """

    method: Method
    style: dict[str, Tensor] | None = None
    alpha: float = 1.0
    size: int | tuple[int, int] | None = None
    preserve_color: str = ""
    mask: Tensor | None = None
    outside: dict[str, Tensor] | None = None
    limits: streams.Limits = streams.Limits()
    memory: int = 0
    _plans: dict[tuple, tiles.Plan | None] = field(default_factory=dict, init=False, repr=False)
    _side: int = field(default=0, init=False, repr=False)  # of tiles, in pixels, once memory ran out; 0: it never did
    _most: float = field(default=math.inf, init=False, repr=False)  # pixels below which it did not

    def __call__(self, image: streams.Image) -> streams.Image:
        """Restyle one picture. Raises DataError for what is no picture, TryAgain when memory runs out."""
        if isinstance(image, streams.Image):
            height, width = streams.scaled(image.array.shape[:2], self.size)
            if self.alpha and self._is_too_large(height * width, self._plan_of_picture):
                return self._in_tiles(image)
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
        height, width = original.shape[-2:]
        if self._is_too_large(height * width, lambda: self._plan(self._work(style), 1, style)):
            return self._tensor_in_tiles(original, style)
        try:
            return self._restyle(original, style)
        except Exception as error:
            if not errors.is_out_of_memory(error) or min(height, width) < 2 * tiles.SMALLEST:
                raise
            if not self._can_tile or self._plan(self._work(style), 1, style) is None:
                raise
            log.warning(f"out of memory with {width}x{height} pixels: going on in tiles")
        self._most, self._side = height * width, self._side or tiles.LARGEST
        return self._tensor_in_tiles(original, style)

    def _restyle(self, original: Tensor, style: dict[str, Tensor] | None) -> Tensor:
        """Restyle (1, 3, H, W) all at once."""
        bar = log.Progress(None, "step")

        def report(step: int, steps: int, losses: dict[str, float]) -> None:
            bar.total = steps
            bar.update(step, " ".join(f"{name} {value:.4g}" for name, value in losses.items()), losses=losses)

        self.method.progress = report
        try:
            result = self.compute(original, style)
        finally:
            bar.close()
        return _numbers(result).clamp(0, 1)

    def compute(self, original: Tensor, style: dict[str, Tensor] | None) -> Tensor:
        """Do what `restyle` does to (N, 3, H, W), but clamp nothing, and look at nothing: that would wait for a GPU."""
        height, width = original.shape[-2:]
        padded = pad(original, self.method.multiple).contiguous(memory_format=torch.channels_last)
        with torch.no_grad() if self.method.iterative else torch.inference_mode():
            result = self._network(padded, style)[..., :height, :width]
            if self.preserve_color:
                result = stats.COLOR_TRANSFERS[self.preserve_color](result, original)
        return result

    def _network(self, padded: Tensor, style: dict[str, Tensor] | None) -> Tensor:
        result = self.method.apply(padded, style=style, alpha=self.alpha)
        if self.alpha < 1 and not self.method.iterative:
            # So that there is no jump at 0, and methods that know no alpha are blended.
            result = result + (1 - self.alpha) * (padded - self.method.apply(padded, style=style, alpha=0.0))
        return result

    # ---- in tiles

    @property
    def _can_tile(self) -> bool:
        return self.method.tiling and not self.method.iterative and self.preserve_color != "histogram"

    def _is_too_large(self, pixels: int, plan: Callable[[], tiles.Plan | None]) -> bool:
        """Tell whether a picture is to be worked on in tiles."""
        if not self._can_tile:
            return False
        if pixels >= self._most:
            return True
        free = self._free()
        if pixels * PLENTY <= free:
            return False
        planned = plan()
        return planned is not None and pixels * (planned.untiled_bytes_per_pixel + BESIDE) > free

    def _free(self) -> float:
        """Return how many bytes there are for a picture."""
        device = torch.device(self.method.device)
        if device.type == "cuda":
            return 0.8 * devices.free_memory(device)
        return memories.free(self.memory)

    def _work(self, *styles: dict[str, Tensor] | None) -> Callable[..., Tensor]:
        """Return what is to be computed of padded tiles (1, 3, H, W), and those of a mask (1, 1, H, W)."""

        def one(picture: Tensor, style: dict[str, Tensor] | None) -> Tensor:
            result = self._network(picture, style)
            if self.preserve_color:
                result = stats.COLOR_TRANSFERS[self.preserve_color](result, picture)
            return result.clamp(0, 1)

        def all_of_it(picture: Tensor, mask: Tensor | None = None) -> Tensor:
            result = one(picture, styles[0])
            if mask is None:
                return result
            return torch.lerp(picture if styles[1] is None else one(picture, styles[1]), result, mask)

        return all_of_it

    def _plan(self, work: Callable[..., Tensor], inputs: int, *styles) -> tiles.Plan | None:
        """Return how to work in tiles; None where that is not possible."""
        kinds = [style and tuple(style) for style in styles]
        key = (inputs, self.alpha in (0, 1), self.preserve_color, *kinds)
        if key not in self._plans:
            self._plans[key] = None
            with contextlib.suppress(tiles.NotTiled):
                self._plans[key] = tiles.Plan(work, self.method.multiple, [3, 1][:inputs], self.method.device)
        return self._plans[key]

    def _plan_of_picture(self) -> tiles.Plan | None:
        styles = (self.style, *((self.outside,) if self.mask is not None else ()))
        return self._plan(self._work(self.style, self.outside), len(styles), *styles)

    def _paint(self, plan, work, windows, size, put) -> None:
        """Work in tiles; where memory runs out, in smaller ones."""
        padded = tuple(edges.padded(side, self.method.multiple) for side in size)
        while True:
            side = self._side or tiles.LARGEST
            try:
                tiles.paint(plan, work, windows, size, padded, put, memory=self._free(), side=side)
                return
            except Exception as error:
                if not errors.is_out_of_memory(error) or side <= tiles.SMALLEST:
                    raise
            log.warning(f"out of memory with tiles of {side} pixels: trying again with {side // 2}")
            self._side = side // 2

    def _tensor_in_tiles(self, original: Tensor, style: dict[str, Tensor] | None) -> Tensor:
        """Restyle (1, 3, H, W) tile by tile."""
        work, (height, width) = self._work(style), original.shape[-2:]
        result = torch.empty_like(original)

        def window(top: int, left: int, high: int, wide: int) -> Tensor:
            rows, columns = (torch.from_numpy(edges.mirrored(*of)).to(original.device)
                             for of in ((top, high, height), (left, wide, width)))  # fmt: skip
            return original.index_select(-2, rows).index_select(-1, columns)

        def put(top: int, left: int, part: Tensor) -> None:
            place = result[..., top : top + part.shape[-2], left : left + part.shape[-1]]
            place.copy_(_numbers(part)[..., : place.shape[-2], : place.shape[-1]])

        self._paint(self._plan(work, 1, style), work, [window], (height, width), put)
        return result

    def _in_tiles(self, image: streams.Image) -> streams.Image:
        """Restyle a picture tile by tile; neither it nor what is made of it are ever whole in any other form."""
        size = streams.scaled(image.array.shape[:2], self.size)
        if self.size is not None:
            self.limits.check_size(size[1], size[0])
        work = self._work(self.style, self.outside)
        windows = [_Window(image.array, size, self.method.device)]
        if self.mask is not None:
            windows.append(_Window(self.mask.cpu().numpy()[..., None], size, self.method.device))
        made = _Bands(image, size)
        self._paint(self._plan_of_picture(), work, windows, size, made.put)
        return streams.Image(made.picture(), name=image.name, index=image.index, meta=dict(image.meta))


class _Window:
    """Parts of a picture (H, W, C), scaled to `size` and mirrored beyond it, as (1, 3 or 1, H, W) in [0, 1]."""

    def __init__(self, array: np.ndarray, size: tuple[int, int], device: Any, alpha: bool = False):
        self._array, self._size, self._device = array, size, device
        # Colours are scaled as `resize` does it, planes as `_resize_plane`.
        self._kernel = "bilinear" if array.shape[2] == 1 and array.dtype == np.float32 or alpha else "bicubic"
        self._alpha = alpha

    def __call__(self, top: int, left: int, height: int, width: int) -> Tensor:
        whole = self._array.shape[:2]
        axes, span, weights = [], [], []
        for start, length, size, given in zip((top, left), (height, width), self._size, whole):
            places = edges.mirrored(start, length, size)
            first, end = int(places.min()), int(places.max()) + 1
            axes.append(places - first)
            if size == given:
                weights.append(None)
            else:
                first, end, matrix = _scaling(given, size, first, end, self._kernel)
                weights.append(matrix)
            span.append(slice(first, end))
        cut = np.ascontiguousarray(self._array[tuple(span)])
        streams.release(self._array)
        if cut.dtype == np.float32:
            planes = torch.from_numpy(cut).permute(2, 0, 1)[None]
        elif self._alpha:
            planes = torch.from_numpy(cut[..., -1].astype(np.float32))[None, None]
        else:
            planes = to_tensor(streams.Image(cut))[0]
        if self._size != whole:
            rows, columns = (torch.eye(n) if m is None else m for m, n in zip(weights, planes.shape[-2:]))
            planes = rows @ planes @ columns.T
            planes = planes if self._alpha else planes.clamp(0, 1)
        rows, columns = map(torch.from_numpy, axes)
        return planes.index_select(-2, rows).index_select(-1, columns).to(self._device)


def _scaling(given: int, wanted: int, first: int, end: int, kernel: str) -> tuple[int, int, Tensor]:
    """Return how places `first` to `end` of `wanted` come of `given` ones: from which to which, and their weights.

    Antialiased, as torch.nn.functional.interpolate scales.
    """
    scale = given / wanted
    reach, stretch = (2.0 if kernel == "bicubic" else 1.0), max(scale, 1.0)
    centres = (np.arange(first, end) + 0.5) * scale
    lows = np.maximum((centres - reach * stretch + 0.5).astype(np.int64), 0)
    highs = np.minimum((centres + reach * stretch + 0.5).astype(np.int64), given)
    start, stop = int(lows.min()), int(highs.max())
    there = np.arange(start, stop)
    x = np.abs((there - centres[:, None] + 0.5) / stretch)
    if kernel == "bicubic":  # Keys, with a = -1/2
        weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))
    else:
        weights = np.maximum(1 - x, 0)
    weights = np.where((there >= lows[:, None]) & (there < highs[:, None]), weights, 0)
    return start, stop, torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))


class _Bands:
    """A picture made like another one, of parts that come row by row of tiles, each from left to right."""

    def __init__(self, like: streams.Image, size: tuple[int, int]):
        self._like, self._size = like, size
        self._has_alpha = like.array.shape[2] in (2, 4)
        self._alpha = _Window(like.array, size, "cpu", alpha=True) if self._has_alpha else None
        self._kind = like.array.dtype
        self._rows = None

    def put(self, top: int, left: int, part: Tensor) -> None:
        """Take (1, 3, h, w) in [0, 1]; what is beyond the picture is cut off."""
        height, width = (min(n, size - at) for n, size, at in zip(part.shape[-2:], self._size, (top, left)))
        if not top and not left:  # the first one, perhaps once more
            self._rows = streams.Rows((*self._size, 4 if self._has_alpha else 3), self._kind)
        if height < 1:
            return
        if not left:
            self._band = np.empty((height, self._size[1], 4 if self._has_alpha else 3), self._kind)
        if width > 0:
            like = streams.Image(np.empty((0, 0, 3), self._kind))
            levels = to_image(_numbers(part)[..., :height, :width], like, None).array
            self._band[:, left : left + width, :3] = levels
            if self._alpha is not None:
                opacity = self._alpha(top, left, height, width)[0, 0]
                self._band[:, left : left + width, 3] = opacity.round().numpy().astype(self._kind)
        if left < self._size[1] <= left + part.shape[-1]:
            self._rows.add(self._band)

    def picture(self) -> np.ndarray:
        """Return the picture."""
        return self._rows.picture()


def _numbers(tensor: Tensor) -> Tensor:
    """Return what a network made; DataError where it is not made of numbers."""
    if tensor.isnan().any():
        raise errors.DataError("no picture came of it but values that are not numbers: is the model damaged?")
    return tensor


def _resize_plane(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    scaled = F.interpolate(
        torch.from_numpy(plane.astype(np.float32))[None, None], tuple(size), mode="bilinear", antialias=True
    )
    return scaled[0, 0].round().numpy().astype(plane.dtype)
