"""Pictures of any size in bounded memory: a network works on tiles, and what comes of it is what it makes of the whole.

What a function computes is written down once, operation by operation, while it works on a small picture (`Tape`). Where
it takes statistics over all pixels (stats.taken), it cannot go on before all tiles have come so far. So the work is
done in passes: each goes on where one before it left features behind, sums the moments that are missing, of the core of
every tile, and the last one paints. Features are kept, in memory or in a file, where that is cheaper than to compute
them again. How far a tile has to reach beyond its core is measured: values that are not numbers spread just as far.

At the edges of the picture the network finds the edges of a tile, and pads as it always does. Everywhere else what it
pads with lies in the part that is cut away.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from styletools import files, log, stats, streams
from styletools.nn import norm

SMALLEST = 128  # pixels a side of what tiles are planned with, at first, and of the smallest tile
LARGEST = 1024  # pixels a side of the largest tile: larger ones are no faster
FARTHEST = 512  # pixels a side of what tiles are planned with at most
SPARE = 2.5  # what the operations of a network need in all, for each byte of the tensors that they take and make
TRIMMED = 8  # tiles after which free memory is given back: each time it has to be taken again
MARGIN = 0.8  # of the memory that may be taken, which is counted on

# Nanoseconds, roughly, of a core: what matters is their ratio.
_PER_PRODUCT, _PER_BYTE, _PER_BYTE_KEPT = 0.02, 0.3, 1.0
# These take but the type of what they are given; those take its shape, which is that of a tile.
_OF_TYPE, _OF_SHAPE = {"aten::new_zeros", "aten::new_ones", "aten::new_full"}, {"aten::ones_like", "aten::full_like"}


class NotTiled(Exception):
    """What is computed cannot be done in tiles; the message says why."""


# ---- what is computed ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ref:
    """In the arguments of an operation: the value that another one made."""

    slot: int


@dataclass
class _Slot:
    """What is known of one value: a tensor of every tile (`spatial`), or one that is the same for all of them."""

    spatial: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    layout: torch.memory_format | None  # None: not as it would lie in a file
    root: int  # the value whose memory it shares: itself, where it has its own
    made: int  # the number of the operation that makes it; -1: it is given
    used: int = -1  # the last operation that takes it

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class _Operation:
    """One step. Of a barrier, `function` is the kind of statistics, and `arguments` what they are taken of."""

    function: Any
    arguments: tuple
    named: dict[str, Any]
    takes: list[int]
    makes: list[int | None]
    spatial: bool
    products: int = 0

    @property
    def is_barrier(self) -> bool:
        return isinstance(self.function, str)


class Tape(TorchDispatchMode):
    """The operations by which `function` makes (1, 3, H, W) of tensors (1, C, H, W), for one size.

    Numbers of values and operations are the same for all sizes.
    """

    def __init__(self, function: Callable[..., Tensor], given: Sequence[Tensor]):
        super().__init__()
        self.size = tuple(given[0].shape[-2:])
        self.slots: list[_Slot] = []
        self.operations: list[_Operation] = []
        self._listening = True
        with torch.no_grad(), norm.replaced(None), stats.taken_by(self._take):
            inputs = [tensor.detach().view_as(tensor) for tensor in given]
            self.inputs = [self._new(tensor, True) for tensor in inputs]
            with self:
                result = function(*inputs)
        if not hasattr(result, "_slot") or result.shape[-2:] != self.size:
            raise NotTiled("its result does not depend on the picture")
        self.result = result._slot
        for number, operation in enumerate(self.operations):
            for slot in operation.takes:
                self.slots[slot].used = number
        self.slots[self.result].used = len(self.operations)
        self.barriers = [number for number, each in enumerate(self.operations) if each.is_barrier]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler, which takes two seconds, in order to tell it to keep out

    def _new(self, tensor: Tensor, spatial: bool, root: int | None = None) -> int:
        number = len(self.slots)
        layout = None
        if tensor.dim() == 4 and len(tensor) == 1:
            formats = (torch.channels_last, torch.contiguous_format)
            layout = next((each for each in formats if tensor.is_contiguous(memory_format=each)), None)
        root = number if root is None else root
        made = len(self.operations) if hasattr(self, "inputs") else -1
        self.slots.append(_Slot(spatial, tuple(tensor.shape), tensor.dtype, tensor.device, layout, root, made))
        tensor._slot = number
        return number

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        named = named or {}
        result = function(*arguments, **named)
        if self._listening and function._schema.name not in _OF_TYPE:
            self._note(function, arguments, named, result)
        return result

    def _note(self, function, arguments, named, result) -> None:
        found: list[Tensor] = []
        kept = _each((arguments, named), lambda x: _ref(x, found))
        takes = [tensor._slot for tensor in found]
        if not takes:
            return  # it does not depend on the picture: what was made is taken as it is
        if function._schema.is_mutable:
            raise NotTiled(f"{function} changes what it is given")
        if function._schema.name in _OF_SHAPE:
            raise NotTiled(f"{function} may be how it counts pixels")
        if any(word in function._schema.name for word in ("upsample", "adaptive", "grid_sample")):
            sizes = [x.shape[-2:] for x in (arguments[0], result)]
            if any(x is True for x in [*arguments, *named.values()]) or any(b % a for a, b in zip(*sizes)):
                raise NotTiled(f"{function} depends on where in the picture it is")
        spatial = any(self.slots[slot].spatial for slot in takes)
        made = list(result) if isinstance(result, tuple | list) else [result]
        makes = []
        for tensor in made:
            if not isinstance(tensor, Tensor):
                makes.append(None)
                continue
            shared = (x for x in found if x.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr())
            base = next(shared, None)
            makes.append(self._new(tensor, spatial, None if base is None else self.slots[base._slot].root))
        products = 0
        if "conv" in function._schema.name and isinstance(arguments[1], Tensor):
            pixels = max(x.shape[-1] * x.shape[-2] for x in (made[0], arguments[0]))
            products = arguments[1].numel() * (pixels if "transpose" in function._schema.name else math.prod(
                made[0].shape[-2:]))  # fmt: skip
        self.operations.append(_Operation(function, *kept, takes, makes, spatial, products))

    def _take(self, features: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Note that statistics are taken here; return those of what is at hand."""
        slot = getattr(features, "_slot", None)
        if slot is None or not self.slots[slot].spatial:
            return _moments(features, kind)
        listening, self._listening = self._listening, False
        mean, spread = _moments(features, kind)
        self._listening = listening
        makes = [self._new(mean, False), self._new(spread, False)]
        self.operations.append(_Operation(kind, (_Ref(slot),), {}, [slot], makes, True))
        return mean, spread

    def scale(self, slot: int) -> int | None:
        """Return how many pixels a side of the picture lie in one place of a value; None where that is not so."""
        shape = self.slots[slot].shape
        if len(shape) not in (3, 4) or shape[-2] < 1 or self.size[0] % shape[-2]:
            return None
        scale = self.size[0] // shape[-2]
        return scale if self.size == (shape[-2] * scale, shape[-1] * scale) else None

    def can_be_kept(self, slot: int) -> bool:
        """Tell whether a value could be put down, tile by tile, and taken up again."""
        known = self.slots[slot]
        return known.spatial and known.layout is not None and self.scale(slot) is not None

    def open_at(self, number: int) -> list[int]:
        """Return the spatial values that are made before an operation, and taken by it or later ones."""
        return [slot for slot, known in enumerate(self.slots) if known.spatial and known.made < number <= known.used]

    def program(self, wanted: Sequence[int], given: Sequence[int]) -> list[_Operation]:
        """Return the spatial operations that make `wanted` of `given`, in order. NotTiled where that cannot be."""
        missing, program = set(wanted) - set(given), []
        for operation in reversed(self.operations):
            if operation.spatial and not operation.is_barrier and missing.intersection(operation.makes):
                program.append(operation)
                missing.difference_update(operation.makes)
                missing.update(slot for slot in operation.takes if self.slots[slot].spatial)
                missing.difference_update(given)
        if missing:
            raise NotTiled("it takes what was not kept")
        return program[::-1]

    def peak(self, program: Sequence[_Operation], given: Sequence[int], wanted: Sequence[int]) -> int:
        """Return about how many bytes are in use at once while a program runs."""
        last: dict[int, int] = {}
        for number, operation in enumerate(program):
            for slot in [*operation.takes, *(slot for slot in operation.makes if slot is not None)]:
                last[self.slots[slot].root] = number
        last.update({self.slots[slot].root: len(program) for slot in wanted})
        held = {self.slots[slot].root for slot in given}
        most = 0
        for number, operation in enumerate(program):
            held.update(self.slots[slot].root for slot in operation.makes if slot is not None)
            most = max(most, sum(self.slots[root].bytes for root in held if self.slots[root].spatial))
            held = {root for root in held if last.get(root, -1) > number}
        return most


def _ref(value, found: list[Tensor]):
    if isinstance(value, Tensor) and hasattr(value, "_slot"):
        found.append(value)
        return _Ref(value._slot)
    return value


def _each(value, change):
    """Return nested arguments with every leaf changed."""
    if isinstance(value, tuple | list):
        return type(value)([_each(item, change) for item in value])
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return change(value)


def _moments(features: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return mean and spread of (..., C, H, W) over its pixels, at least in float32; `kind` as in stats.taken_by."""
    flat = features.flatten(-2)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    mean = flat.mean(-1)
    centred = flat - mean[..., None]
    if kind == "covariance":
        return mean, centred @ centred.transpose(-1, -2) / flat.shape[-1]
    squares = centred * centred
    return mean, squares.sum(-1) / max(flat.shape[-1] - 1, 1) if kind == "unbiased" else squares.mean(-1)


def _run(
    program: Sequence[_Operation], values: dict[int, Any], common: dict[int, Any], wanted: Sequence[int]
) -> dict[int, Tensor]:
    """Run a program on the values of one tile; return those wanted. Nothing is held for longer than it is needed."""
    last = {slot: number for number, operation in enumerate(program) for slot in operation.takes}
    last.update({slot: len(program) for slot in wanted})
    for number, operation in enumerate(program):
        _compute(operation, values, common)
        for slot in [*operation.takes, *operation.makes]:
            if last.get(slot, -1) <= number:
                values.pop(slot, None)
    return {slot: values[slot] for slot in wanted}


def _compute(operation: _Operation, values: dict[int, Any], common: dict[int, Any]) -> None:
    def known(x):
        if isinstance(x, _Ref):
            return values[x.slot] if x.slot in values else common[x.slot]
        return x

    result = operation.function(*_each(operation.arguments, known), **_each(operation.named, known))
    made = result if isinstance(result, tuple | list) else [result]
    values.update({slot: value for slot, value in zip(operation.makes, made) if slot is not None})


# ---- how it is done in tiles -----------------------------------------------------------------------------


@dataclass
class _Pass:
    """One way over all tiles: from features that were kept (`start`: the number of an operation) to a barrier.

    keeps: where features are kept on the way, or None. barrier: None for the last pass, which paints.
    """

    start: int
    keeps: int | None
    barrier: int | None
    halo: int = 0


class Plan:
    """How a function is to be computed in tiles: found out once, with a small picture, for any size.

    multiple: of the sides of all tiles. channels: of the tensors (1, C, H, W) that it takes. Raises NotTiled for what
    cannot be done so.
    """

    def __init__(self, function: Callable[..., Tensor], multiple: int, channels: Sequence[int], device: Any = "cpu"):
        self.channels, self.device = tuple(channels), device
        side = SMALLEST
        while True:
            tape = self.record(function, (-(-side // multiple) * multiple,) * 2)
            scales = [tape.scale(slot) or 1 for slot in range(len(tape.slots)) if tape.can_be_kept(slot)]
            self.align = math.lcm(multiple, *scales)
            self.scales = [tape.scale(slot) for slot in range(len(tape.slots))]
            self.passes = _plan(tape)
            try:
                for each, halo in zip(self.passes, self._reaches(tape)):
                    each.halo = halo
                break
            except _TooSmall:
                if side >= FARTHEST:
                    raise NotTiled("every pixel of the result depends on all of the picture") from None
                side *= 2
        pixels = math.prod(tape.size)
        self.bytes_per_pixel = SPARE * max(self._peak(tape, each) for each in self.passes) / pixels
        everything = [each for each in tape.operations if each.spatial and not each.is_barrier]
        self.untiled_bytes_per_pixel = SPARE * tape.peak(everything, tape.inputs, [tape.result]) / pixels
        self.halo = max(each.halo for each in self.passes)

    def record(self, function: Callable[..., Tensor], size: tuple[int, int]) -> Tape:
        """Write a function down for tiles of one size: that of the plan, or one that differs in its numbers only."""
        noise = torch.Generator().manual_seed(0)
        given = [torch.rand(1, count, *size, generator=noise).to(self.device) for count in self.channels]
        return Tape(function, [_laid_out(tensor, torch.channels_last) for tensor in given])

    def ends(self, tape: Tape, each: _Pass) -> tuple[list[int], list[int], list[int]]:
        """Return the values that a pass begins with, those that it keeps, and all that it makes."""
        kept = [] if each.keeps is None else [s for s in tape.open_at(each.keeps) if s not in tape.inputs]
        given = tape.open_at(each.start) if each.start else tape.inputs
        last = tape.result if each.barrier is None else tape.operations[each.barrier].takes[0]
        return sorted({*given, *tape.inputs}), kept, [*kept, last]

    def _peak(self, tape: Tape, each: _Pass) -> int:
        given, _, wanted = self.ends(tape, each)
        program = tape.program(wanted, given)
        taken = {slot for operation in program for slot in operation.takes}
        return tape.peak(program, [slot for slot in given if slot in taken or slot in wanted], wanted)

    def _reaches(self, tape: Tape) -> list[int]:
        """Measure how many pixels beyond its own each pass needs: spoilt values in the middle spread so far."""
        middle = tape.size[0] // 2 // self.align * self.align
        spoilt = slice(middle, middle + self.align)
        noise = torch.Generator().manual_seed(1)
        known = {
            slot: _laid_out(torch.rand(tape.slots[slot].shape, generator=noise).to(self.device), torch.channels_last)
            for slot in tape.inputs
        }
        common: dict[int, Any] = {}
        reaches = []
        for each in self.passes:
            given, kept, wanted = self.ends(tape, each)
            program = tape.program(wanted, given)
            clean = _run(program, {slot: known[slot] for slot in given}, common, wanted)
            values = {}
            for slot in given:
                scale = tape.scale(slot)
                values[slot] = known[slot].clone()
                places = slice(spoilt.start // scale, spoilt.stop // scale)
                values[slot][..., places, places] = math.nan
            reaches.append(max(
                (_reach(value, tape.scale(slot), spoilt)
                 for slot, value in _run(program, values, common, wanted).items()), default=0,
            ))  # fmt: skip
            known.update({slot: clean[slot] for slot in kept})
            if each.barrier is not None:
                barrier = tape.operations[each.barrier]
                common.update(zip(barrier.makes, _moments(clean[wanted[-1]], barrier.function)))
                settle(tape, common)
        return [-(-reach // self.align) * self.align for reach in reaches]


class _TooSmall(Exception):
    """What was to be measured reaches the edge."""


def _reach(value: Tensor, scale: int | None, spoilt: slice) -> int:
    bad = value.isnan().reshape(-1, *value.shape[-2:]).any(0)
    if not bad.any():
        return 0
    reach = 0
    for along in (bad.any(0), bad.any(1)):
        places = along.nonzero()[:, 0]
        first, last = int(places[0]), int(places[-1])
        if scale is None or first == 0 or last == len(along) - 1:
            raise _TooSmall
        reach = max(reach, spoilt.start - first * scale, (last + 1) * scale - spoilt.stop)
    return reach


def settle(tape: Tape, common: dict[int, Any]) -> None:
    """Compute all that is the same for every tile and depends on statistics that are known by now."""
    for operation in tape.operations:
        ready = all(slot in common for slot in operation.takes)
        if not operation.spatial and ready and not all(slot in common for slot in operation.makes if slot is not None):
            _compute(operation, common, {})


def _plan(tape: Tape) -> list[_Pass]:
    """Choose where features are kept, so that the sum of all work is the least."""
    ends = [*tape.barriers, None]
    numbers = [len(tape.operations) if end is None else end for end in ends]
    # Between each two barriers, the place where the least is to be kept.
    places: list[int | None] = []
    for before, end in zip([0, *numbers], numbers):
        best = None
        for number in range(before + 1, end + 1):
            found = [slot for slot in tape.open_at(number) if slot not in tape.inputs]
            if found and all(map(tape.can_be_kept, found)):
                size = sum(tape.slots[slot].bytes for slot in found)
                if best is None or size <= best[0]:
                    best = (size, number)
        places.append(best and best[1])

    def size(place: int) -> int:
        return sum(tape.slots[slot].bytes for slot in tape.open_at(place))

    @functools.cache
    def work(start: int, end: int) -> float:
        total = 0.0
        target = tape.operations[end].takes if end < len(tape.operations) else [tape.result]
        for operation in tape.program(target, {*tape.open_at(start), *tape.inputs} if start else tape.inputs):
            made = sum(tape.slots[s].bytes for s in operation.makes if s is not None and tape.slots[s].root == s)
            total += operation.products * _PER_PRODUCT + made * _PER_BYTE
        return total

    @functools.cache
    def best(number: int, start: int) -> tuple[float, tuple[_Pass, ...]]:
        """Return the cost of all passes from `number` on, and what they are, with `start` the last place kept."""
        if number == len(ends):
            return 0.0, ()
        own = work(start, numbers[number]) + size(start) * _PER_BYTE_KEPT
        cost, rest = best(number + 1, start)
        chosen = (own + cost, (_Pass(start, None, ends[number]), *rest))
        place = places[number]
        if ends[number] is not None and place is not None:
            cost, rest = best(number + 1, place)
            total = own + size(place) * _PER_BYTE_KEPT + cost
            if total < chosen[0]:
                chosen = (total, (_Pass(start, place, ends[number]), *rest))
        return chosen

    return list(best(0, 0)[1])


# ---- features that are kept ------------------------------------------------------------------------------


class _Kept:
    """A value of the whole picture, (1, C, height, width), in memory or in a file that goes with it."""

    def __init__(self, slot: _Slot, scale: int, size: tuple[int, int], in_memory: bool):
        self._slot, self._scale = slot, scale
        shape = (size[0] // scale, size[1] // scale, slot.shape[1])
        self._kind = torch.int16 if slot.dtype == torch.bfloat16 else slot.dtype
        kind = torch.empty(0, dtype=self._kind).numpy().dtype
        self._array = np.empty(shape, kind) if in_memory else _scratch(shape, kind)

    def _place(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        scale = self._scale
        return slice(top // scale, (top + height) // scale), slice(left // scale, (left + width) // scale)

    def put(self, value: Tensor, *place: int) -> None:
        """Keep what a tile has, at (top, left, height, width) in pixels."""
        rows = value[0].permute(1, 2, 0).contiguous().view(self._kind)
        self._array[self._place(*place)] = rows.cpu().numpy()
        streams.release(self._array)

    def get(self, *place: int) -> Tensor:
        """Return a part as it was."""
        rows = torch.from_numpy(np.ascontiguousarray(self._array[self._place(*place)]))
        streams.release(self._array)
        value = rows.view(self._slot.dtype).permute(2, 0, 1)[None].to(self._slot.device)
        return _laid_out(value, self._slot.layout)


def _laid_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """Return a tensor with its strides as `layout` has them, those of single channels and pixels, too."""
    if layout == torch.channels_last:
        return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return tensor.contiguous()


def _scratch(shape: tuple[int, ...], kind: np.dtype) -> np.memmap:
    """Return an array that is kept in a file, which goes with it. TryAgain where the disk has no room."""
    size = math.prod(shape) * kind.itemsize
    with files.scratch() as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk shows now, not as a signal later
            else:
                os.truncate(file.fileno(), size)
        except OSError as error:
            raise files.no_room(error, size) from error
        return np.memmap(file, kind, "r+", shape=shape)


# ---- running it ------------------------------------------------------------------------------------------


def paint(
    plan: Plan,
    function: Callable[..., Tensor],
    windows: Sequence[Callable[[int, int, int, int], Tensor]],
    size: tuple[int, int],
    padded: tuple[int, int],
    put: Callable[[int, int, Tensor], None],
    *,
    memory: float,
    side: int = LARGEST,
) -> None:
    """Compute what `function` makes of a picture of any size, tile by tile, top to bottom and left to right.

    windows: for each tensor that the function takes, what gives its part at (top, left, height, width). size: height
    and width of the picture; padded: of what the windows are parts of, multiples of the plan's `multiple`. put: takes
    (top, left, part of the result). memory: bytes for all of it; side: pixels of a tile at most. Statistics of
    normalisation layers go through what norm.replaced has set.
    """
    tile = _tile(plan, padded, memory, side)
    tape = plan.record(function, tile)
    tapes = {tile: tape}
    kept_bytes = _most_kept(plan, tape) / math.prod(tile) * math.prod(padded)
    in_memory = kept_bytes + plan.bytes_per_pixel * math.prod(tile) < MARGIN * memory
    common: dict[int, Any] = {}
    kept: dict[int, _Kept] = {}
    cores = [_cores(padded, tile, each.halo, plan.align) for each in plan.passes]
    bar = log.Progress(sum(map(len, cores)), "tile")
    done = 0
    try:
        for number, (each, places) in enumerate(zip(plan.passes, cores)):
            given, keeps, wanted = plan.ends(tape, each)
            programs = {}
            for slot in keeps:
                if slot not in kept:
                    kept[slot] = _Kept(tape.slots[slot], plan.scales[slot], padded, in_memory)
            sums = None if each.barrier is None else _Sums(tape.operations[each.barrier].function, len(places))
            for core, window in places:
                if window[2:] not in tapes:  # at the right and at the bottom, where the sides are odd
                    tapes[window[2:]] = plan.record(function, window[2:])
                if window[2:] not in programs:
                    programs[window[2:]] = tapes[window[2:]].program(wanted, given)
                program = programs[window[2:]]
                taken = {slot for operation in program for slot in operation.takes}.union(wanted).intersection(given)
                values = {
                    slot: _laid_out(windows[slot](*window), torch.channels_last) if slot in tape.inputs
                    else kept[slot].get(*window) for slot in taken
                }  # fmt: skip
                with torch.no_grad():
                    made = _run(program, values, common, wanted)
                for slot in keeps:
                    if slot not in given:
                        kept[slot].put(_cut(made[slot], plan.scales[slot], core, window), *core)
                last = wanted[-1]
                if sums is None:
                    put(core[0], core[1], _cut(made[last], 1, core, window))
                else:
                    bare = len(tape.slots[last].shape) == 3  # the picture as it is, without what it is padded by
                    sums.add(_cut(made[last], plan.scales[last], core, window, size if bare else None))
                del values, made
                done += 1
                bar.update(done)
                if done % TRIMMED == 0:
                    _return_what_is_free()
            if sums is not None:
                barrier = tape.operations[each.barrier]
                common.update(zip(barrier.makes, sums.result(tape, barrier)))
                settle(tape, common)
            later = set().union(*(plan.ends(tape, other)[0] for other in plan.passes[number + 1 :]))
            kept = {slot: value for slot, value in kept.items() if slot in later}
    finally:
        bar.close()


def _return_what_is_free() -> None:
    """Give back memory of which glibc keeps pieces that fit nothing later; other libraries have no such function."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _most_kept(plan: Plan, tape: Tape) -> int:
    """Return how many bytes are kept at most at any time, of a picture that is one tile."""
    most = 0
    for number, each in enumerate(plan.passes):
        later = set().union(*(plan.ends(tape, other)[0] for other in plan.passes[number:])) - set(tape.inputs)
        before = set().union(*(plan.ends(tape, other)[1] for other in plan.passes[:number]), ())
        most = max(most, sum(tape.slots[slot].bytes for slot in (later & before) | set(plan.ends(tape, each)[1])))
    return most


def _tile(plan: Plan, padded: tuple[int, int], memory: float, side: int) -> tuple[int, int]:
    """Return height and width of the tiles, halo and all: as large as the memory allows."""
    least = max(SMALLEST, 3 * plan.halo)
    pixels = max(MARGIN * memory / plan.bytes_per_pixel, least * least)
    wanted = max(min(math.isqrt(int(pixels)), side, LARGEST), least)

    def along(whole: int, wanted: float) -> int:
        return min(whole, -(-int(wanted) // plan.align) * plan.align)

    if padded[0] < wanted:  # a picture that is thin may have tiles that are long
        return padded[0], along(padded[1], min(pixels / padded[0], 16 * wanted))
    if padded[1] < wanted:
        return along(padded[0], min(pixels / padded[1], 16 * wanted)), padded[1]
    return along(padded[0], wanted), along(padded[1], wanted)


def _cores(padded, tile, halo, align) -> list[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """Return (core, window) of all tiles, each (top, left, height, width): the cores lie side by side."""
    parts = []
    for whole, length in zip(padded, tile):
        step = whole if length == whole else (length - 2 * halo) // align * align
        along = []
        for start in range(0, whole, step):
            begin = max(min(start - halo, -(-(whole - length) // align) * align), 0)
            along.append((start, min(step, whole - start), begin, min(length, whole - begin)))
        parts.append(along)
    return [
        ((top, left, height, width), (y, x, high, wide))
        for top, height, y, high in parts[0] for left, width, x, wide in parts[1]
    ]  # fmt: skip


def _cut(value: Tensor, scale: int, core, window, size=None) -> Tensor:
    """Return the core of what was made of a window; `size` cuts off what the picture is padded by."""
    top, left = (core[i] - window[i] for i in (0, 1))
    height, width = core[2:]
    if size is not None:
        height, width = (min(core[i + 2], max(size[i] - core[i], 0)) for i in (0, 1))
    rows, columns = (slice(a // scale, (a + b) // scale) for a, b in ((top, height), (left, width)))
    return value[..., rows, columns]


class _Sums:
    """Moments of the parts of a picture, added up."""

    def __init__(self, kind: str, most: int):
        """most: how many parts there are."""
        self._kind, self._pixels, self._most = kind, [], most
        self._means: Tensor | None = None
        self._spreads: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """Take in one part, (..., C, h, w)."""
        pixels = part.shape[-2] * part.shape[-1]
        if pixels:
            mean, spread = _moments(part, "covariance" if self._kind == "covariance" else "variance")
            if self._means is None:
                # All at once: what is allocated between two tiles, and stays, would break their memory into pieces.
                self._means, self._spreads = (
                    torch.empty(self._most, *each.shape, dtype=torch.float64) for each in (mean, spread)
                )
            self._means[len(self._pixels)], self._spreads[len(self._pixels)] = mean, spread
            self._pixels.append(pixels)

    def result(self, tape: Tape, barrier: _Operation) -> tuple[Tensor, Tensor]:
        """Return mean and spread of the whole, as the operations want them."""
        total = sum(self._pixels)
        mean = sum(pixels / total * mean for pixels, mean in zip(self._pixels, self._means))
        spread = 0
        for pixels, own, within in zip(self._pixels, self._means, self._spreads):
            apart = own - mean
            between = apart[..., :, None] * apart[..., None, :] if self._kind == "covariance" else apart * apart
            spread = spread + pixels / total * (within + between)
        if self._kind == "unbiased":
            spread = spread * (total / max(total - 1, 1))
        slots = [tape.slots[slot] for slot in barrier.makes]
        mean, spread = (value.to(slot.dtype).to(slot.device) for value, slot in zip((mean, spread), slots))
        replace = norm.replacement()
        if self._kind == "norm" and replace is not None:
            replaced = replace(mean[..., None, None], spread[..., None, None])
            mean, spread = (value[..., 0, 0] for value in replaced)
        return mean, spread
