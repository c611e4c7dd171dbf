"""flo, the optical flow of Middlebury and FlyingChairs: how far each pixel moves, to the right and down.

One array a record, "flow", (height, width, 2) float32 in pixels; NaN where it is not known, for which the file has
values above 1e9. The files follow one another in a pipe.
Source: the README of Middlebury's flow-code (https://vision.middlebury.edu/flow/).
"""

import numpy as np

from styletools import errors
from styletools.streams import Tensors
from styletools.streams import Writer as _Writer

NAMES = ("flo",)
EXTENSIONS = {".flo": "flo"}
KIND = "tensors"
STREAMS = True
MAGIC = rb"PIEH"

_UNKNOWN = 1e9


def read(reader, limits, *, argument, strict):
    """Yield the flows of a stream."""
    for _ in reader.each(MAGIC, what="flo"):
        yield _read_one(reader, limits)


def _read_one(reader, limits) -> Tensors:
    header = reader.take(12, "flo header")
    if header[:4] != b"PIEH":
        raise errors.DataError("damaged flo: it does not begin with PIEH")
    width, height = np.frombuffer(header, "<i4", offset=4).tolist()
    limits.check_size(width, height)
    limits.check_bytes(8 * width * height, "flo record")
    flow = np.frombuffer(reader.take(8 * width * height, "flow"), "<f4").reshape(height, width, 2).astype(np.float32)
    flow[~(np.abs(flow) <= _UNKNOWN).all(2)] = np.nan
    return Tensors({"flow": flow}, meta={"kind": "flow"})


class Writer(_Writer):
    """Writes records of exactly one tensor, (height, width, 2) of floats; their metadata is lost."""

    def encode(self, record):
        """Return one .flo file."""
        if not isinstance(record, Tensors):
            raise errors.CannotCreate("cannot write a picture into flo")
        if len(record.tensors) != 1:
            raise errors.CannotCreate(f"flo holds one flow, the record has {len(record.tensors)} tensors")
        ((name, flow),) = record.tensors.items()
        if flow.ndim != 3 or flow.shape[2] != 2 or flow.dtype.kind != "f" or not flow.size:
            shape = "x".join(map(str, flow.shape))
            raise errors.CannotCreate(f"flo holds height x width x 2 floats, {name!r} is {shape} of {flow.dtype}")
        known = (np.abs(flow) <= _UNKNOWN).all(2, keepdims=True)
        header = b"PIEH" + np.array([flow.shape[1], flow.shape[0]], "<i4").tobytes()
        return header + np.where(known, flow, 1e10).astype("<f4").tobytes()
