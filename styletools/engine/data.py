"""Training images: sources, what is held out, random crops that depend on seed and step alone.

Since batch k is a function of (seed, k), a resumed run sees the very batches that it would have seen.
"""

import contextlib
import glob
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from styletools import errors, files, log, streams

EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"])
CACHE_BYTES = 1 << 30


class Source:
    """The images of one folder (recursive), file or glob pattern, with the share of a batch that they get."""

    def __init__(self, spec: str, holdout: int = 0):
        """spec: PATH or PATH:SHARE (a positive number, default 1).

        holdout: every such-and-such image by sorted name is kept for validation; 0 keeps none.
        Raises MissingInput when there are no images, UsageError for a bad share.
        """
        path, self.share = files.split_weight(spec)
        self.spec = path
        if not 0 < self.share < float("inf"):
            raise errors.UsageError(f"{spec}: the share must be a number above 0")
        found = _images(path)
        if not found:
            raise errors.MissingInput(f"{path}: no images there")
        self.held_out = found[::holdout] if holdout else []
        self.paths = [p for i, p in enumerate(found) if i % holdout] if holdout and len(found) > 1 else found


def _images(path: str) -> list[str]:
    """List the images below a folder, at a file, or matching a pattern, sorted by name."""
    roots = [path] if os.path.exists(path) else sorted(glob.glob(path))
    found = []
    for root in roots:
        if os.path.isdir(root):
            found += [str(p) for p in Path(root).rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file()]
        else:
            found.append(root)
    return sorted(found)


class Crops:
    """Random square crops from sources, as (N, 3, size, size) uint8, decoded images cached in memory."""

    def __init__(self, sources: Sequence[Source], seed: int, role: int, held_out: bool = False):
        """role: a number that makes the draws of two Crops with one seed independent."""
        self.groups = [list(s.held_out if held_out else s.paths) for s in sources]
        shares = np.array([s.share if group else 0.0 for s, group in zip(sources, self.groups)])
        if not shares.any():
            raise errors.UsageError("too few images to hold any out for validation")
        self.shares = shares / shares.sum()
        self.seed, self.role = seed, role
        self._cache: OrderedDict[str, Image.Image] = OrderedDict()
        self._cached = 0
        self._broken: set[str] = set()

    def _open(self, path: str) -> Image.Image | None:
        """Return the image in 8-bit RGB; None for a broken one, reported once."""
        if path in self._broken:
            return None
        image = self._cache.get(path)
        if image is None:
            try:
                pixels = streams.to_8bit(streams.flat_rgb(streams.open_image(path)))
                image = Image.fromarray(np.ascontiguousarray(pixels))
            except errors.StyletoolsError as error:
                self._broken.add(path)
                log.warning(f"{path}: skipped: {str(error).removeprefix(f'{path}: ')}")
                return None
            self._cached += image.width * image.height * 3
            self._cache[path] = image
            while self._cached > CACHE_BYTES:
                _, old = self._cache.popitem(last=False)
                self._cached -= old.width * old.height * 3
        return image

    def batch(self, step: int, count: int, size: int) -> torch.Tensor:
        """Return `count` crops of `size` for `step`: (N, 3, size, size) uint8 RGB.

        Each is a random square of at least `size` (the whole short side of smaller images), scaled down to
        it, half of them mirrored. Raises DataError when every image of the sources is broken.
        """
        rng = np.random.default_rng([self.seed, self.role, step])
        crops: list[np.ndarray] = []
        for _ in range(1000 * count):
            group = self.groups[rng.choice(len(self.groups), p=self.shares)]
            path = group[rng.integers(len(group))]
            where = rng.random(4)
            image = self._open(path)
            if image is None:
                continue
            short = min(image.size)
            side = short if short <= size else size + where[0] * (short - size)
            x, y = where[1] * (image.width - side), where[2] * (image.height - side)
            crop = image.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
            pixels = np.asarray(crop)
            crops.append(pixels[:, ::-1] if where[3] < 0.5 else pixels)
            if len(crops) == count:
                return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        raise errors.DataError("none of the training images can be read")


class Batches:
    """Batches of named crops, made ahead of time in a thread."""

    def __init__(self, crops: dict[str, Crops], batch_size: int, sizes: Sequence[int]):
        self.crops, self.batch_size, self.sizes = crops, batch_size, list(sizes)

    def make(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of `step`: {name: (N, 3, size, size) uint8}, the size drawn from `sizes`."""
        first = next(iter(self.crops.values()))
        size = self.sizes[np.random.default_rng([first.seed, 99, step]).integers(len(self.sizes))]
        return {name: crops.batch(step, self.batch_size, size) for name, crops in self.crops.items()}

    def iterate(self, start: int, stop: int, ahead: int = 3) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """Yield (step, batch) for steps start .. stop-1, `ahead` of them made before they are asked for."""
        ready: queue.Queue = queue.Queue(ahead)
        ended = threading.Event()

        def put(item) -> None:
            while not ended.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.2)
                    return

        def work() -> None:
            try:
                for step in range(start, stop):
                    if ended.is_set():
                        return
                    put((step, self.make(step)))
                put(None)
            except BaseException as error:  # told to the thread that waits
                put(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
