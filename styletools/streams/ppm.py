"""PPM and its kin (netpbm P1 to P6): the format of pipes, a few header words and the bare samples.

Read: bitmaps, grey and colour, plain and raw, any maxval. Written: P5 for grey, P6 for colour, 8 or 16 bits.
Records follow one another without anything between; white space there is let pass.
Source: netpbm's ppm(5), pgm(5), pbm(5).
"""

import numpy as np

from styletools import errors
from styletools.streams import Image, _pixels
from styletools.streams import Writer as _Writer

NAMES = ("ppm",)
EXTENSIONS = {".ppm": "ppm", ".pgm": "ppm", ".pbm": "ppm", ".pnm": "ppm"}
KIND = "image"
STREAMS = True
MAGIC = rb"P[1-6][\t\n\v\f\r #]"

_SPACE = b"\t\n\v\f\r "


def read(reader, limits, *, argument, strict):
    """Yield the pictures of a stream."""
    for _ in reader.each(MAGIC, what="ppm", padding=_SPACE):
        yield _read_one(reader, limits)


def _number(reader) -> int:
    """Take one number of the header, and the one white space that ends it."""
    digits = b""
    while True:
        byte = bytes(reader.take(1, "ppm header"))
        if byte.isdigit() and len(digits) < 10:
            digits += byte
        elif byte == b"#":
            while reader.take(1, "ppm header") not in (b"\n", b"\r"):
                pass
            # A comment may end a number; then its line end is the white space after it.
            if digits:
                return int(digits)
        elif byte in _SPACE:
            if digits:
                return int(digits)
        else:
            raise errors.DataError("ppm header is not made of numbers")


def _read_one(reader, limits) -> Image:
    kind = int(reader.take(2)[1:])
    width, height = _number(reader), _number(reader)
    bitmap = kind in (1, 4)
    maximum = 1 if bitmap else _number(reader)
    limits.check_size(width, height)
    if not 1 <= maximum <= 65535:
        raise errors.DataError(f"ppm with a maxval of {maximum}")
    channels = 3 if kind in (3, 6) else 1
    if kind == 4:
        row = (width + 7) // 8
        packed = np.frombuffer(reader.take(row * height), np.uint8).reshape(height, row)
        samples = np.unpackbits(packed, axis=1)[:, :width]
    elif kind < 4:
        samples = _plain(reader, width * height * channels, bitmap)
    elif width * height * channels * (1 if maximum < 256 else 2) > _pixels.LARGE:
        return Image(_large(reader, (height, width, channels), maximum))
    else:
        size = width * height * channels
        samples = np.frombuffer(reader.take(size * (1 if maximum < 256 else 2)), np.uint8 if maximum < 256 else ">u2")
    array = samples.reshape(height, width, channels)
    if bitmap:
        return Image((1 - array) * np.uint8(255))  # in a bitmap, 1 is ink
    return Image(_pixels.full_range(array, maximum))


def _large(reader, shape: tuple[int, int, int], maximum: int) -> np.ndarray:
    """Read raw samples strip by strip."""
    height, width, channels = shape
    kind = np.dtype(np.uint8 if maximum < 256 else ">u2")
    rows = _pixels.Rows(shape, np.uint8 if maximum < 256 else np.uint16)
    while rows.count < height:
        count = min(_pixels.STRIP, height - rows.count)
        strip = np.frombuffer(reader.take(count * width * channels * kind.itemsize, "ppm"), kind)
        rows.add(_pixels.full_range(strip.reshape(count, width, channels), maximum))
    return rows.picture()


def _plain(reader, count: int, bitmap: bool) -> np.ndarray:
    """Read `count` samples written as decimal numbers (bits: single digits, blanks between them or not)."""
    parts, have, rest = [], 0, b""
    while have < count:
        # What has arrived, up to the last white space: a number may go on in the next bytes.
        chunk = reader.there(1 << 16)
        if not chunk:
            if not reader.more() and not rest:
                raise errors.DataError(f"ppm is cut off: {have} of {count} samples")
            chunk = reader.there(1 << 16) or b"\n"
        text = rest + chunk
        end = len(text) if bitmap else max(text.rfind(bytes([each])) for each in _SPACE) + 1
        if end == 0 and len(text) > 1 << 12:
            raise errors.DataError("ppm with a number that never ends")
        tokens = text[:end].split()
        if bitmap:
            tokens = [bytes([digit]) for token in tokens for digit in token]
        if have + len(tokens) > count:
            end = _end_of_token(text, count - have, bitmap)
            tokens = tokens[: count - have]
        try:
            values = np.array([int(token) for token in tokens], np.int64)
        except ValueError:
            raise errors.DataError("plain ppm with something that is no number") from None
        if len(values) and (values.min() < 0 or values.max() > (1 if bitmap else 65535)):
            raise errors.DataError("plain ppm with a sample out of range")
        parts.append(values.astype(np.uint8 if bitmap else np.uint16))
        have += len(values)
        if have == count:
            reader.skip(end - len(rest))
        else:
            reader.skip(len(chunk))
            rest = text[end:]
    return np.concatenate(parts)


def _end_of_token(text: bytes, count: int, bitmap: bool) -> int:
    """Return the position behind the `count`-th number of `text`."""
    position = 0
    for _ in range(count):
        while text[position] in _SPACE:
            position += 1
        position += 1
        while not bitmap and text[position] not in _SPACE:
            position += 1
    return position


class Writer(_Writer):
    """Writes P5 and P6; alpha is laid over white."""

    def encode(self, record):
        """Return the header and the samples of one picture."""
        return b"".join(self.pieces(record))

    def pieces(self, record):
        """Yield the header, then the samples."""
        array = _pixels.opaque(self, _pixels.check(record))
        height, width, channels = array.shape
        deep = array.dtype == np.uint16
        yield b"P%d\n%d %d\n%d\n" % (6 if channels == 3 else 5, width, height, 65535 if deep else 255)
        for strip in _pixels.strips(array) if array.nbytes > _pixels.LARGE else [array]:
            yield (strip.astype(">u2") if deep else strip).tobytes()
