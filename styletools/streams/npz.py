"""NumPy's .npz: named arrays in a zip archive; one record, the whole stream.

The sizes in the archive's directory are checked before anything is unpacked; pickles are refused, and so are the
zip archives that PyTorch calls checkpoints.
"""

import io
import zipfile

from styletools import errors
from styletools.streams import Tensors, _pixels, npy
from styletools.streams import Writer as _Writer
from styletools.streams._reader import Reader

NAMES = ("npz",)
EXTENSIONS = {".npz": "npz"}
KIND = "tensors"
STREAMS = False
MAGIC = rb"PK(\x03\x04|\x05\x06)"


def read(reader, limits, *, argument, strict):
    """Yield the one record of a file."""
    source = io.BytesIO(reader.everything(limits.max_bytes))
    tensors = {}
    with _pixels.decoding("npz"), zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        if any(member.filename.rpartition("/")[2] == "data.pkl" for member in members):
            raise errors.DataError("a PyTorch checkpoint, not an npz: import it as a model or save it as safetensors")
        limits.check_bytes(sum(member.file_size for member in members), "npz")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise errors.DataError(f"zip archive with {name!r} in it, not an npz of arrays")
            if name in tensors:
                raise errors.DataError(f"damaged npz: {name!r} is in it twice")
            with archive.open(member) as file:
                part = Reader(file)
                tensors[name] = npy.read_array(part, limits)
                if not part.at_end():
                    raise errors.DataError(f"damaged npz: {name!r} goes on after its end")
    yield Tensors(tensors)


class Writer(_Writer):
    """Writes one record, uncompressed as `numpy.savez` does; its metadata is lost."""

    streams = False

    def encode(self, record):
        """Return one .npz file; the same tensors give the same bytes."""
        if not isinstance(record, Tensors):
            raise errors.CannotCreate("cannot write a picture into npz")
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in sorted(record.tensors):
                # A ZipInfo made from the name alone carries no time of day.
                member = zipfile.ZipInfo(name + ".npy")
                archive.writestr(member, npy.array_bytes(record.tensors[name], name))
        return out.getbuffer()
