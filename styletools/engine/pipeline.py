"""Restyling many pictures on a GPU: bytes to it and back, several at once, copies beside the computation.

Pictures that wait are worked on together, as many of one shape as fit; while one batch is computed the next one is
brought to the device and the last one back. What repeats is recorded as a CUDA graph. Networks compute in float16 where
a method may run in 16 bits: as fast as bfloat16 and eight times as close to float32, whose range they do not need;
where one does, its picture is computed again in float32.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors, streams
from styletools.engine import device as devices
from styletools.engine import infer
from styletools.methods import Method
from styletools.nn import mirror

MOST = 16  # pictures that are worked on together
ENOUGH = 1 << 22  # pixels that keep a device busy: more of them at once only take longer to come
LARGEST = 1 << 26  # pixels of a picture that is left to the restyler, who may cut it into tiles
AHEAD = 2  # batches that are under way while a third is made ready
SHARE = 4  # this part of the free memory is used by one batch: three are under way, and recorded ones keep theirs
REPEATED = 4  # batches of one shape after which its computation is recorded
RECORDED = 8  # recordings that are kept, since each keeps its memory


def around(restyler: infer.Restyler, *, precise: bool = False, adapts: bool = True) -> infer.Restyler | Pipeline:
    """Return what restyles pictures as `restyler` does, in the way that is the fastest on its device.

    precise: compute in float32 throughout; otherwise some values are a level or two of 255 off. adapts: whether what
    comes before and after a picture may make a difference, if only of a level here and there, for speed.
    """
    device = torch.device(restyler.method.device)
    if device.type != "cuda" or restyler.method.iterative:
        return restyler
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    half = restyler.method.half and not precise and torch.cuda.get_device_capability(device) >= (7, 0)
    return Pipeline(restyler, half=torch.float16 if half else None, adapts=adapts)


class Pipeline:
    """Restyles pictures as a Restyler does, many on the way at once: `stream` is for those, a call for one.

    half: the type of 16 bits that networks compute in; None: float32. Without `adapts` each picture is worked on by
    itself and nothing is recorded. On the CPU, and in float32, the very same bytes come as from the restyler.
    """

    def __init__(
        self,
        restyler: infer.Restyler,
        *,
        half: torch.dtype | None = None,
        adapts: bool = True,
        lanes: devices.Lanes | None = None,
    ):
        method, mask = restyler.method, restyler.mask
        self.device = torch.device(method.device)
        self._half, self._adapts = half, adapts
        self._alone = restyler
        self._together = dataclasses.replace(
            restyler,
            method=prepared(method, half) if half or self.device.type == "cuda" else method,
            style=_on(self.device, restyler.style),
            outside=_on(self.device, restyler.outside),
            mask=None if mask is None else mask.to(self.device),
        )
        self.lanes = lanes or devices.lanes(self.device)
        self._free: list[_Slot] = []
        self._seen: Counter[tuple] = Counter()
        self._recorded: dict[tuple, Callable[[Tensor, Tensor], None]] = {}
        self._weighed = 0  # pixels of the largest batch of which is known
        self._weight = 0.0  # how many bytes computing takes a pixel
        self._room = 0  # bytes that a batch may take

    @property
    def style(self) -> dict[str, Tensor] | None:
        """The style record of pictures that are taken from here on."""
        return self._alone.style

    @style.setter
    def style(self, record: dict[str, Tensor] | None) -> None:
        self._alone = dataclasses.replace(self._alone, style=record)
        held, record = self._together.style, _on(self.device, record)
        if held is None or record is None or {k: v.shape for k, v in held.items()} != {
            k: v.shape for k, v in record.items()
        }:
            self._forget()
            self._together = dataclasses.replace(self._together, style=record)
            return

        def change() -> None:
            for key, tensor in held.items():  # in its place, where recordings look for it
                tensor.copy_(record[key])
                if tensor.is_cuda:
                    record[key].record_stream(torch.cuda.current_stream(self.device))

        self.lanes.do("compute", change, after=self.lanes.so_far())

    def __call__(self, image: streams.Image) -> streams.Image:
        """Restyle one picture. Raises what a Restyler raises."""
        (result,) = self.stream([image])
        if isinstance(result, Exception):
            raise result
        return result

    def stream(self, images: Iterable[streams.Image]) -> Iterator[streams.Image | Exception]:
        """Yield for each picture, in order, what comes of it, or the exception that restyling it alone raised.

        `images` is asked for more until it ends: it should where the next one would have to be awaited.
        """
        under_way: deque[Callable[[], list[streams.Image | Exception]]] = deque()
        try:
            for batch in self._batches(images):
                under_way.extend(self._begin(batch))
                while len(under_way) > AHEAD:
                    yield from under_way.popleft()()
            while under_way:
                yield from under_way.popleft()()
        finally:
            for finish in under_way:  # nobody wants them any more, but their memory is in use
                finish()

    # ---- what goes together ----------------------------------------------------------------------------------

    def _batches(self, images: Iterable[streams.Image]) -> Iterator[list[streams.Image]]:
        """Yield pictures in order: those of one shape that follow each other together, in powers of two."""
        waiting: list[streams.Image] = []
        for image in images:
            shape = self._shape(image)
            if waiting and (shape is None or shape != self._shape(waiting[0])):
                yield from _powers(waiting)
                waiting = []
            waiting.append(image)
            if shape is None or len(waiting) >= self.most(shape):
                yield waiting
                waiting = []
        yield from _powers(waiting)

    def _shape(self, image: streams.Image) -> tuple[int, int, int] | None:
        """Return the shape of a picture that is worked on here; None: the restyler does that, or says why not."""
        if not isinstance(image, streams.Image) or self._alone.method.iterative:
            return None
        if not isinstance(image.array, np.ndarray) or image.array.dtype != np.uint8:
            return None
        shape, most = image.array.shape, min(LARGEST, (self._alone.memory or math.inf) / infer.PLENTY)
        return shape if max(math.prod(shape[:2]), math.prod(self._size(shape))) <= most else None

    def _size(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Return height and width of the result."""
        return streams.scaled(shape[:2], self._alone.size)

    def most(self, shape: tuple[int, int, int]) -> int:
        """Return how many pictures of a shape are worked on together at most."""
        one_by_one = self._alone.preserve_color in ("coral", "histogram")
        # A bank of styles, none of which is asked for, gives each picture of a batch another.
        one_by_one |= self._alone.style is None and "," in getattr(self._alone.method.config, "styles", "")
        if one_by_one or not self._adapts or not self._weight:
            return 1
        pixels = max(math.prod(self._size(shape)), math.prod(shape[:2]))
        most = min(MOST, ENOUGH // pixels, int(self._room / (pixels * self._weight)))
        return 1 << (max(most, 1).bit_length() - 1)

    # ---- what is done with them ------------------------------------------------------------------------------

    def _begin(self, images: list[streams.Image]) -> list[Callable[[], list[streams.Image | Exception]]]:
        """Queue the work on pictures of one shape; return what waits for and returns the results of each part.

        What fails together is tried in halves, and one that fails alone is left to the restyler, whose error is told.
        """
        alone = functools.partial(_one_by_one, self._alone, images)
        if self._shape(images[0]) is None:
            return [alone]
        try:
            return [self._launch(images, alone)]
        except Exception as error:
            out_of_memory = errors.is_out_of_memory(error)
        # Here the exception is gone, and with it what its frames held on the device.
        self.lanes.settle()
        if out_of_memory:
            self._room //= 2
            self._forget()
            self._free.clear()
            self.lanes.release()
        if len(images) == 1:
            return [alone]
        half = len(images) // 2
        return self._begin(images[:half]) + self._begin(images[half:])

    def _forget(self) -> None:
        """Give up all recordings."""
        self.lanes.settle()
        self._recorded.clear()
        self._seen.clear()

    def _launch(self, images: list[streams.Image], alone: Callable) -> Callable[[], list[streams.Image | Exception]]:
        """Queue upload, computation and download of a batch."""
        lanes, count, shape = self.lanes, len(images), images[0].array.shape
        if self._alone.size is not None:
            self._alone.limits.check_size(*reversed(self._size(shape)))
        compute = self.program(count, shape)
        slot = self._free.pop() if self._free else _Slot()
        slot.fit(lanes, self.device, count * math.prod(shape), self.result_bytes(count, shape))
        given, taken = (each[: count * math.prod(shape)].view(count, *shape) for each in (slot.given, slot.taken))
        made = slot.made[: self.result_bytes(count, shape)]
        for place, image in zip(given.numpy(), images):
            np.copyto(place, image.array)

        pixels = count * max(math.prod(self._size(shape)), math.prod(shape[:2]))

        def work() -> None:
            if pixels <= self._weighed:
                compute(taken, made)
                return
            self._weight = lanes.weigh(lambda: compute(taken, made)) / pixels
            self._room = self._room or lanes.free() // SHARE
            self._weighed = pixels

        back = lanes.host_bytes(len(made))
        there = lanes.do("up", lambda: taken.copy_(given, non_blocking=True))
        worked = lanes.do("compute", work, after=there)
        done = lanes.do("down", lambda: back.copy_(made, non_blocking=True), after=worked)
        return functools.partial(self._finish, images, slot, back, done, alone)

    def _finish(self, images, slot, back, done, alone) -> list[streams.Image | Exception]:
        """Wait for a batch; return its pictures, those computed again in float32 that left the range of 16 bits."""
        try:
            self.lanes.wait(done)
        except Exception as error:
            return [error] * len(images)
        self._free.append(slot)
        count = len(images)
        arrays = back[:-count].view(self._result_shape(count, images[0].array.shape)).numpy()
        return [
            alone(only=number)[0] if unfit else
            streams.Image(array, name=image.name, index=image.index, meta=dict(image.meta))
            for number, (image, array, unfit) in enumerate(zip(images, arrays, back[-count:].tolist()))
        ]  # fmt: skip

    def _result_shape(self, count: int, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
        return (count, *self._size(shape), 4 if shape[2] in (2, 4) else 3)

    def result_bytes(self, count: int, shape: tuple[int, int, int]) -> int:
        """Return how many bytes `program` makes: the pictures, then one for each: 1 where not all of it is numbers."""
        return math.prod(self._result_shape(count, shape)) + count

    def program(self, count: int, shape: tuple[int, int, int]) -> Callable[[Tensor, Tensor], None]:
        """Return what computes `count` pictures of a shape (height, width, channels): a recording if that repeats.

        It takes (count, *shape) uint8 on the device and fills (result_bytes,) uint8 there, in the lane "compute".
        """
        key = (count, *shape)
        self._seen[key] += 1
        if self._adapts and self._seen[key] == REPEATED and len(self._recorded) < RECORDED:
            taken = torch.zeros(key, dtype=torch.uint8, device=self.device)
            made = torch.zeros(self.result_bytes(count, shape), dtype=torch.uint8, device=self.device)
            self.lanes.wait(self.lanes.so_far())
            if repeat := self.lanes.record(lambda: self._compute(taken, made)):

                def again(given: Tensor, wanted: Tensor) -> None:
                    taken.copy_(given)
                    repeat()
                    wanted.copy_(made)

                self._recorded[key] = again
        return self._recorded.get(key, self._compute)

    def _compute(self, taken: Tensor, made: Tensor) -> None:
        """Restyle (N, H, W, C) uint8 into `made`."""
        count, channels = len(taken), taken.shape[3]
        planes, unfit = taken.permute(0, 3, 1, 2), []
        colours = (planes[:, :3] if channels > 2 else planes[:, :1].expand(-1, 3, -1, -1)) / 255
        opacity = planes[:, -1:] if channels in (2, 4) else None
        size = self._size(tuple(taken.shape[1:]))
        if size != tuple(taken.shape[1:3]):
            colours = infer.resize(colours.contiguous(), self._together.size)
            if opacity is not None:
                scaled = F.interpolate(opacity.float().contiguous(), size, mode="bilinear", antialias=True)
                opacity = scaled.round()

        def restyle(original: Tensor, style: dict[str, Tensor] | None) -> Tensor:
            if self._together.alpha == 0:
                return original
            with devices.autocast(self.device, self._half is not None, self._half):
                result = self._together.compute(original, style).float()
            unfit.append(~result.sum((1, 2, 3)).isfinite())
            return result.clamp(0, 1)

        result = self._together.paint(colours, restyle)
        pictures = made[:-count].view(self._result_shape(count, tuple(taken.shape[1:])))
        pictures[..., :3].copy_(result.mul(255).round_().permute(0, 2, 3, 1))
        if opacity is not None:
            pictures[..., 3:].copy_(opacity.permute(0, 2, 3, 1))
        made[-count:].copy_(functools.reduce(torch.logical_or, unfit, made.new_zeros(count, dtype=torch.bool)))


class _Slot:
    """Memory for one batch on its way, used again for the next: bytes on the host, and on the device taken and made."""

    def __init__(self):
        self.given = self.taken = self.made = torch.empty(0, dtype=torch.uint8)

    def fit(self, lanes: devices.Lanes, device: torch.device, taken: int, made: int) -> None:
        """See to it that there is room for as many bytes. The batch before must be done."""
        if len(self.taken) >= taken and len(self.made) >= made:
            return
        if len(self.taken) < taken:
            self.given = lanes.host_bytes(taken)
            self.taken = torch.empty(taken, dtype=torch.uint8, device=device)
        if len(self.made) < made:
            self.made = torch.empty(made, dtype=torch.uint8, device=device)
        lanes.wait(lanes.so_far())  # the memory may have been somebody's who is not done with it


def _one_by_one(
    restyler: infer.Restyler, images: list[streams.Image], only: int | None = None
) -> list[streams.Image | Exception]:
    """Restyle each picture alone, or that of one number; return the results and the exceptions that were raised."""
    results: list[streams.Image | Exception] = []
    for image in images if only is None else images[only : only + 1]:
        try:
            results.append(restyler(image))
        except Exception as error:
            results.append(error)
    return results


def _powers(images: list[streams.Image]) -> Iterator[list[streams.Image]]:
    """Yield a list in parts whose lengths are powers of two, the largest first: fewer shapes, which repeat more."""
    while images:
        length = 1 << (len(images).bit_length() - 1)
        yield images[:length]
        images = images[length:]


def prepared(method: Method, half: torch.dtype | None) -> Method:
    """Return a copy of a method as a device wants it: channels last, and weights in 16 bits at once.

    Autocast would bring them to 16 bits for each picture anew.
    """
    method = copy.deepcopy(method)
    method.nets.to(memory_format=torch.channels_last)
    for layer in method.nets.modules() if half else ():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.to(half)
    mirror.replace_padding(method.nets)
    return method


def _on(device: torch.device, record: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return a copy of a style record on a device, which nobody else changes."""
    return None if record is None else {key: tensor.detach().to(device, copy=True) for key, tensor in record.items()}
