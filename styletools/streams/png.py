"""PNG: every depth and kind of it, 16 bits included, one picture after another.

Records are cut at their IEND chunk, every CRC is checked. Pillow decodes 8 bits; 16-bit colour, of which it
keeps the high byte only, is decoded by its filters twice: once for the high bytes, once for the low ones.
Large pictures are read and written strip by strip: their compressed data are one stream, of which each strip is
given to Pillow's filters as a small picture, together with the row above it.
Source: W3C Portable Network Graphics (Third Edition).
"""

import io
import struct
import zlib

import numpy as np
import PIL.Image
from PIL import PngImagePlugin

from styletools import errors
from styletools.streams import Image, _pixels
from styletools.streams import Writer as _Writer

NAMES = ("png",)
EXTENSIONS = {".png": "png", ".apng": "png"}
KIND = "image"
STREAMS = True
MAGIC = rb"\x89PNG\r\n\x1a\n"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6


def read(reader, limits, *, argument, strict):
    """Yield the pictures of a stream; zeros may follow a picture, in a file anything may follow the last."""
    for _ in reader.each(MAGIC, what="png", padding=b"\0", strict=strict):
        yield _decode(*_cut(reader, limits))


def _cut(reader, limits) -> tuple[bytes, list[tuple[bytes, bytes]], "_Strips | None"]:
    """Take one picture; return all its bytes, its chunks as (type, data), and the pixels of a large one.

    The data of those are not among the others.
    """
    parts, chunks, total, strips = [reader.take(8, "png")], [], 8, None
    while True:
        head = reader.take(8, "png")
        length, kind = struct.unpack(">I4s", head)
        total += 12 + length
        if length > 0x7FFFFFFF:
            raise errors.DataError("damaged png: a chunk without end")
        limits.check_bytes(total, "png")
        if (kind == b"IHDR") != (not chunks) or (kind == b"IHDR" and length != 13):
            raise errors.DataError("damaged png: the header is not where it belongs")
        if kind == b"IDAT" and chunks[-1][0] != b"IDAT":
            strips = _Strips.of(chunks)
        if kind == b"IDAT" and strips is not None:
            strips.take(reader, length)
            parts.append(_chunk(kind, b""))
            chunks.append((kind, b""))
            continue
        body = reader.take(length + 4, "png")
        data = bytes(body[:length])
        if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(body[length:], "big"):
            raise errors.DataError(f"damaged png: wrong checksum of chunk {kind.decode('ascii', 'replace')}")
        if kind == b"IHDR":
            limits.check_size(*struct.unpack(">II", data[:8]))
        parts += [head, body]
        chunks.append((kind, data))
        if kind == b"IEND":
            return b"".join(parts), chunks, strips


class _Strips:
    """The pixels of a large picture, 8 bits deep, that are decompressed as they come."""

    def __init__(self, width: int, height: int, channels: int):
        self._width, self._left, self._channels = width, height, channels
        self._rows = _pixels.Rows((height, width, channels), np.uint8)
        self._inflate, self._filtered, self._above = zlib.decompressobj(), bytearray(), None

    @classmethod
    def of(cls, chunks: list[tuple[bytes, bytes]]) -> "_Strips | None":
        """Return what takes the pixels that follow these chunks; None for those that Pillow decodes as a whole."""
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
        channels = {_GREY: 1, _RGB: 3, _GREY_ALPHA: 2, _RGBA: 4}.get(colour, 0)
        whole = depth != 8 or interlaced or any(kind == b"tRNS" for kind, _ in chunks)
        return None if whole or width * height * channels <= _pixels.LARGE else cls(width, height, channels)

    def take(self, reader, length: int) -> None:
        """Take the data of one chunk, and its checksum."""
        found = zlib.crc32(b"IDAT")
        while length:
            data = bytes(reader.take(min(length, 1 << 20), "png"))
            length -= len(data)
            found = zlib.crc32(data, found)
            try:
                while data and self._left and not self._inflate.eof:
                    self._filtered += self._inflate.decompress(data, 1 << 24)
                    data = self._inflate.unconsumed_tail
                    self._unfilter()
            except zlib.error as error:
                raise errors.DataError(f"damaged png: {error}") from error
        if found != int.from_bytes(reader.take(4, "png"), "big"):
            raise errors.DataError("damaged png: wrong checksum of chunk IDAT")

    def _unfilter(self) -> None:
        length = 1 + self._width * self._channels
        count = min(len(self._filtered) // length, self._left)
        if count < min(_pixels.STRIP, self._left):
            return
        lines = bytes(self._filtered[: count * length])
        if max(lines[::length]) > 4:
            raise errors.DataError("damaged png: an unknown filter")
        del self._filtered[: count * length]
        above = [] if self._above is None else [b"\0", self._above.tobytes()]
        mode, size = _pixels.MODES[self._channels], (self._width, count + len(above) // 2)
        compressed = zlib.compress(b"".join([*above, lines]), 0)
        strip = np.asarray(PIL.Image.frombytes(mode, size, compressed, "zip", mode, 0))
        strip = strip.reshape(size[1], self._width, self._channels)[len(above) // 2 :]
        self._rows.add(strip)
        self._left -= count
        self._above = strip[-1].copy()

    def picture(self) -> np.ndarray:
        """Return all pixels. DataError where some are missing."""
        if self._left:
            raise errors.DataError(f"png is cut off: {self._left} rows are missing")
        return self._rows.picture()


def _decode(data: bytes, chunks: list[tuple[bytes, bytes]], strips: _Strips | None) -> Image:
    width, height, depth, colour, compression, filtering, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlaced > 1:
        raise errors.DataError("damaged png: a header that is not in the standard")
    key = next((body for kind, body in chunks if kind == b"tRNS"), b"")
    with _pixels.decoding("png"):
        # Not through Image.open: its limit on pixels is the whole process's, ours is the caller's.
        picture = PngImagePlugin.PngImageFile(io.BytesIO(data))
        if strips is not None:
            array = strips.picture()
        elif depth == 16:
            compressed = b"".join(body for kind, body in chunks if kind == b"IDAT")
            array = _deep(compressed, (width, height), colour, interlaced)
        else:
            picture.load()
            if colour != _PALETTE:
                picture.info.pop("transparency", None)
            array = _pixels.from_pillow(picture)
        if key and colour in (_GREY, _RGB):
            array = _key_to_alpha(array, key, depth)
    record = _pixels.image_from(picture, array, "png")
    frames = next((body for kind, body in chunks if kind == b"acTL"), b"")
    if len(frames) == 8 and int.from_bytes(frames[:4], "big") > 1:
        record.meta["frames"] = int.from_bytes(frames[:4], "big") - 1
    return record


def _deep(compressed: bytes, size: tuple[int, int], colour: int, interlaced: int) -> np.ndarray:
    """Decompress and unfilter 16-bit samples."""
    if colour in (_GREY, _GREY_ALPHA):
        # PNG filters work on bytes, so two (four) bytes a pixel may as well be an 8-bit LA (RGBA) picture.
        mode = "LA" if colour == _GREY else "RGBA"
        pairs = np.array(PIL.Image.frombytes(mode, size, compressed, "zip", mode, interlaced))
        return np.ascontiguousarray(pairs).view(">u2").astype(np.uint16)
    mode = "RGB" if colour == _RGB else "RGBA"
    # Read as big-endian, the high bytes come out; read as little-endian, the low ones.
    high, low = (
        np.asarray(PIL.Image.frombytes(mode, size, compressed, "zip", mode + order, interlaced))
        for order in (";16B", ";16L")
    )
    return high.astype(np.uint16) << 8 | low


def _key_to_alpha(array: np.ndarray, key: bytes, depth: int) -> np.ndarray:
    """Append the alpha channel that a transparent colour (tRNS) stands for."""
    if len(key) != 2 * array.shape[2]:
        raise errors.DataError("damaged png: transparent colour of a wrong size")
    wanted = np.frombuffer(key, ">u2").astype(np.uint32)
    if depth < 8:
        wanted = wanted * 255 // (2**depth - 1)
    full = 65535 if depth == 16 else 255
    alpha = np.where((array == wanted).all(axis=2, keepdims=True), 0, full).astype(array.dtype)
    return np.concatenate([array, alpha], axis=2)


class Writer(_Writer):
    """Writes what a record holds, losing nothing; `compression` 0 to 9 (default 4, on a stream 1)."""

    def encode(self, record):
        """Return one PNG."""
        array = _pixels.check(record)
        level = self._level
        if array.dtype == np.uint16:
            return _encode_deep(record, array, level)
        out = io.BytesIO()
        options = _pixels.pillow_options(record, array.shape[2])
        _pixels.to_pillow(array).save(out, "PNG", compress_level=level, **options)
        return out.getbuffer()

    @property
    def _level(self) -> int:
        level = self.options["compression"]
        return (1 if self.options["stream"] else 4) if level is None else level

    def pieces(self, record):
        """Yield one PNG, a large one of 8 bits strip by strip."""
        array = _pixels.check(record)
        if array.nbytes <= _pixels.LARGE or array.dtype == np.uint16:
            yield self.encode(record)
            return
        (height, width, channels), mode = array.shape, _pixels.MODES[array.shape[2]]
        yield _head(record, width, height, 8, channels)
        deflate, above = zlib.compressobj(self._level), None
        for strip in _pixels.strips(array):
            given = strip if above is None else np.concatenate([above, strip])
            # Pillow chooses the filters, and we compress what they make of each row but the one above.
            filtered = zlib.decompress(_pixels.to_pillow(given).tobytes("zip", mode, False, 0, -1, b""))
            lines = memoryview(filtered)[(len(given) - len(strip)) * (1 + width * channels) :]
            if packed := deflate.compress(lines):
                yield _chunk(b"IDAT", packed)
            above = strip[-1:].copy()
        yield _chunk(b"IDAT", deflate.flush()) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _head(record: Image, width: int, height: int, depth: int, channels: int) -> bytes:
    """Return the signature and all chunks before the pixels."""
    colour = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGBA}[channels]
    parts = [_SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    icc, dpi, exif = _pixels.matching_icc(record, channels), record.meta.get("dpi"), record.meta.get("exif")
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if dpi:
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *(min(int(d / 0.0254 + 0.5), 2**31 - 1) for d in dpi), 1)))
    if exif:
        parts.append(_chunk(b"eXIf", exif[6:] if exif[:6] == b"Exif\0\0" else exif))
    return b"".join(parts)


def _encode_deep(record: Image, array: np.ndarray, level: int) -> bytes:
    height, width, channels = array.shape
    rows = array.astype(">u2").view(np.uint8).reshape(height, width * channels * 2)
    # Filter 2, up: each byte less the one above it, one subtraction for the whole picture.
    lines = np.empty((height, rows.shape[1] + 1), np.uint8)
    lines[:, 0] = 2
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    head = _head(record, width, height, 16, channels)
    return head + _chunk(b"IDAT", zlib.compress(lines, level)) + _chunk(b"IEND", b"")
