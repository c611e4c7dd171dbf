"""What an ONNX file says of itself, read without running or loading anything. Standard library only.

The format is a protocol buffer, ModelProto of onnx.proto: fields of a number, a kind and a value, one after another.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from styletools import errors

TYPES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64",
         12: "U32", 13: "U64", 16: "BF16"}  # fmt: skip
LARGEST = 1 << 31  # a side has fewer
MOST = 1 << 20  # bytes of a name or a text: what claims more is damaged

Shape = tuple[int | str, ...]


@dataclass
class Header:
    """Metadata, the version of the operations, and {name: (type, shape)} of what goes in, comes out and is stored.

    Sides that are free are words, or "?". `external`: some numbers are in other files.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    producer: str = ""
    opset: int = 0
    inputs: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    tensors: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    external: bool = False


def read_header(path: str | os.PathLike) -> Header:
    """Return what stands in an ONNX file beside its numbers. Raises as reading does, and DataError for other files."""
    return _read(path, parse)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Return the metadata alone, passing over all else. Raises as `read_header` does."""
    return _read(path, _metadata)


def _read(path: str | os.PathLike, what: Callable[[BinaryIO, int], Any]) -> Any:
    try:
        with open(path, "rb") as file:
            return what(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise errors.from_os_error(error, os.fspath(path)) from error
    except errors.DataError as error:
        raise errors.DataError(f"{path}: {error}") from error


def _metadata(file: BinaryIO, size: int) -> dict[str, str]:
    try:
        return dict(_pair(file, value) for number, value in _fields(file, size) if number == 14)
    except (ValueError, TypeError) as error:
        raise errors.DataError("no ONNX file") from error


def parse(file: BinaryIO, size: int) -> Header:
    """Return what stands in the `size` bytes of an open ONNX file beside its numbers. Raises DataError for others."""
    try:
        header = _model(file, size)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise errors.DataError("no ONNX file") from error
    if not header.inputs or not header.outputs:
        raise errors.DataError("no ONNX file")
    return header


def _model(file, end: int) -> Header:
    header = Header()
    for number, value in _fields(file, end):
        if number == 2:
            header.producer = _text(file, value)
        elif number == 7:
            _graph(file, value[1], header)
        elif number == 8:
            found = dict(_inside(file, value))
            if _text(file, found.get(1, (0, 0))) in ("", "ai.onnx"):
                header.opset = found.get(2, 0)
        elif number == 14:
            key, text = _pair(file, value)
            header.metadata[key] = text
    for name in header.tensors:  # older files name these among the inputs, too
        header.inputs.pop(name, None)
    return header


def _graph(file, end: int, header: Header) -> None:
    for number, value in _fields(file, end):
        if number == 1:
            _node(file, value[1], header)
        elif number == 5:
            name, told = _stored(file, value[1], header)
            header.tensors[name] = told
        elif number == 15:
            _sparse(file, value, header)
        elif number in (11, 12):
            found = dict(_inside(file, value))
            into = header.inputs if number == 11 else header.outputs
            into[_text(file, found.get(1, (0, 0)))] = _tensor(file, found.get(2))


def _node(file, end: int, header: Header) -> None:
    """Look for numbers in other files among the attributes of a node, and in the graphs that these may hold."""
    for number, value in _fields(file, end):
        for part, inner in _inside(file, value) if number == 5 else ():
            if part in (5, 10):
                _stored(file, inner[1], header)
            elif part in (22, 23):
                _sparse(file, inner, header)
            elif part in (6, 11):
                held = Header()
                _graph(file, inner[1], held)
                header.external |= held.external


def _sparse(file, place, header: Header) -> None:
    """Look for numbers in other files in a SparseTensorProto: its values and where they belong."""
    for part, inner in _inside(file, place):
        if part in (1, 2):
            _stored(file, inner[1], header)


def _stored(file, end: int, header: Header) -> tuple[str, tuple[str, Shape]]:
    """Read a TensorProto without its numbers: its name, and its type and shape; note where these are elsewhere."""
    name, kind, shape = "", 0, []
    for part, inner in _fields(file, end):
        if part == 1:
            shape += [inner] if isinstance(inner, int) else _packed(file, inner)
        elif part == 2:
            kind = inner
        elif part == 8:
            name = _text(file, inner)
        header.external |= part == 13 or (part, inner) == (14, 1)
    return name, (TYPES.get(kind, "?"), tuple(shape))


def _tensor(file, place) -> tuple[str, Shape]:
    """Read a TypeProto: the type and shape of a tensor; of anything else, ("?", ())."""
    found = dict(_inside(file, dict(_inside(file, place)).get(1)))
    shape: list[int | str] = []
    for number, value in _inside(file, found.get(2)):
        if number == 1:
            side = dict(_inside(file, value))
            known = 0 < side.get(1, 0) < LARGEST  # -1, as some say for a side that is free, is a huge number here
            shape.append(side[1] if known else _text(file, side[2]) if side.get(2) else "?")
    return TYPES.get(found.get(1), "?"), tuple(shape)


def _pair(file, place) -> tuple[str, str]:
    found = dict(_inside(file, place))
    return _text(file, found.get(1, (0, 0))), _text(file, found.get(2, (0, 0)))


def _inside(file, place) -> Iterator[tuple[int, object]]:
    """Yield the fields of a message that lies at `place`, (start, end); of None, nothing."""
    if place is not None:
        file.seek(place[0])
        yield from _fields(file, place[1])


def _fields(file, end: int) -> Iterator[tuple[int, object]]:
    """Yield (number, value) of the fields from here to `end`: a number, or (start, end) of bytes, where `file` is then.

    Whoever reads may leave the file where it will.
    """
    while (here := file.tell()) < end:
        tag = _varint(file)
        if tag & 7 == 0:
            value = _varint(file)
            after = file.tell()
            yield tag >> 3, value
            file.seek(after)
            continue
        length = {1: 8, 5: 4}.get(tag & 7)
        if length is None and tag & 7 == 2:
            length = _varint(file)
        start = file.tell()
        if length is None or not here < start + length <= end:
            raise ValueError("neither a number nor bytes that are here")
        if tag & 7 == 2:
            yield tag >> 3, (start, start + length)
        file.seek(start + length)


def _packed(file, place) -> list[int]:
    found = []
    file.seek(place[0])
    while file.tell() < place[1]:
        found.append(_varint(file))
    return found


def _text(file, place) -> str:
    start, end = place
    if end - start > MOST:
        raise ValueError("a text too long")
    file.seek(start)
    return file.read(end - start).decode(errors="replace")


def _varint(file) -> int:
    value = shift = 0
    while shift < 64:
        (byte,) = file.read(1) or (128,)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
        shift += 7
    raise ValueError("no number")
