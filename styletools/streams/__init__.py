"""Records and streams: pictures and tensors, one after another, in and out of pipes and files.

A stream is records of one format until the end of input; a stream of one record is an ordinary file.
Each format is one module of this package and is found because its file is there. What has to be known of a
format before it is used is written in its module as literals, which are read without importing it:

    NAMES       what the format is called where it is written (`--to`); its module's name first, if it is one
    EXTENSIONS  file name extension -> name; the first extension of a name is the one that is written
    KIND        "image" | "tensors" | "container"
    STREAMS     whether several records may follow one another
    MAGIC       regular expression for the bytes it begins with; b"" where nothing gives it away

A module further defines `read(reader, limits, *, argument, strict)`, a generator of records (`argument` is the
`name:argument` it was asked for with, `strict` that nothing may follow the last), and a class
`Writer(out, name, options)` with `encode(record)` or `write(record)`. Importing this package imports the standard
library only; numpy and Pillow are imported with the first format that is used.
"""

import ast
import dataclasses
import functools
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from styletools import errors, log
from styletools.streams._reader import Reader

HEAD = 512


@dataclasses.dataclass
class Image:
    """A picture: `array` is a numpy array, height x width x channels, uint8 or uint16 over the full range.

    Channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (not premultiplied). EXIF orientation is already applied.
    `meta` may hold `format` (what it was read from), `icc` (profile, bytes), `dpi` (x, y), `exif` (bytes,
    orientation reset), `frames` (how many further frames of the file were ignored), `mtime` (of a tar member),
    and of y4m `rate`, `aspect`, `interlace`, `range`, `chroma`.
    """

    array: Any
    name: str = ""
    index: int = 0
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Tensors:
    """Named numpy arrays with string metadata: features, statistics, a style, a model."""

    tensors: dict[str, Any]
    name: str = ""
    index: int = 0
    meta: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Bad:
    """A member of an archive that cannot be read; the records after it are not harmed, so reading goes on."""

    name: str
    index: int
    error: errors.StyletoolsError


Record = Image | Tensors | Bad


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a record may claim to be, checked before memory is taken for it.

    `short_side`: a JPEG may be decoded at a half, a quarter or an eighth of its size, which is faster, where its short
    side keeps at least so many pixels; 0 decodes it whole.
    """

    max_pixels: int = 536_870_912
    max_bytes: int = 4 << 30
    short_side: int = 0

    def check_size(self, width: int, height: int) -> None:
        """Raise DataError for a picture without pixels or with more than `max_pixels`."""
        if width < 1 or height < 1:
            raise errors.DataError(f"picture of {width}x{height} pixels")
        if width * height > self.max_pixels:
            raise errors.DataError(f"picture of {width}x{height} pixels is over the limit of {self.max_pixels}")

    def check_bytes(self, size: int, what: str = "record") -> None:
        """Raise DataError for something of more than `max_bytes`."""
        if size > self.max_bytes:
            raise errors.DataError(f"{what} of {size} bytes is over the limit of {self.max_bytes}")


class Writer:
    """Writes records of one format; every record is flushed. Formats derive from it.

    `encode(record)` returns the bytes of one record and may be called from several threads, except for y4m, raw
    video and tar, whose records depend on those before: there, call `write`. A context manager; closing
    finishes the stream but leaves `out` open.
    """

    streams = True

    def __init__(self, out: BinaryIO, name: str, options: dict[str, Any]):
        self.out, self.name, self.options = out, name, options
        self.count = 0
        self._warned = False

    def encode(self, record: "Image | Tensors") -> Any:
        """Return the bytes of one record."""
        raise NotImplementedError

    def pieces(self, record: "Image | Tensors") -> Iterator[Any]:
        """Yield the same piece by piece, for records that are large."""
        yield self.encode(record)

    def write(self, record: "Image | Tensors") -> None:
        """Write one record and flush it. CannotCreate where the format holds one record only."""
        if self.count and not self.streams:
            raise errors.CannotCreate(f"{self.name} holds one picture; write several into a folder, or as png or tar")
        for piece in self.pieces(record):
            self.put(piece)
        self.count += 1

    def put(self, data: Any) -> None:
        """Write all of `data`, even where `out` takes a part at a time, and flush."""
        left = memoryview(data).cast("B")
        while len(left):
            written = self.out.write(left)
            left = left[len(left) if written is None else written :]
        self.out.flush()

    def warn_once(self, message: str) -> None:
        """Say `message` on standard error, once for this writer."""
        if not self._warned:
            self._warned = True
            log.warning(message)

    def close(self) -> None:
        """Write what the format wants at the end."""

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()


@dataclasses.dataclass(frozen=True)
class _Format:
    module: str
    names: tuple[str, ...]
    extensions: dict[str, str]
    kind: str
    streams: bool
    magic: re.Pattern | None


def _literals(path: Path) -> dict[str, Any]:
    """Read the constants at the top of a format's file without running it."""
    source = re.split(r"^(?:def|class|@)", path.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
    found = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in ("NAMES", "EXTENSIONS", "KIND", "STREAMS", "MAGIC"):
                found[name] = ast.literal_eval(statement.value)
    return found


@functools.cache
def _formats() -> dict[str, _Format]:
    formats = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        told = _literals(path)
        magic = re.compile(told["MAGIC"], re.DOTALL) if told["MAGIC"] else None
        formats[path.stem] = _Format(path.stem, told["NAMES"], told["EXTENSIONS"], told["KIND"], told["STREAMS"], magic)
    return formats


def _canonical(name: str) -> str:
    """Return the name of a format without its argument, for one that may be an extension ("jpg", "tif")."""
    name = name.partition(":")[0].lower()
    return name if name in names() else _by_extension().get("." + name, name)


def _find(name: str) -> _Format:
    canonical = _canonical(name)
    for found in _formats().values():
        if canonical in found.names:
            return found
    raise errors.UsageError(f"unknown format {name!r}; there are {', '.join(names())}")


def _by_extension() -> dict[str, str]:
    return {extension: name for found in _formats().values() for extension, name in found.extensions.items()}


def _module(found: _Format):
    return importlib.import_module(f"{__name__}.{found.module}")


def names(kind: str | None = None) -> list[str]:
    """Return the names of the formats that can be written, of one `kind` ("image", "tensors", "container") or all."""
    return sorted(name for found in _formats().values() if kind in (None, found.kind) for name in found.names)


def by_extension(extension: str) -> str | None:
    """Return the format of files named `.png`, `.JPG`, ...; None where there is no such format."""
    return _by_extension().get(extension.lower())


def kind(name: str) -> str:
    """Return what a format holds: "image", "tensors" or "container". UsageError for an unknown one."""
    return _find(name).kind


def extension(name: str) -> str:
    """Return the extension that files of a format get, with its dot. UsageError for an unknown one."""
    canonical = _canonical(name)
    return next((ext for ext, of in _find(name).extensions.items() if of == canonical), "." + canonical)


def extensions() -> set[str]:
    """Return all file name extensions of formats that we know, with their dots, in lower case."""
    return set(_by_extension())


def can_stream(name: str) -> bool:
    """Tell whether several records may follow one another in a format. UsageError for an unknown one."""
    return _find(name).streams


def sniff(head: bytes) -> str | None:
    """Return which format the first bytes of a stream (512 decide) belong to: its module's name; None if unknown."""
    # A tar begins with the name of its first member, which may look like anything.
    for found in sorted(_formats().values(), key=lambda each: each.kind != "container"):
        if found.magic is not None and found.magic.match(head):
            return found.module
    return None


def _sniff_next(reader: Reader) -> _Format:
    """Find out what comes next; wait only as long as the bytes that are there leave it open."""
    while True:
        head = reader.there(HEAD)
        module = sniff(head)
        if module is not None:
            return _formats()[module]
        if len(head) >= HEAD or not reader.more():
            break
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        raise errors.DataError("HEIC pictures cannot be read: convert them to JPEG or PNG first")
    raise errors.DataError("neither a picture nor tensors of a known format")


def read(
    source: "BinaryIO | Reader",
    *,
    name: str = "",
    format: str | None = None,
    limits: Limits | None = None,
    stream: bool = False,
) -> Iterator[Record]:
    """Read the records of a file or a pipe, one by one, each as soon as its bytes are there.

    The first bytes decide what it is, unless `format` says it (`rgb24:1920x1080` for headerless video). Records are
    numbered; they are called `name` where they bring no name of their own. `stream` says that `source` is a
    pipe: then nothing but padding may follow the last record, where in a file PNG and JPEG may have a tail
    that every program ignores. Nothing is yielded for empty input.
    Members of archives that cannot be read come as `Bad`. Raises UsageError for an unknown `format` at once, and
    DataError, after all whole records before, where the bytes are damaged, of no known format or over `limits`.
    """
    reader = source if isinstance(source, Reader) else Reader(source)
    chosen = (_find(format), f"{_canonical(format)}:{format.partition(':')[2]}") if format is not None else None
    return _records(reader, name, chosen, limits or Limits(), stream)


def _records(reader, name, chosen, limits, stream) -> Iterator[Record]:
    number = 0
    try:
        if reader.at_end():
            return
        found, argument = chosen or (_sniff_next(reader), "")
        for record in _module(found).read(reader, limits, argument=argument, strict=stream):
            record.name = record.name or name
            record.index = number
            number += 1
            if isinstance(record, Image):
                record.meta.setdefault("format", found.module)
            yield record
            del record
    except errors.DataError as error:
        # Damaged bytes that a message quotes must neither break its line nor fill the screen.
        message = log.printable(" ".join(str(error).split()))[:300]
        raise errors.DataError(f"{name}: {message}" if name else message) from error


def writer(
    out: BinaryIO,
    format: str,
    *,
    stream: bool = False,
    quality: int | None = None,
    compression: int | None = None,
    rate: str | None = None,
) -> Writer:
    """Return what writes records of `format` to `out`; `with` it, or close it at the end.

    `quality` (1 to 100) is for lossy formats (95), `compression` (0 to 9) for png (6, on a `stream` 1: much
    faster), `rate` ("30000:1001", "25") for y4m (that of the first record, else 25); each is ignored by the others.
    Raises UsageError for an unknown format. Pictures lose what a format cannot hold: alpha is laid over white, with
    one warning; 16 bits are rounded to 8.
    """
    found = _find(format)
    options = {"stream": stream, "quality": quality, "compression": compression, "rate": rate}
    return _module(found).Writer(out, _canonical(format), options)


def scaled(size: tuple[int, int], short: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) scaled so that the lesser is `short`; None leaves them, two numbers take their place."""
    if short is None or isinstance(short, tuple):
        return short or size
    height, width = (max(round(side * short / min(size)), 1) for side in size)
    return height, width


def open_image(path: str | os.PathLike, limits: Limits | None = None) -> Image:
    """Return the picture in a file: the first, where there are several. DataError if it holds none."""
    name = os.fspath(path)
    try:
        source = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise errors.from_os_error(error, name) from error
    with source:
        return first_image(source, name, limits)


def first_image(source: BinaryIO, name: str, limits: Limits | None = None) -> Image:
    """Return the first picture of an open file that is called `name`. DataError if it holds none."""
    reader = Reader(source)
    if reader.at_end():
        raise errors.DataError(f"{name}: is empty")
    for record in read(reader, name=name, limits=limits):
        if isinstance(record, Image):
            return record
        if isinstance(record, Tensors):
            raise errors.DataError(f"{name}: holds tensors, not a picture")
    raise errors.DataError(f"{name}: holds no picture")


def __getattr__(name: str):
    # What works on pixels needs numpy, which this module must not import before it is used.
    if name in ("to_rgb", "flat_rgb", "to_8bit", "to_16bit", "over_white", "Rows", "release"):
        return getattr(importlib.import_module(f"{__name__}._pixels"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
