"""JPEG: photographs and MJPEG, one picture after another.

Records are cut by their markers up to EOI; one without it is damaged, never a half-grey picture. CMYK
becomes RGB, through its colour profile where it has one. The second pictures that cameras append (multi-picture
format: gain maps, previews) belong to their record. Written at quality 95, chroma at full resolution.
Source: ITU-T T.81 annex B, CIPA DC-007.
"""

import io
import re
import struct

import numpy as np
from PIL import JpegImagePlugin

from styletools import errors
from styletools.streams import Image, _pixels
from styletools.streams import Writer as _Writer

NAMES = ("jpeg",)
EXTENSIONS = {".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".mjpeg": "jpeg", ".mjpg": "jpeg"}
KIND = "image"
STREAMS = True
MAGIC = rb"\xff\xd8\xff"

# Inside compressed data ff is stuffed (ff 00), a restart marker (ff d0..d7) or a fill byte (ff ff).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SOI, _EOI, _SOS, _APP2 = 0xD8, 0xD9, 0xDA, 0xE2
_SIZES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read(reader, limits, *, argument, strict):
    """Yield the pictures of a stream; zeros may follow a picture, in a file anything may follow the last."""
    for _ in reader.each(MAGIC, what="jpeg", padding=b"\0", strict=strict):
        data, gap, appended, frames = _cut(reader, limits)
        record = _decode(data, limits)
        if frames:
            record.meta["frames"] = frames
        yield record
        if frames and reader.peek(2, gap) == b"\xff\xd8":
            reader.skip(appended)


def _cut(reader, limits) -> tuple[bytes, int, int, int]:
    """Take one picture; return its bytes, the gap and the bytes after it that belong to it, and how many pictures."""
    position, sized, extent = 2, False, None
    while True:
        limits.check_bytes(position, "jpeg")
        marker = reader.peek(2, position)
        if len(marker) < 2:
            raise errors.DataError("jpeg is cut off")
        if marker[0] != 0xFF:
            raise errors.DataError("damaged jpeg: no marker where one belongs")
        code = marker[1]
        if code == 0xFF:
            position += 1
        elif code == _EOI:
            break
        elif code in (0, 1, _SOI) or 0xD0 <= code <= 0xD7:
            raise errors.DataError("damaged jpeg: a marker where none belongs")
        else:
            length = int.from_bytes(reader.peek(2, position + 2), "big")
            if length < (7 if code in _SIZES else 2):
                raise errors.DataError("damaged jpeg: a segment too short")
            segment = reader.peek(length - 2, position + 4)
            if len(segment) < length - 2:
                raise errors.DataError("jpeg is cut off")
            if code in _SIZES:
                height, width = struct.unpack(">HH", segment[1:5])
                limits.check_size(width, height)
                sized = True
            if code == _APP2 and segment[:4] == b"MPF\0":
                extent = _multi_picture(segment[4:], position + 8)
            position += 2 + length
            if code == _SOS:
                if not sized:
                    raise errors.DataError("damaged jpeg: no size")
                position = reader.search(_MARKER, position, limits.max_bytes)
                if position is None:
                    raise errors.DataError("jpeg is cut off: no end of image")
    if not sized:
        raise errors.DataError("damaged jpeg: no picture in it")
    data = bytes(reader.take(position + 2))
    if extent is not None and extent[0] in range(len(data), len(data) + 8):
        return data, extent[0] - len(data), extent[1] - len(data), extent[2]
    return data, 0, 0, 0


def _multi_picture(index: bytes, start: int) -> tuple[int, int, int] | None:
    """Read a multi-picture index that lies at `start`: where the second picture begins, the last ends, how many.

    None when it is not understood. The index may be stale: the caller compares it with what it sees.
    """
    order = {b"II": "<", b"MM": ">"}.get(index[:2])
    try:
        (first,) = struct.unpack_from(order + "I", index, 4)
        (count,) = struct.unpack_from(order + "H", index, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, _, size, offset = struct.unpack_from(order + "HHII", index, entry)
            if tag == 0xB002:
                pictures = [struct.unpack_from(order + "III", index, offset + at)[1:] for at in range(0, size, 16)]
                others = [(start + where, start + where + length) for length, where in pictures if where]
                if others:
                    return min(begin for begin, _ in others), max(end for _, end in others), len(others)
    except (struct.error, TypeError):
        pass
    return None


def _decode(data: bytes, limits) -> Image:
    with _pixels.decoding("jpeg"):
        # Not through Image.open: its limit on pixels is the whole process's, ours is the caller's.
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if limits.short_side:
            picture.draft(None, (limits.short_side, limits.short_side))
        picture.load()
        if picture.mode == "CMYK":
            array = np.array(_pixels.cmyk_to_rgb(picture))
        else:
            array = _pixels.from_pillow(picture)
        return _pixels.image_from(picture, array, "jpeg")


class Writer(_Writer):
    """Writes 8 bits; `quality` 1 to 100 (default 95); alpha is laid over white."""

    def encode(self, record):
        """Return one JPEG."""
        array = _pixels.to_8bit(_pixels.opaque(self, _pixels.check(record)))
        if max(array.shape[:2]) > 65535:
            raise errors.CannotCreate(f"jpeg cannot hold {array.shape[1]}x{array.shape[0]} pixels")
        options = _pixels.pillow_options(record, array.shape[2])
        if len(options.get("exif", b"")) > 65533:
            del options["exif"]
        out = io.BytesIO()
        quality = self.options["quality"] or 95
        _pixels.to_pillow(array).save(out, "JPEG", quality=quality, subsampling=0, **options)
        return out.getbuffer()
