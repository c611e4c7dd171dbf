"""safetensors: named arrays with string metadata; the files follow one another in a pipe.

The header is checked in full before a byte of data is believed. bfloat16, which numpy does not have, is read
as float32. Written bytes depend on the record alone: names and metadata are sorted.
Source: the format section of huggingface/safetensors.
"""

import json
import math

import numpy as np

from styletools import errors
from styletools.streams import Tensors
from styletools.streams import Writer as _Writer

NAMES = ("safetensors",)
EXTENSIONS = {".safetensors": "safetensors"}
KIND = "tensors"
STREAMS = True
# The header is a JSON object of at most 100 MB, its size comes first.
MAGIC = rb"[\x00-\xff]{3}[\x00-\x05]\x00{4}\{"

_MAX_HEADER = 100_000_000
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items() if code != "BF16"}


def read(reader, limits, *, argument, strict):
    """Yield the records of a stream, called as their metadata `name` says."""
    for _ in reader.each(MAGIC, what="safetensors"):
        yield _read_one(reader, limits)


def _read_one(reader, limits) -> Tensors:
    size = int.from_bytes(reader.take(8, "safetensors header"), "little")
    if size > _MAX_HEADER:
        raise errors.DataError(f"safetensors header of {size} bytes")
    try:
        header = json.loads(reader.take(size, "safetensors header"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise errors.DataError(f"damaged safetensors header: {error}") from None
    if not isinstance(header, dict):
        raise errors.DataError("damaged safetensors header: no object")
    meta = header.pop("__metadata__", None) or {}
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise errors.DataError("damaged safetensors header: metadata that is not strings")
    layout, end = _layout(header), 0
    for name, _, _, begin, stop in layout:
        if begin != end:
            raise errors.DataError(f"damaged safetensors header: tensor {name!r} overlaps another or leaves a gap")
        end = stop
    limits.check_bytes(end, "safetensors record")
    data = reader.take(end, "safetensors record")
    tensors = {}
    for name, code, shape, begin, stop in layout:
        array = np.frombuffer(memoryview(data)[begin:stop], _DTYPES[code]).reshape(shape)
        if code == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = array
    return Tensors({name: tensors[name] for name in sorted(tensors)}, meta.get("name", ""), meta=meta)


def _without_repeats(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _layout(header: dict) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Return (name, dtype, shape, begin, end) of every tensor by its place; DataError where they make no sense."""
    found = []
    for name, entry in header.items():
        try:
            code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            whole = all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, begin, end))
        except (TypeError, KeyError, ValueError):
            whole = False
        if not whole or len(shape) > 32:
            raise errors.DataError(f"damaged safetensors header: tensor {name!r} is not described")
        if not isinstance(code, str) or code not in _DTYPES:
            raise errors.DataError(f"safetensors: tensor {name!r} is of type {code!r}, which is not read here")
        if math.prod(shape) * np.dtype(_DTYPES[code]).itemsize != end - begin:
            raise errors.DataError(f"damaged safetensors header: tensor {name!r} does not have its size")
        found.append((name, code, shape, begin, end))
    return sorted(found, key=lambda tensor: (tensor[3], tensor[4]))


class Writer(_Writer):
    """Writes tensors and their metadata; a record's name goes into the metadata."""

    def encode(self, record):
        """Return one safetensors file."""
        if not isinstance(record, Tensors):
            raise errors.CannotCreate("cannot write a picture into safetensors")
        meta = dict(record.meta)
        if record.name:
            meta.setdefault("name", record.name)
        header: dict = {"__metadata__": {key: meta[key] for key in sorted(meta)}} if meta else {}
        arrays, position = [], 0
        # Large items first keeps every tensor aligned to its item size.
        for name, array in sorted(record.tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
            little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            code = _CODES.get(little.dtype)
            if code is None:
                raise errors.CannotCreate(f"safetensors cannot hold {name!r}, which is {array.dtype}")
            place = [position, position + little.nbytes]
            header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": place}
            arrays.append(little)
            position += little.nbytes
        # File names may be any bytes; what is no character in them becomes a question mark.
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
        text += b" " * (-len(text) % 8)
        return b"".join([len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays)])
