"""Training images: sources, what is held out, random crops that depend on seed, step and place in the batch alone.

Since batch k is a function of (seed, k), a resumed run sees the very batches that it would have seen. Since image i of
it is a function of (seed, k, i), several processes see together what one with as large a batch would see.
"""

import contextlib
import glob
import io
import itertools
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from styletools import errors, files, log, streams
from styletools.streams import tar

EXTENSIONS = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"])
STDIN = "-"
_ZSTD = b"\x28\xb5\x2f\xfd"
_serials = itertools.count()


class Member(NamedTuple):
    """A picture in a tar archive, and where its bytes lie."""

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    def read(self) -> bytes:
        """Return its bytes. May be called from several threads at once, since nothing is sought."""
        try:
            number = os.open(self.archive, os.O_RDONLY)
            try:
                data = os.pread(number, self.size, self.offset)
            finally:
                os.close(number)
        except OSError as error:
            raise errors.from_os_error(error, self.archive) from error
        if len(data) < self.size:
            raise errors.DataError(f"{self}: is cut off")
        return data


class Source:
    """The images of one folder (recursive), file, tar archive, glob pattern or list, with their share of a batch."""

    def __init__(self, spec: str, holdout: int = 0):
        """spec: PATH or PATH:SHARE (a positive number, default 1); the path `-` is a list of paths on standard input.

        holdout: every such-and-such image by sorted name is kept for validation; 0 keeps none.
        Raises MissingInput when there are no images, UsageError for a bad share, DataError for a damaged or
        compressed archive.
        """
        path, self.share = files.split_weight(spec)
        if not 0 < self.share < float("inf"):
            raise errors.UsageError(f"{spec}: the share must be a number above 0")
        self.spec = "<stdin>" if path == STDIN else path
        found = sorted({image for root in _roots(path) for image in _images(root)}, key=str)
        if not found:
            raise errors.MissingInput(f"{self.spec}: no images there")
        self.held_out = found[::holdout] if holdout else []
        self.paths = [p for i, p in enumerate(found) if i % holdout] if holdout and len(found) > 1 else found


def _roots(path: str) -> list[str]:
    """Return the paths that a spec stands for."""
    if path == STDIN:
        return _listed()
    return [path] if os.path.exists(path) else glob.glob(path)


def _listed() -> list[str]:
    """Read a list of paths, ended by NUL bytes or by newlines, from standard input; those not there are left out."""
    if files.is_terminal(sys.stdin):
        raise errors.UsageError("standard input is a terminal: pipe a list of images in")
    try:
        text = files.standard_input().read()
    except OSError as error:
        raise errors.from_os_error(error, "<stdin>") from error
    lines = text.split(b"\0") if b"\0" in text else [line.removesuffix(b"\r") for line in text.split(b"\n")]
    paths = [os.fsdecode(line) for line in lines if line]
    there = [path for path in paths if os.path.exists(path)]
    for path in sorted(set(paths).difference(there)):
        log.warning(f"{path}: skipped: no such file or directory")
    return there


def _images(root: str) -> list[str | Member]:
    """List the images below a folder, in an archive, or the one at a file."""
    path = Path(root)
    if path.is_dir():
        return [str(p) for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file()]
    if path.is_fifo():
        root = str(files.spool(root))  # for it is read more than once
    if path.suffix.lower() in EXTENSIONS or not _is_tar(root):
        return [root]
    return [Member(root, *where) for where in tar.index(root) if Path(where[0]).suffix.lower() in EXTENSIONS]


def _is_tar(path: str) -> bool:
    """Tell whether a file is a plain tar archive. DataError for a compressed one: it has no offsets to read at."""
    try:
        with open(path, "rb") as file:
            head = file.read(streams.HEAD)
    except OSError:
        return False  # told as every image that cannot be read
    plain = path.endswith(".tar") or head[257:262] == b"ustar"
    if head.startswith(_ZSTD) or streams.sniff(head) == "tar" and head[257:262] != b"ustar":
        raise errors.DataError(f"{path}: is compressed: gunzip it to a plain .tar, or unpack it")
    return plain


class Cache:
    """Decoded images, as many as fit into `limit` bytes; those longest unused go first. For several threads."""

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0
        self._images: OrderedDict[Hashable, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._images)

    def get(self, key: Hashable) -> Image.Image | None:
        """Return the image put under `key`, if it is still there."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
            return self._images.get(key)

    def put(self, key: Hashable, image: Image.Image) -> None:
        """Keep an image; what two threads decoded at once is kept once."""
        with self._lock:
            if key in self._images:
                return
            self._images[key] = image
            self.size += _bytes(image)
            while self.size > self.limit:
                self.size -= _bytes(self._images.popitem(last=False)[1])


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * 4  # Pillow keeps RGB in four bytes


def _memory() -> int:
    """Return the bytes of memory to be had: of the machine, or of the container where that is less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found)


def _processes() -> int:
    """Return how many processes torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def _workers() -> int:
    """Return how many threads make batches unless it is said: half the cores of this process, from 2 to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(8, cores // 2 // _processes()))


# One for all crops of the process, so that many sources do not take more than few.
CACHE = Cache(min(2 << 30, _memory() // 4 // _processes()))


class Crops:
    """Random square crops from sources, as (N, 3, size, size) uint8, decoded images cached in memory."""

    def __init__(self, sources: Sequence[Source], seed: int, role: int, held_out: bool = False):
        """role: a number that makes the draws of two Crops with one seed independent; below 90."""
        self.groups = [list(s.held_out if held_out else s.paths) for s in sources]
        shares = np.array([s.share if group else 0.0 for s, group in zip(sources, self.groups)])
        if not shares.any() and held_out:
            raise errors.UsageError("too few images to hold any out for validation")
        if not shares.any():
            raise errors.UsageError("every image is held out: none is left to train on")
        self.shares = shares / shares.sum()
        self.specs = [s.spec for s in sources]
        self.seed, self.role = seed, role
        self._kind = "held-out" if held_out else "training"
        self._count = len(set().union(*self.groups))
        self._broken: set[str | Member] = set()
        self._lock = threading.Lock()
        self._serial = next(_serials)

    def _open(self, path: str | Member, largest: int) -> Image.Image | None:
        """Return the image in 8-bit RGB, ready for crops of up to `largest`; None for a broken one, reported once."""
        if path in self._broken:
            return None
        key = (self._serial, path, largest)
        image = CACHE.get(key)
        if image is None:
            try:
                image = _decode(path, 2 * largest)
            except errors.StyletoolsError as error:
                with self._lock:
                    known = path in self._broken
                    self._broken.add(path)
                if not known:
                    log.warning(f"{path}: skipped: {str(error).removeprefix(f'{path}: ')}")
                return None
            CACHE.put(key, image)
        return image

    def _crop(self, rng: np.random.Generator, size: int, largest: int, number: int | None = None) -> np.ndarray:
        """Return one random crop, (size, size, 3), from group `number`; None: from any, by their shares."""
        while True:
            group = self.groups[rng.choice(len(self.groups), p=self.shares) if number is None else number]
            path = group[rng.integers(len(group))]
            where = rng.random(4)
            image = self._open(path, largest)
            if image is not None:
                break
            if len(self._broken) == self._count:
                raise errors.DataError(f"none of the {self._kind} images can be read")
            if number is not None and self._broken.issuperset(group):
                raise errors.DataError(f"none of the {self._kind} images of {self.specs[number]} can be read")
        short = min(image.size)
        side = short if short <= size else size + where[0] * (short - size)
        x, y = where[1] * (image.width - side), where[2] * (image.height - side)
        crop = image.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
        # Pillow mirrors three times as fast as numpy copies rows of pixels backwards.
        return np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if where[3] < 0.5 else crop)

    def batch(self, step: int, count: int, size: int, *, first: int = 0, largest: int = 0) -> torch.Tensor:
        """Return the crops `first` .. `first + count - 1` of `step`: (count, 3, size, size) uint8 RGB.

        Each is a random square of at least `size` (the whole short side of smaller images), scaled down to
        it, half of them mirrored; image i is drawn from (seed, role, step, i) alone. `largest` is the largest size
        that will be asked for: larger images are reduced for it, to between twice and four times as much.
        Raises DataError when every image of the sources is broken.
        """
        pixels = np.empty((count, size, size, 3), np.uint8)
        labels = self.labels(step, count, first=first)
        for i in range(count):
            rng = np.random.default_rng([self.seed, self.role, step, first + i])
            number = None if labels is None else int(labels[i])
            pixels[i] = self._crop(rng, size, max(size, largest), number)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def labels(self, step: int, count: int, *, first: int = 0) -> torch.Tensor | None:
        """Return the labels of the crops of `batch`; None: they have none."""
        return None


class LabelledCrops(Crops):
    """Crops whose label is the place of their source among the sources. Every label comes as often as any other."""

    def __init__(self, sources: Sequence[Source], seed: int, role: int, held_out: bool = False):
        super().__init__(sources, seed, role, held_out)
        for spec, group in zip(self.specs, self.groups):
            if not group:
                raise errors.UsageError(f"every image of {spec} is held out: none is left to train on")

    def labels(self, step: int, count: int, *, first: int = 0) -> torch.Tensor:
        """Return the labels of crops `first` .. `first + count - 1` of `step`, (count,) int64: in turn, from any on."""
        start = int(np.random.default_rng([self.seed, 98, step, self.role]).integers(len(self.groups)))
        return (start + first + torch.arange(count)) % len(self.groups)


def _decode(path: str | Member, short_side: int) -> Image.Image:
    """Return an image in 8-bit RGB, reduced by a whole number as long as its short side keeps `short_side`.

    With twice the largest crop as `short_side`, which is what papers on style transfer cut from, crops of that size
    show a quarter of the short side or more. Smaller pieces of large photographs hold grain and compression rather
    than a scene, and whole ones would fill the memory and be slow to scale.
    """
    limits = streams.Limits(short_side=short_side)
    if isinstance(path, Member):
        record = streams.first_image(io.BytesIO(path.read()), str(path), limits)
    else:
        record = streams.open_image(path, limits)
    image = Image.fromarray(np.ascontiguousarray(streams.to_8bit(streams.flat_rgb(record))))
    factor = min(image.size) // short_side
    return image.reduce(factor) if factor > 1 else image


class Batches:
    """Batches of named crops, made ahead of time by several threads."""

    def __init__(
        self,
        crops: dict[str, Crops],
        batch_size: int,
        sizes: Sequence[int],
        *,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
    ):
        """sizes: what crop sizes to draw from.

        rank, world: of a batch of `world * batch_size` images these are those of process `rank`.
        workers: how many threads; None takes half of the cores, from 2 to 8. The batches are the same for any number.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        self.crops, self.batch_size, self.sizes = crops, batch_size, list(sizes)
        self.rank, self.world, self.workers = rank, world, workers or _workers()

    def make(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of `step`: {name: (N, 3, size, size) uint8}, the size drawn from `sizes`.

        With labelled crops in it there is also `label`, (N,) int64.
        """
        seed = next(iter(self.crops.values())).seed
        size = self.sizes[np.random.default_rng([seed, 99, step]).integers(len(self.sizes))]
        first, largest = self.rank * self.batch_size, max(self.sizes)
        made = {}
        for name, crops in self.crops.items():
            made[name] = crops.batch(step, self.batch_size, size, first=first, largest=largest)
            labels = crops.labels(step, self.batch_size, first=first)
            if labels is not None:
                made["label"] = labels
        return made

    def iterate(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """Yield (step, batch) for steps start .. stop-1 in order, some made before they are asked for.

        An error comes with the step whose batch could not be made. Closing it, or leaving its loop, ends the threads
        as soon as they have finished the batch that they are at.
        """
        ahead = self.workers + 2
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="batches")
        try:
            pending = deque(pool.submit(self.make, step) for step in range(start, min(start + ahead, stop)))
            for step in range(start, stop):
                batch = pending.popleft().result()
                if step + ahead < stop:
                    pending.append(pool.submit(self.make, step + ahead))
                yield step, batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
