"""The loop of every command: read records, do one thing to each, write records.

    sources = find_sources(inputs, ...)          what to read
    target = Target(output, ...)                 where results go
    failed = run(sources, target, function)      read : compute : write, overlapped, in order

Standard library only at import, like all of cli.
"""

import contextlib
import functools
import itertools
import os
import queue
import re
import signal
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from styletools import errors, files, log, streams
from styletools.cli import _command

STDIN = "-"
_NUMBER = re.compile(r"%(?:0?(\d+))?d")  # in the file name of a pattern: frame-%06d.png


@dataclass(frozen=True)
class Source:
    """One thing to read: a path (or - for standard input), and the folder that it was found under."""

    path: str
    root: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return "<stdin>" if self.path == STDIN else self.path

    @property
    def name(self) -> str:
        """What it is called below its folder, wherever that is."""
        return os.path.relpath(self.path, self.root) if self.root else os.path.basename(self.path)


# ---- what to read ----------------------------------------------------------------------------------------


def find_sources(
    inputs: Iterable[str], files_from: str | None = None, null: bool = False, target: "Target | None" = None
) -> Iterator[Source]:
    """Yield what to read, in order: files, the pictures and tensors below folders, standard input when nothing else.

    Hidden files, files of unknown extension and the output folder are passed over inside folders; a file that
    is named is always read. A list is read line by line, so that a command may be kept warm.
    """
    inputs = list(inputs)
    if not inputs and files_from is None:
        inputs = [STDIN]
    if STDIN in inputs and files_from == STDIN:
        raise errors.UsageError("standard input cannot be both an input and the list of inputs")
    for path in itertools.chain(inputs, _listed(files_from, null) if files_from else ()):
        if path != STDIN and os.path.isdir(path):
            yield from _walk(path, target)
        else:
            yield Source(path)


def _walk(root: str, target: "Target | None") -> Iterator[Source]:
    """Yield the readable files below a folder, sorted, and folders that cannot be read: reading them says why.

    Links to folders are not followed. Pipes are passed over: one would wait for them.
    """
    known = streams.extensions()
    avoid = os.path.realpath(target.path) if target and target.kind == "folder" else None
    closed = []

    def remember(error: OSError):
        if error.filename == root:
            raise errors.from_os_error(error)
        if os.path.isdir(error.filename):  # else it went while we looked
            closed.append(Source(error.filename, root))

    for folder, below, names in os.walk(root, onerror=remember):
        below[:] = sorted(
            name for name in below
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) != avoid
        )  # fmt: skip
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in known and not _is_special(path):
                yield Source(path, root)
    yield from closed


def _is_special(path: str) -> bool:
    with contextlib.suppress(OSError):
        return not stat.S_ISREG(os.stat(path).st_mode)
    return False


def _listed(files_from: str, null: bool) -> Iterator[str]:
    """Yield the names in a list as they arrive."""
    end = b"\0" if null else b"\n"
    if files_from == STDIN:
        if files.is_terminal(sys.stdin):
            raise errors.UsageError("names are expected on standard input, which is a terminal")
        opened: Any = contextlib.nullcontext(files.standard_input())
    else:
        try:
            opened = open(files_from, "rb", buffering=0)  # noqa: SIM115 - closed by the with below
        except OSError as error:
            raise errors.from_os_error(error, files_from) from error
    with opened as source:
        rest = b""
        while block := source.read(65536):
            *whole, rest = (rest + block).split(end)
            for name in whole:
                if name:
                    yield os.fsdecode(name)
        if rest:
            yield os.fsdecode(rest)


# ---- where results go ------------------------------------------------------------------------------------


class Target:
    """Where results go: `kind` is stream (standard output or one file), folder, or pattern."""

    def __init__(
        self, output: str | None, to_format: str | None, default: str | None = None, holds: str | None = None, **options
    ):
        """output: what -o says; to_format: what --to says; default: the format when neither tells (None: as in).

        holds: the kind of record that the command makes, "image" or "tensors" (None: any); options go to the format's
        writer. Raises UsageError for -o and --to that contradict it, and for a terminal.
        """
        self.path = output or "-"
        self.to_format, self.default, self.holds, self.options = to_format, default, holds, options
        self._stack = contextlib.ExitStack()
        self._writer: streams.Writer | None = None
        self._made: dict[str, str] = {}
        self._swept: set[str] = set()
        self._sync = threading.Lock()
        pattern = _NUMBER.search(os.path.basename(self.path))
        if self.path != "-" and (self.path.endswith(os.sep) or os.path.isdir(self.path)):
            self.kind = "folder"
        elif pattern:
            self.kind = "pattern"
        else:
            self.kind = "stream"
        if self.kind == "stream" and self.path == "-" and files.is_terminal(sys.stdout):
            raise errors.UsageError("standard output is a terminal: redirect it, or name a file with -o")
        by_name = streams.by_extension(os.path.splitext(self.path)[1]) if self.kind != "folder" else None
        chosen = to_format or by_name
        if chosen and holds and streams.kind(chosen) not in (holds, "container"):
            raise errors.UsageError(f"{chosen} cannot hold {'tensors' if holds == 'tensors' else 'pictures'}")

    def check(self) -> None:
        """Raise now, rather than after the work, where the output cannot be made or its format is not known."""
        told = self.kind == "folder" or self.path == "-" or self.to_format or self.default or os.path.exists(self.path)
        if not told and not streams.by_extension(os.path.splitext(self.path)[1]):
            wanted = f"say the format with --to, or {self.path}/ for a folder"
            raise errors.UsageError(f"{self.path}: unknown extension; {wanted}")
        if self.path == "-" or os.path.exists(self.path) and not os.path.isdir(self.path):
            if self.path != "-" and not os.access(self.path, os.W_OK):
                raise errors.NotPermitted(f"{self.path}: permission denied")
            return
        folder = self.path if self.kind == "folder" else os.path.dirname(self.path) or "."
        existing = os.path.abspath(folder)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        if not os.path.isdir(existing):
            raise errors.CannotCreate(f"{self.path}: {existing} is not a directory")
        if os.statvfs(existing).f_flag & os.ST_RDONLY:
            raise errors.CannotCreate(f"{self.path}: read-only file system")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise errors.NotPermitted(f"{self.path}: permission denied")

    def format_for(self, name: str, found: str | None) -> str:
        """Return the format of a result: --to, else by the extension of -o, else as in, else the default.

        name: the input's; found: the format that the input was read from.
        """
        if self.to_format:
            return self.to_format
        if self.kind != "folder" and self.path != "-":
            chosen = streams.by_extension(os.path.splitext(self.path)[1])
            if chosen is not None:
                return chosen
        if self.default:
            return self.default
        by_name = streams.by_extension(os.path.splitext(name)[1]) if self.kind == "folder" else None
        return by_name or (found if found in streams.names() and f".{found}" not in _READ_ONLY else "png")

    def file_for(self, source: Source, index: int = 0, member: str = "") -> str:
        """Return the file that a result goes to, in a folder or by a pattern; the input's tree is kept.

        member: the name of a picture in an archive, which it keeps, in a folder called as the archive.
        """
        if self.kind == "pattern":
            folder, name = os.path.split(self.path)
            return os.path.join(folder, _NUMBER.sub(lambda found: f"{index + 1:0{found[1] or 1}}", name, count=1))
        if member:
            below = "" if source.path == STDIN else files.output_path(source.path, source.root, "", "").with_suffix("")
            source, index = Source(os.path.join(below, member), os.curdir), 0
        name = "stdin.png" if source.path == STDIN else source.path.rstrip(os.sep)
        chosen = self.to_format or self.default
        suffix = os.path.splitext(name)[1] if source.path != STDIN else ""
        if chosen:
            extension = streams.extension(chosen)
        else:
            extension = suffix if streams.by_extension(suffix) and suffix.lower() not in _READ_ONLY else ".png"
        path = files.output_path(name, source.root, self.path, extension)
        return str(path if not index else path.with_name(f"{path.stem}-{index + 1:06}{path.suffix}"))

    def claim(self, source: Source, index: int = 0, member: str = "") -> str:
        """Return `file_for`, having made sure that no other input goes there and that no input is overwritten."""
        return self.own(self.file_for(source, index, member), source, index)

    def own(self, path: str, source: Source, index: int = 0) -> str:
        """Return `path`, having made sure that it is the result of no other input, and no input itself."""
        if self.kind == "folder":  # the numbers of a pattern never meet
            owner = f"{source.label} {index}"
            with self._sync:
                earlier = self._made.setdefault(os.path.realpath(path), owner)
            if earlier != owner:
                first = earlier.rpartition(" ")[0]
                raise errors.UsageError(f"{source.label}: would overwrite {path}, which is the result of {first}")
        if _same_file(path, source):
            raise errors.UsageError(f"{source.label}: would be overwritten by its result; choose another folder")
        folder = os.path.dirname(path)
        if folder not in self._swept:
            self._swept.add(folder)
            files.remove_stale_parts(folder or ".")
        return path

    def refuse(self, source: Source) -> None:
        """Raise UsageError where the one file of -o is an input too."""
        if self.kind == "stream" and self.path != "-" and _same_file(self.path, source):
            raise errors.UsageError(f"{source.label}: is input and output; choose another name for -o")

    def write_stream(self, record, name: str, found: str | None) -> None:
        """Write a record to the one stream or file, which is opened with the first."""
        if self._writer is None:
            chosen = self.format_for(name, found)
            if self.path == "-":
                out: BinaryIO = sys.stdout.buffer
            else:
                out = self._stack.enter_context(files.atomic(self.path))
            self._writer = self._stack.enter_context(
                streams.writer(out, chosen, stream=self.path == "-", **self.options)
            )
        self._writer.write(record)

    def write_one(self, record) -> None:
        """Write the one result of a command and finish; in a folder, it is called as the record is."""
        if self.kind == "stream":
            self.write_stream(record, record.name, None)
        else:
            name = record.name.replace(os.sep, "_") or "result"
            self.write_file(record, self.claim(Source(f"{name}.{self.default or 'png'}")), None)
        self.close()

    def holds_all(self, source: Source) -> bool:
        """Tell whether all records of a source go into one file of a folder: a video stays one, and an archive."""
        if self.kind != "folder" or source.path == STDIN:
            return False
        return streams.by_extension(os.path.splitext(self.file_for(source))[1]) in ("tar", "y4m")

    @property
    def has_parts(self) -> bool:
        """Whether a file of several records is being written."""
        return self._writer is not None

    def write_part(self, record, source: Source) -> None:
        """Write one of several records to a file that `end_parts` puts into its place."""
        path = self.claim(source)
        if self._writer is None:
            out = self._stack.enter_context(files.atomic(path))
            chosen = self.to_format or streams.by_extension(os.path.splitext(path)[1]) or "tar"
            self._writer = self._stack.enter_context(streams.writer(out, chosen, **self.options))
        self._writer.write(record)

    def end_parts(self, whole: bool) -> bool:
        """Finish the file of `write_part`, if there is one, or give it up unless it is `whole`; tell which."""
        written, self._writer = self._writer is not None, None
        if not whole:
            self.abandon()
        self._stack.close()
        return written and whole

    def write_file(self, record, path: str, found: str | None) -> None:
        """Write a record as a file of its own, atomically."""
        chosen = self.to_format or streams.by_extension(os.path.splitext(path)[1]) or self.default or found or "png"
        with files.atomic(path) as out, streams.writer(out, chosen, **self.options) as writer:
            writer.write(record)

    def close(self) -> None:
        """Finish the stream. A file named by -o appears now: empty, when there was nothing to write."""
        if self.kind == "stream" and self.path != "-" and self._writer is None:
            self._stack.enter_context(files.atomic(self.path))
        self._stack.close()

    def abandon(self) -> None:
        """Give the stream up: a file named by -o does not appear, and an older one stays."""
        with contextlib.suppress(_Abandoned):
            self._stack.__exit__(_Abandoned, _Abandoned(), None)


class _Abandoned(Exception):
    pass


def _same_file(path: str, source: Source) -> bool:
    """Tell whether a regular file is what a source is read from."""
    if source.path == STDIN or not os.path.isfile(path):
        return False
    try:
        return os.path.samefile(path, source.path)
    except OSError:
        return False


_BURST = 64  # items handed to one `stream` at most: in between, signals are answered
_SMALL = 32 << 20  # bytes of a file that may be read whole, ahead of those before it
_READ_ONLY = {".gif"}  # 256 colours would spoil a painting


# ---- read : compute : write ------------------------------------------------------------------------------


@dataclass
class _Item:
    """A record, or the error that stands in its place; `fatal` when those after it are lost too.

    Neither record nor error: the source is at its end.
    """

    source: Source
    record: Any = None
    error: errors.StyletoolsError | None = None
    fatal: bool = False

    @property
    def label(self) -> str:
        """What messages call it: the file, the member of the archive, the number of the frame."""
        name = getattr(self.record, "name", "") or self.source.label
        index = getattr(self.record, "index", 0)
        if name == self.source.label:
            return f"{name}: record {index + 1}" if index else name
        return f"{self.source.label}: {name}"

    @property
    def is_end(self) -> bool:
        """Whether the source is at its end."""
        return self.record is None and self.error is None

    @property
    def member(self) -> str:
        """The name of a picture in an archive."""
        name = self.record.name if isinstance(self.record, streams.Image) else ""
        return name if name != self.source.path else ""


@dataclass
class _Work:
    """What has become of one source so far."""

    source: Source
    made: list[str] = field(default_factory=list)  # the files in their places
    left: int = 0  # files that are being written
    parts: int = 0  # records in the one file of a video or an archive
    ended: bool = False
    failed: bool = False
    lost: bool = False  # no record is to be had any more


class _Stop(Exception):
    """--fail-fast ends the work."""


@dataclass(frozen=True)
class Deferred:
    """A function still to be made: `make` imports and loads what is heavy, once the first record is there."""

    make: Callable[[], Callable[[Any], Any]]


def run(
    sources: Iterable[Source | None],
    target: Target,
    function: "Callable[[Any], Any] | Deferred",
    *,
    from_format: str | None = None,
    max_pixels: int | None = None,
    jobs: int = 2,
    fail_fast: bool = False,
    total: int | None = None,
    unit: str = "image",
    finished: Callable[[Source, list[str]], None] | None = None,
) -> int:
    """Bring every record of `sources` through `function` to `target`; return the exit status.

    sources: a None among them is a pause, in which what is under way is finished. function: record to record, or None
    for no result; it may have a method `stream` (see `_computed`). What making a `Deferred` one raises ends the work.
    Reading goes on in a thread; results for a folder are written by `jobs` threads, results for a stream by this
    one, each flushed before the next record is awaited. A failure is reported and the work goes on; damage in
    a pipe ends it, since the records after it are lost. The status is 0, 1 when some failed, or the failure's
    own when it was all there was to do. `finished(source, paths)` is called for each source of which nothing failed,
    once the files made of it are in their places.
    """
    limits = streams.Limits(max_pixels=max_pixels) if max_pixels else streams.Limits()
    progress = log.Progress(total, unit)
    statuses: list[int] = []
    good, several = 0, False
    work: _Work | None = None
    pool = ThreadPoolExecutor(jobs)
    writing: deque[tuple[_Item, _Work, str, Future]] = deque()

    def failed(error: BaseException, item: _Item, of: _Work) -> None:
        of.failed = True
        statuses.append(_command.report(_command.as_styletools_error(error), item.label))
        if fail_fast or item.fatal:
            raise _Stop

    def wanted(item: _Item) -> bool:
        """Tell whether what comes of an item is of use. Raises UsageError for a source that must not be read."""
        target.refuse(item.source)
        return work is None or work.source is not item.source or not work.lost

    def settle(limit: int) -> None:
        """Wait until at most `limit` files are being written."""
        nonlocal good
        while len(writing) > limit or (writing and writing[0][-1].done()):
            item, of, path, future = writing.popleft()
            of.left -= 1
            try:
                future.result()
            except Exception as error:
                failed(error, item, of)
                continue
            good += 1
            progress.update()
            of.made.append(path)
            tell(of)

    def tell(of: _Work) -> None:
        if finished and of.ended and not of.left and of.made and not of.failed:
            finished(of.source, of.made)

    def end(of: _Work) -> None:
        """Note that a source has no further records."""
        nonlocal good
        of.ended = True
        if target.kind == "folder" and target.has_parts:
            try:
                if target.end_parts(whole=not of.lost):
                    of.made.append(target.file_for(of.source))
            except Exception as error:
                of.lost = True
                failed(error, _Item(of.source), of)
            finally:
                good -= of.parts if of.lost else 0
        tell(of)

    # Where names still come, nothing may wait for the next.
    reading = functools.partial(_read_several, jobs=jobs) if total is not None and jobs > 1 else _read
    with _Ahead(reading(sources, from_format, limits), 2 * jobs) as items:
        try:
            each = _finished(items) if target.kind != "stream" else items
            for item, result in _computed(each, items.waiting, function, wanted):
                if item is None:
                    settle(0)
                    continue
                if work is None or work.ended:
                    several = work is not None
                    work = _Work(item.source)
                if item.is_end:
                    end(work)
                    settle(2 * jobs)
                    continue
                if work.lost:
                    continue
                try:
                    if item.error:
                        work.lost = item.record is None
                        raise item.error
                    if isinstance(result, Exception):
                        raise result
                    found = "tar" if item.member else item.record.meta.get("format")
                    if result is None:
                        good += 1
                    elif target.kind == "stream":
                        target.write_stream(result, item.record.name, found)
                        good += 1
                    elif target.kind == "folder" and target.holds_all(item.source):
                        try:
                            target.write_part(result, item.source)
                        except Exception as error:
                            # Without a file, or with half a record in it, there is nothing to go on with.
                            work.lost = isinstance(error, OSError) or not target.has_parts
                            raise
                        work.parts += 1
                        good += 1
                    else:
                        index = good + len(statuses) + len(writing) if target.kind == "pattern" else item.record.index
                        path = target.claim(item.source, index, item.member)
                        work.left += 1
                        writing.append((item, work, path, pool.submit(target.write_file, result, path, found)))
                except Exception as error:
                    if target.kind == "stream" and isinstance(error, OSError | errors.TryAgain):
                        raise  # the one output is broken: going on would be in vain
                    if isinstance(error, errors.Unavailable) and not item.error:
                        raise  # what is not there for one record is not there for the next
                    failed(error, item, work)
                else:
                    progress.update(good)
                    settle(2 * jobs)
            settle(0)
        except _Stop:
            if target.kind == "folder":
                target.end_parts(whole=False)
        except BaseException as error:
            if isinstance(error, _command.Signalled) and error.number == signal.SIGTERM:
                with contextlib.suppress(_Stop):
                    following = next(items.waiting(), None)
                    if work and following and following.is_end:
                        end(work)
                    settle(0)
            pool.shutdown(wait=False, cancel_futures=True)
            target.abandon()
            raise
        finally:
            pool.shutdown(wait=True)
            progress.close()
    if statuses and not good and target.kind == "stream":
        target.abandon()
    else:
        target.close()
    if len(statuses) == 1 and not good and not several:
        return statuses[0]
    if statuses and not several and item.fatal:
        return statuses[-1]
    return 1 if statuses else 0


def _computed(
    items: Iterable, waiting: Callable[[], Iterator], function: Any, wanted: Callable[[_Item], bool]
) -> Iterator[tuple[_Item | None, Any]]:
    """Yield every item in its order, with what `function` makes of its record, or the exception that this raised.

    items: awaited one by one; waiting: those that are there already. A function that can work on several records at
    once has a method `stream`, from an iterator of records, which ends where one would have to be awaited, to one of
    results and exceptions in their order.
    """

    def is_work(item: _Item | None) -> bool:
        return item is not None and not item.is_end and wanted(item) and not item.error

    for first in items:
        result = None
        if is_work(first):
            if isinstance(function, Deferred):
                function = function.make()
            if hasattr(function, "stream"):
                yield from _streamed(first, itertools.islice(waiting(), _BURST), function, is_work)
                continue
            try:
                result = function(first.record)
            except Exception as error:
                result = error
        yield first, result


def _streamed(
    first: _Item, others: Iterable, function: Any, is_work: Callable[[_Item | None], bool]
) -> Iterator[tuple[_Item | None, Any]]:
    """Do what `_computed` does for items that are there, by a function that takes several at once."""
    taken: deque[tuple[_Item | None, bool]] = deque([(first, True)])

    def records() -> Iterator:
        yield first.record
        for item in others:
            taken.append((item, is_work(item)))
            if taken[-1][1]:
                yield item.record

    for result in function.stream(records()):
        while not taken[0][1]:
            yield taken.popleft()[0], None
        yield taken.popleft()[0], result
    for item, _ in taken:
        yield item, None


def _finished(items: Iterable) -> Iterator:
    """Yield items; what is done with each of them is finished before SIGTERM ends the work."""
    for item in items:
        with _command.finishing():
            yield item


def gather(
    sources: Iterable[Source],
    function: Callable[[Source, Any], None],
    *,
    from_format: str | None = None,
    max_pixels: int | None = None,
    unit: str = "image",
) -> int:
    """Show every record to `function(source, record)`, for commands that make one result of all; return how many.

    The first failure ends the work: a result without one of its parts would be another result.
    """
    limits = streams.Limits(max_pixels=max_pixels) if max_pixels else streams.Limits()
    progress = log.Progress(None, unit)
    with _Ahead(_read(sources, from_format, limits), 2) as items:
        try:
            for item in items:
                if item.is_end:
                    continue
                try:
                    if item.error:
                        raise item.error
                    function(item.source, item.record)
                except errors.StyletoolsError as error:
                    if str(error).startswith(f"{item.label}: "):
                        raise
                    raise type(error)(f"{item.label}: {error}") from error
                progress.update()
        finally:
            progress.close()
    return progress.done


def _read_several(
    sources: Iterable[Source], from_format: str | None, limits: streams.Limits, *, jobs: int
) -> Iterator[_Item | None]:
    """Yield what `_read` does; several files are read at once, by `jobs` threads, unless they may hold much."""
    reading: deque[Future] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for source in sources:
            small = _is_small(source)
            if small:
                reading.append(pool.submit(list, _read([source], from_format, limits)))
            while len(reading) > (jobs if small else 0):
                yield from reading.popleft().result()
            if not small:
                yield from _read([source], from_format, limits)
        while reading:
            yield from reading.popleft().result()


def _is_small(source: Source) -> bool:
    """Tell whether all records of a file may be in memory at once: that of a format that holds one picture."""
    found = streams.by_extension(os.path.splitext(source.path)[1]) if source.path != STDIN else None
    with contextlib.suppress(OSError):
        return found in ("jpeg", "png", "webp") and os.path.getsize(source.path) < _SMALL
    return False


def _read(
    sources: Iterable[Source | None], from_format: str | None, limits: streams.Limits
) -> Iterator[_Item | None]:
    """Yield the records of all sources in order, errors in their places, and after each source its end."""
    for source in sources:
        if source is None:
            yield None
            continue
        pipe = source.path == STDIN
        try:
            if pipe and files.is_terminal(sys.stdin):
                raise errors.UsageError("standard input is a terminal: name a file, or pipe something in")
            opened: Any = contextlib.nullcontext(files.standard_input())
            if not pipe:
                opened = open(source.path, "rb", buffering=0)  # noqa: SIM115 - closed by the with below
            with opened as stream:
                count = 0
                for record in streams.read(
                    stream, name="" if pipe else source.path, format=from_format, limits=limits, stream=pipe
                ):
                    count += 1
                    if isinstance(record, streams.Bad):
                        yield _Item(source, record, record.error)
                        continue
                    further = record.meta.get("frames", 0)
                    if further and record.meta.get("format") != "jpeg":  # those of cameras are previews
                        log.warning(f"{source.label}: only the first of its {further + 1} frames is read")
                    yield _Item(source, record)
                if not count and not pipe and os.path.isfile(source.path):
                    raise errors.DataError(f"{source.path}: is empty")
        except errors.StyletoolsError as error:
            yield _Item(source, error=error, fatal=pipe)
        except OSError as error:
            yield _Item(source, error=errors.from_os_error(error, source.label), fatal=pipe)
        except Exception as error:
            yield _Item(source, error=_command.as_styletools_error(error), fatal=pipe)
        yield _Item(source)


class _Ahead:
    """An iterator that runs in a thread, a few items ahead. Errors it raises are raised where it is read."""

    def __init__(self, items: Iterator, ahead: int):
        self._items, self._ready, self._ended = items, queue.Queue(ahead), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self._ended.set()  # the thread may be waiting for a pipe: it is a daemon, and not waited for

    def _put(self, item) -> None:
        while not self._ended.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        try:
            for item in self._items:
                self._put(("item", item))
                if self._ended.is_set():
                    return
            self._put(("end", None))
        except BaseException as error:
            self._put(("error", error))

    def waiting(self) -> Iterator:
        """Yield the items that need not be awaited."""
        while self._ready.queue and self._ready.queue[0][0] == "item":
            yield self._ready.get()[1]

    def __iter__(self):
        while True:
            kind, value = self._ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
