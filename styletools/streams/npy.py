"""NumPy's .npy: one array a record, called "array"; the files follow one another in a pipe.

numpy's own reader wants a real file and fails on pipes. Arrays of objects (pickles) are refused.
Source: NEP 1, A simple file format for NumPy arrays.
"""

import ast
import io
import math

import numpy as np

from styletools import errors
from styletools.streams import Tensors
from styletools.streams import Writer as _Writer

NAMES = ("npy",)
EXTENSIONS = {".npy": "npy"}
KIND = "tensors"
STREAMS = True
MAGIC = rb"\x93NUMPY"

_MAX_HEADER = 10_000


def read(reader, limits, *, argument, strict):
    """Yield the arrays of a stream."""
    for _ in reader.each(MAGIC, what="npy"):
        yield Tensors({"array": read_array(reader, limits)})


def read_array(reader, limits) -> np.ndarray:
    """Take one array, header and data."""
    start = reader.take(8, "npy header")
    if start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise errors.DataError("damaged npy: not a version that is known")
    length = int.from_bytes(reader.take(2 if start[6] == 1 else 4, "npy header"), "little")
    if length > _MAX_HEADER:
        raise errors.DataError(f"damaged npy: header of {length} bytes")
    text = reader.take(length, "npy header").decode("latin-1" if start[6] < 3 else "utf-8", "replace")
    try:
        header = ast.literal_eval(text.strip())
        shape, fortran, dtype = header["shape"], header["fortran_order"], np.dtype(header["descr"])
        whole = all(type(size) is int and 0 <= size < 1 << 63 for size in shape) and len(shape) <= 32
    except Exception as error:  # noqa: BLE001 - a damaged literal raises one of a dozen classes
        raise errors.DataError("damaged npy header") from error
    if not whole or len(header) != 3 or not isinstance(shape, tuple):
        raise errors.DataError("damaged npy header")
    if dtype.kind not in "biufc" or dtype.names:
        what = "Python objects, which may run code" if dtype.hasobject else f"{dtype}, not numbers"
        raise errors.DataError(f"npy array of {what}")
    size = math.prod(shape) * dtype.itemsize
    limits.check_bytes(size, "npy array")
    data = np.frombuffer(reader.take(size, "npy array"), dtype)
    array = data.reshape(shape[::-1]).T if fortran else data.reshape(shape)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def array_bytes(array: np.ndarray, name: str) -> bytes:
    """Return an array as the bytes of a .npy file."""
    array = np.asarray(array)
    if array.dtype.kind not in "biufc":
        raise errors.CannotCreate(f"npy cannot hold {name!r}, which is {array.dtype}")
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


class Writer(_Writer):
    """Writes records of exactly one tensor; their metadata is lost."""

    def encode(self, record):
        """Return one .npy file."""
        if not isinstance(record, Tensors):
            raise errors.CannotCreate("cannot write a picture into npy")
        if len(record.tensors) != 1:
            raise errors.CannotCreate(
                f"npy holds one array, the record has {len(record.tensors)}: use npz or safetensors"
            )
        ((name, array),) = record.tensors.items()
        return array_bytes(array, name)
