"""A film restyled: frames are read, restyled and written at the same time; a killed job goes on where it was.

A film is made in segments. Those that are finished wait in a hidden folder beside the output, with all that the next
frame depends on; only when the last one is there are they joined and put into place.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from styletools import errors, files, log, modelfile, streams
from styletools.engine import graph, mux, video

if TYPE_CHECKING:
    from torch import Tensor

    from styletools.engine import infer

STATE = "state.safetensors"
TILE = 480  # longest side of a picture on a contact sheet
FAR = Fraction(8)  # seconds: what is shorter is read faster than passed over


class Course:
    """The style of a film over time: keys of (seconds, style record), between which it changes evenly.

    Before the first and after the last it stays. Records are mixed as stats.merge mixes them.
    """

    def __init__(self, keys: Sequence[tuple[float, dict[str, Tensor]]]):
        self._times = [time for time, _ in sorted(keys, key=lambda key: key[0])]
        self._records = [record for _, record in sorted(keys, key=lambda key: key[0])]

    def at(self, time: float) -> dict[str, Tensor]:
        """Return the style record at a time."""
        from styletools import stats

        after = bisect.bisect_right(self._times, time)
        if after in (0, len(self._times)):
            return self._records[max(after - 1, 0)]
        before, next_one = self._times[after - 1 : after + 1]
        share = (time - before) / (next_one - before)
        return stats.merge(self._records[after - 1 : after + 1], [1 - share, share])


class Look:
    """Restyles the frames of a film, one after another; what was made before steadies what is made next."""

    def __init__(
        self, restyler: infer.Restyler | graph.Restyler, course: Course | None, strength: float, flow: str = "plain"
    ):
        """strength: of what keeps the film steady, 0 to 1; 0 restyles frame by frame, and takes no torch where the
        restyler takes none. flow: plain or raft.
        """
        self.restyler, self.course = restyler, course
        self._steady = None
        if strength:
            from styletools.engine.steady import Steady

            estimate = None
            if flow == "raft":
                from styletools.engine.raft import Raft

                estimate = Raft(restyler.method.device)
            self._steady = Steady(restyler, strength, estimate)

    def __call__(self, frame: video.Frame) -> video.Frame:
        self.at(float(frame.time))
        made = (self._steady or self.restyler)(frame.image)
        return video.Frame(made, frame.time, frame.duration)

    def begin(self) -> None:
        """Make frames from here on independent of those before, but for what `state` returns."""
        if isinstance(self.restyler, graph.Restyler):
            self.restyler.graph.restart()

    def state(self) -> dict[str, Tensor]:
        """Return all that the next frame depends on, named."""
        return self._steady.state() if self._steady else {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on after the frame that `state` was asked for."""
        if self._steady:
            self._steady.restore(state)

    def at(self, time: float) -> None:
        """Put on the style of a time."""
        if self.course:
            self.restyler.style = self.course.at(time)


class Segments:
    """The finished segments of a film, which outlive the process that made them. A context: one process has them.

    What `recipe` says makes the film; one begun by another recipe is no beginning of it.
    """

    def __init__(self, output: Path, recipe: dict[str, Any], *, resume: bool, overwrite: bool):
        """Raises UsageError where an earlier run left segments and neither `resume` nor `overwrite` is said, DoesNotFit
        where these are of another recipe, TryAgain while another process makes this film.
        """
        self.folder = output.with_name(f".{output.name}.film")
        self.output, self.count, self.frames = output, 0, 0
        self._recipe = json.dumps(recipe, sort_keys=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise errors.from_os_error(error, str(output), output=True) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files.remove_stale_parts(output.parent)
            if (self.folder / STATE).exists():
                self._take_over(resume, overwrite)
            for left in self.folder.iterdir():
                if left not in (*self.paths, self.folder / STATE):
                    left.unlink()
        except BlockingIOError as error:
            os.close(self._lock)
            raise errors.TryAgain(f"{output}: another process is making it") from error
        except BaseException:
            os.close(self._lock)
            raise

    def _take_over(self, resume: bool, overwrite: bool) -> None:
        """Count what an earlier run has finished, or begin anew."""
        if overwrite:
            (self.folder / STATE).unlink()
            return
        if not resume:
            raise errors.UsageError(
                f"{self.output}: an earlier run was not finished: --resume goes on, --overwrite begins anew"
            )
        try:
            header = modelfile.read_header(self.folder / STATE)
        except errors.DataError as error:
            raise errors.DataError(f"{error}: --overwrite begins anew") from error
        recipe = json.loads(header["recipe"])
        if other := [key for key, value in json.loads(self._recipe).items() if recipe.get(key) != value]:
            raise errors.DoesNotFit(f"{self.output}: the earlier run differs in {other[0]}: --overwrite begins anew")
        self.count, self.frames = int(header["segments"]), int(header["frames"])
        if missing := [path for path in self.paths if not path.exists()]:
            raise errors.MissingInput(f"{missing[0]}: a segment of the earlier run is gone: --overwrite begins anew")

    @property
    def paths(self) -> list[Path]:
        """The finished segments, in order."""
        return [self._path(number) for number in range(1, self.count + 1)]

    @property
    def next(self) -> Path:
        """Where the next segment is to be written."""
        return self._path(self.count + 1)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.nut"

    def state(self) -> dict[str, Tensor]:
        """Return what the first frame after the finished segments depends on."""
        if not self.count or not next(modelfile.read_headers(self.folder / STATE)).tensors:
            return {}
        from safetensors.torch import load_file

        return load_file(self.folder / STATE)

    def finish(self, frames: int, state: dict[str, Tensor]) -> None:
        """Count the next segment as finished: it has so many frames, and after it this is the state."""
        if state:
            from safetensors.torch import save
        else:
            from safetensors.numpy import save

        count, frames = self.count + 1, self.frames + frames
        told = {"recipe": self._recipe, "segments": str(count), "frames": str(frames)}
        data = save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}, told)
        with files.atomic(self.folder / STATE) as out:
            out.write(data)
        self.count, self.frames = count, frames

    def __enter__(self) -> Segments:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Keep what can be gone on from."""
        if not self.count:
            self.drop()
        elif kind is not None and all(path.exists() for path in self.paths):
            log.warning(f"{self.output}: {self.frames} frames are kept; --resume goes on from there")
        os.close(self._lock)

    def drop(self) -> None:
        """Remove all of them."""
        self.count = 0
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Source:
    """A film to be read: a file, numbered pictures, or what comes through standard input (path None)."""

    path: str | None
    info: video.Info
    start: Fraction | None = None
    duration: Fraction | None = None
    rate: Fraction = Fraction(25)
    stream: Iterator[streams.Image] | None = None

    def frames(self, skip: int = 0) -> Iterator[video.Frame]:
        """Yield the frames from `start` on, for `duration`, but the first `skip` of them."""
        if self.path is None:
            yield from itertools.islice(self._streamed(), skip, None)
        else:
            yield from video.read(
                self.path, info=self.info, start=self.start, duration=self.duration, skip=skip, rate=self.rate
            )

    def later(self, time: Fraction) -> Source:
        """Return this film from a time on that counts from its start."""
        left = None if self.duration is None else self.duration - time
        return dataclasses.replace(self, start=(self.start or Fraction(0)) + time, duration=left)

    @property
    def has_seeking(self) -> bool:
        """Whether the frames of a later part come without those before being read."""
        return self.path is not None and video.has_seeking(self.path)

    def _streamed(self) -> Iterator[video.Frame]:
        start, step = self.start or Fraction(0), 1 / self.info.rate
        for number, image in enumerate(self.stream):
            time = number * step - start
            if self.duration is not None and time >= self.duration:
                return
            if time >= 0:
                yield video.Frame(image, time, step)

    def identity(self) -> Any:
        """Return what tells this film from another: names, sizes and times of its files."""
        if self.path is None:
            return None
        paths = video.numbered(self.path) if video.is_numbered(self.path) else [self.path]
        told = [(os.path.basename(path), found.st_size, found.st_mtime_ns)
                for path, found in ((path, os.stat(path)) for path in paths)]  # fmt: skip
        return [hashlib.sha256(json.dumps(told).encode()).hexdigest(), str(self.start), str(self.duration)]

    @property
    def length(self) -> Fraction | None:
        """How many seconds it has, as far as the file tells."""
        if self.info.duration is None:
            return self.duration
        left = max(self.info.duration - (self.start or 0), Fraction(0))
        return left if self.duration is None else min(left, self.duration)


def open_source(path: str | None, *, start: Fraction | None, duration: Fraction | None, rate: Fraction | None,
                limits: streams.Limits) -> Source | None:  # fmt: skip
    """Return the film at a path, or what comes through standard input (None): y4m, or pictures one after another.

    rate: that of pictures that have none. None for an empty stream. Raises as video.probe does, DataError for a frame
    over the limits.
    """
    if path is not None:
        info = video.probe(path, rate=rate or Fraction(25))
        limits.check_size(info.width, info.height)
        return Source(path, info, start, duration, info.rate)
    records = streams.read(files.standard_input(), name="<stdin>", limits=limits, stream=True)
    try:
        first = next(records, None)
    except errors.DataError as error:
        raise errors.DataError(f"{error} (of films y4m comes through pipes; others are named)") from error
    if first is None:
        return None
    if not isinstance(first, streams.Image):
        raise errors.DataError("<stdin>: holds no pictures")
    rate = rate or _ratio(first.meta.get("rate")) or Fraction(25)
    height, width = first.array.shape[:2]
    deep, full = first.array.dtype.itemsize > 1, first.meta.get("range") == "full"
    layout = {"444": "yuv444p", "mono": "gray"}.get(first.meta.get("chroma"), "yuv420p")
    info = video.Info(
        width, height, rate, 1 / rate, layout if "chroma" in first.meta else "rgb48le" if deep else "rgb24",
        16 if deep else 8, aspect=_ratio(first.meta.get("aspect")),
        range="pc" if full else "tv", matrix="smpte170m" if "chroma" in first.meta else "",
    )  # fmt: skip
    return Source(None, info, start, duration, rate, itertools.chain([first], _pictures(records)))


def _ratio(text) -> Fraction | None:
    """Return a rate, or the aspect of a pixel, as y4m writes it; None where it is not known."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        ratio = Fraction(str(text).replace(":", "/"))
        return ratio if ratio > 0 else None
    return None


def _pictures(records: Iterable[streams.Record]) -> Iterator[streams.Image]:
    for record in records:
        if not isinstance(record, streams.Image):
            raise errors.DataError("<stdin>: holds something else than pictures")
        yield record


def make(
    source: Source,
    output: Path,
    encoding: mux.Encoding,
    look: Look,
    segments: Segments,
    size: tuple[int, int],
    shown: Callable[[video.Frame, video.Frame], None],
    bar: log.Progress,
    *,
    length: int = 240,
) -> int:
    """Restyle a film into a file, with all that accompanies it; return its number of frames.

    size: (height, width) of the result. length: frames of a segment. `shown` gets every frame before and after.
    Where the source breaks off, what came before that is made a film called as `output` with `.partial` before its
    suffix. Raises DataError then, and where no frame is found.
    """
    like = mux.resized(source.info, *size)
    if segments.count:
        look.restore(segments.state())
        bar.done = bar.begun = segments.frames
    broken: list[errors.DataError] = []
    with contextlib.closing(source.frames(segments.frames)) as found:
        reading = _until_broken(found, broken)
        for first in reading:
            count = 0
            look.begin()
            with mux.Writer(segments.next, like, encoding) as writer:
                for frame in itertools.chain([first], itertools.islice(reading, length - 1)):
                    made = look(frame)
                    writer.write(made)
                    shown(frame, made)
                    count += 1
                    bar.update(segments.frames + count)
            segments.finish(count, look.state())
    if not segments.frames:
        raise broken[0] if broken else _no_frame(source)
    target = output.with_name(f"{output.stem}.partial{output.suffix}") if broken else output
    mux.assemble(
        segments.paths, source.path, target, encoding,
        info=source.info, start=source.start, duration=source.duration,
    )  # fmt: skip
    segments.drop()
    if broken:
        raise errors.DataError(f"{broken[0]}; the {segments.frames} frames before that are in {target}") from broken[0]
    return segments.frames


def stream(
    source: Source,
    write: Callable[[video.Frame], None],
    look: Look,
    shown: Callable[[video.Frame, video.Frame], None],
    bar: log.Progress,
) -> int:
    """Restyle a film frame by frame into what takes them one by one (a pipe, pictures); return how many there were.

    Raises DataError where there is none.
    """
    count = 0
    for frame in source.frames():
        made = look(frame)
        write(made)
        shown(frame, made)
        count += 1
        bar.update()
    if not count:
        raise _no_frame(source)
    return count


def _no_frame(source: Source) -> errors.DataError:
    return errors.DataError(f"{source.path or '<stdin>'}: no frame in this part of it")


def _until_broken(frames: Iterable[video.Frame], broken: list[errors.DataError]) -> Iterator[video.Frame]:
    """Yield frames until there are none, or reading fails: then `broken` gets the error."""
    try:
        yield from frames
    except errors.DataError as error:
        broken.append(error)


def look_through(source: Source, look: Look, sheet: Sheet) -> None:
    """Fill a contact sheet with the frames that it wants, each restyled for itself; what is far between is not read."""
    begin: Fraction | None = Fraction(0)
    while begin is not None:
        offset, begin = begin, None
        with contextlib.closing(source.later(offset).frames()) as frames:
            for found in frames:
                frame = video.Frame(found.image, found.time + offset, found.duration)
                if sheet.wants(frame):
                    look.at(float(frame.time))
                    sheet.add(frame, video.Frame(look.restyler(frame.image), frame.time, frame.duration))
                if sheet.next_time is None:
                    return
                if source.has_seeking and sheet.next_time - frame.time > FAR:
                    begin = sheet.next_time - FAR / 4
                    break


class Sheet:
    """A contact sheet: some frames of a film, evenly spread, each above what was made of it."""

    def __init__(self, count: int, length: Fraction):
        """length: seconds of the film."""
        self._times = [length * Fraction(2 * i + 1, 2 * count) for i in range(count)]
        self._pairs: list[tuple[Image.Image, Image.Image]] = []

    def wants(self, frame: video.Frame) -> bool:
        """Tell whether a frame is the next to be shown."""
        return self.next_time is not None and frame.time + frame.duration > self.next_time

    @property
    def next_time(self) -> Fraction | None:
        """When the next frame to be shown is there; None when all are."""
        return self._times[len(self._pairs)] if len(self._pairs) < len(self._times) else None

    def add(self, before: video.Frame, after: video.Frame) -> None:
        """Take a frame in, if it is wanted."""
        if self.wants(before):
            made = _shrunk(after.image)
            self._pairs.append((_shrunk(before.image).resize(made.size, Image.Resampling.LANCZOS), made))

    def picture(self) -> streams.Image:
        """Return the sheet. Raises DataError where no frame came."""
        if not self._pairs:
            raise errors.DataError("no frame for the contact sheet")
        width, height = self._pairs[0][0].size
        columns = max(round((len(self._pairs) * 2 * height / width) ** 0.5), 1)
        rows = -(-len(self._pairs) // columns)
        sheet = Image.new("RGB", (columns * width, 2 * rows * height))
        for number, pair in enumerate(self._pairs):
            row, column = divmod(number, columns)
            for below, tile in enumerate(pair):
                sheet.paste(tile, (column * width, (2 * row + below) * height))
        return streams.Image(np.asarray(sheet), name="preview")


def _shrunk(image: streams.Image) -> Image.Image:
    """Return a frame as 8-bit RGB, no side longer than TILE."""
    picture = Image.fromarray(np.ascontiguousarray(streams.to_8bit(streams.flat_rgb(image))))
    picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return picture
