"""PAM (netpbm P7): like PPM, and it holds alpha.

ffmpeg reads streams of it with `-f pam_pipe`. Source: netpbm's pam(5).
"""

import numpy as np

from styletools import errors
from styletools.streams import Image, _pixels
from styletools.streams import Writer as _Writer

NAMES = ("pam",)
EXTENSIONS = {".pam": "pam"}
KIND = "image"
STREAMS = True
MAGIC = rb"P7\n"

_TYPES = {"BLACKANDWHITE": 1, "GRAYSCALE": 1, "BLACKANDWHITE_ALPHA": 2, "GRAYSCALE_ALPHA": 2, "RGB": 3, "RGB_ALPHA": 4}
_NAMES = {1: b"GRAYSCALE", 2: b"GRAYSCALE_ALPHA", 3: b"RGB", 4: b"RGB_ALPHA"}


def read(reader, limits, *, argument, strict):
    """Yield the pictures of a stream."""
    for _ in reader.each(MAGIC, what="pam", padding=b"\t\n\v\f\r "):
        yield _read_one(reader, limits)


def _read_one(reader, limits) -> Image:
    reader.take(3)
    numbers, kind = {}, ""
    for _ in range(1000):
        word, _, value = reader.line("pam").strip().partition(" ")
        if word == "ENDHDR":
            break
        if word in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL"):
            digits = value.strip()
            if not (digits.isdecimal() and len(digits) < 20):
                raise errors.DataError(f"damaged pam: {word} is not a number")
            numbers[word] = int(digits)
        elif word == "TUPLTYPE":
            kind = value.strip()
        elif word and not word.startswith("#"):
            raise errors.DataError(f"damaged pam: {word[:20]!r} in its header")
    if len(numbers) < 4:
        raise errors.DataError("damaged pam: WIDTH, HEIGHT, DEPTH or MAXVAL is missing")
    width, height, depth, maximum = (numbers[word] for word in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL"))
    limits.check_size(width, height)
    if not 1 <= maximum <= 65535:
        raise errors.DataError(f"pam with a MAXVAL of {maximum}")
    if not 1 <= depth <= 4 or _TYPES.get(kind, depth) != depth or (kind and kind not in _TYPES):
        raise errors.DataError(f"pam of type {kind[:20] or 'unknown'!r} with {depth} channels is not read here")
    dtype = np.dtype(np.uint8 if maximum < 256 else ">u2")
    samples = np.frombuffer(reader.take(width * height * depth * dtype.itemsize), dtype)
    return Image(_pixels.full_range(samples.reshape(height, width, depth), maximum))


class Writer(_Writer):
    """Writes what a record holds, losing nothing but its metadata."""

    def encode(self, record):
        """Return the header and the samples of one picture."""
        array = _pixels.check(record)
        height, width, depth = array.shape
        deep = array.dtype == np.uint16
        header = b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n" % (
            width, height, depth, 65535 if deep else 255, _NAMES[depth],
        )  # fmt: skip
        return header + (array.astype(">u2") if deep else array).tobytes()
