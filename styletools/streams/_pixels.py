"""Pixels between what formats hold and what records hold: depth, channels, alpha, EXIF, Pillow."""

import contextlib
import functools
import io
import math
import mmap
import struct
import warnings
from collections.abc import Iterator

import numpy as np
import PIL.Image

from styletools import errors, files
from styletools.streams import Image

# Pillow warns of oddities on standard error, where only our own lines belong.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112
LARGE = 1 << 28  # bytes of a picture from which its pixels are kept in a file, which memory shows a part of
STRIP = 256  # rows of a large picture that are worked on at once


class Rows:
    """The pixels of a picture, (H, W, C), as they come from top to bottom; those of a large one are kept in a file."""

    def __init__(self, shape: tuple[int, int, int], kind: np.dtype | type):
        self._shape, self._kind, self.count = shape, np.dtype(kind), 0
        self._size = math.prod(shape) * self._kind.itemsize
        self._file = files.scratch() if self._size > LARGE else None
        self._array = np.empty(shape, kind) if self._file is None else None

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows. Raises TryAgain where the disk has no room for them."""
        if self._file is None:
            self._array[self.count : self.count + len(rows)] = rows
        else:
            try:
                self._file.write(np.ascontiguousarray(rows, self._kind))
            except OSError as error:
                raise files.no_room(error, self._size) from error
        self.count += len(rows)

    def picture(self) -> np.ndarray:
        """Return the whole. ValueError while rows are missing."""
        if self.count != self._shape[0]:
            raise ValueError(f"{self.count} of {self._shape[0]} rows")
        if self._file is None:
            return self._array
        self._file.flush()
        return np.memmap(self._file, self._kind, "r+", shape=self._shape)


def release(array: np.ndarray) -> None:
    """Take what is shown of a file out of the memory again: it is there when it is looked at next."""
    shown = getattr(array, "_mmap", None)
    if shown is not None and hasattr(mmap, "MADV_DONTNEED"):
        shown.madvise(mmap.MADV_DONTNEED)


def strips(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a picture in parts from top to bottom, which are gone from the memory after their use."""
    for top in range(0, len(array), STRIP):
        yield array[top : top + STRIP]
        release(array)


def check(image: Image) -> np.ndarray:
    """Return the array of a record that is to be written; ValueError when a program made a wrong one."""
    if not isinstance(image, Image):
        raise errors.CannotCreate(f"cannot write {type(image).__name__.lower()} into a picture format")
    array = image.array
    if array.ndim != 3 or not 1 <= array.shape[2] <= 4 or array.dtype not in (np.uint8, np.uint16) or not array.size:
        raise ValueError(f"an Image needs HxWx(1..4) of uint8 or uint16, not {array.shape} of {array.dtype}")
    return array


def to_8bit(array: np.ndarray) -> np.ndarray:
    """Return the same pixels in uint8, rounded to the nearest of the full range."""
    return array if array.dtype == np.uint8 else scale_table(65535, 255)[array]


def to_16bit(array: np.ndarray) -> np.ndarray:
    """Return the same pixels in uint16: 255 becomes 65535."""
    return array if array.dtype == np.uint16 else array.astype(np.uint16) * np.uint16(257)


@functools.lru_cache(maxsize=8)
def scale_table(maximum: int, full: int) -> np.ndarray:
    """Return the table that takes 0..`maximum` to 0..`full`, rounded; samples above `maximum` are taken for it."""
    size = 256 if maximum < 256 else 65536
    samples = np.minimum(np.arange(size, dtype=np.uint64), maximum)
    table = ((samples * (2 * full) + maximum) // (2 * maximum)).astype(np.uint8 if full == 255 else np.uint16)
    table.flags.writeable = False
    return table


def full_range(array: np.ndarray, maximum: int) -> np.ndarray:
    """Return samples of 0..`maximum` over the full range of uint8 (`maximum` up to 255) or uint16."""
    if maximum == 255:
        return array.astype(np.uint8, copy=False)
    if maximum == 65535:
        return array.astype(np.uint16)
    return scale_table(maximum, 255 if maximum < 256 else 65535)[array]


def to_rgb(image: Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the colours of a picture as HxWx3 and its alpha as HxW, or None without one; the depth is kept."""
    array = image.array
    alpha = array[:, :, -1] if array.shape[2] in (2, 4) else None
    colours = array[:, :, :3] if array.shape[2] > 2 else np.repeat(array[:, :, :1], 3, axis=2)
    return colours, alpha


def over_white(array: np.ndarray) -> np.ndarray:
    """Return the picture without alpha, as it looks on white paper; the depth is kept."""
    full = 65535 if array.dtype == np.uint16 else 255
    colours, alpha = array[:, :, :-1].astype(np.uint32), array[:, :, -1:].astype(np.uint32)
    # uint32 holds full * full + full / 2 just so.
    return ((colours * alpha + full * (full - alpha) + full // 2) // full).astype(array.dtype)


def flat_rgb(image: Image) -> np.ndarray:
    """Return the colours of a picture as HxWx3, transparent parts laid over white; the depth is kept."""
    has_alpha = image.array.shape[2] in (2, 4)
    return to_rgb(Image(over_white(image.array)) if has_alpha else image)[0]


def opaque(writer, array: np.ndarray) -> np.ndarray:
    """Return `array` for a format without alpha; say so once where something is lost."""
    if array.shape[2] in (1, 3):
        return array
    if int(array[:, :, -1].min()) < np.iinfo(array.dtype).max:
        writer.warn_once(f"{writer.name} has no alpha channel: pictures are laid over white")
    return over_white(array)


def matching_icc(image: Image, channels: int) -> bytes | None:
    """Return the colour profile of a record if it is one for as many `channels`, else None."""
    icc = image.meta.get("icc")
    if not isinstance(icc, bytes) or len(icc) < 128:
        return None
    return icc if icc[16:20] == (b"GRAY" if channels < 3 else b"RGB ") else None


@contextlib.contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turn whatever a library raises about damaged bytes into DataError."""
    try:
        yield
    except (errors.StyletoolsError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything: OSError, SyntaxError, struct.error, KeyError
        raise errors.DataError(f"damaged {what}: {error or type(error).__name__}".split("\n")[0]) from error


def from_pillow(picture: PIL.Image.Image) -> np.ndarray:
    """Return the pixels of an opened Pillow picture as a record holds them; DataError for what has no meaning here."""
    mode = picture.mode
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if mode == "PA" or "transparency" in picture.info else "RGB")
    elif mode.startswith("I;16"):
        array = np.array(picture)
        return array.astype(np.uint16, copy=False)[:, :, None]
    elif mode == "I":
        array = np.asarray(picture)
        if array.min() < 0 or array.max() > 65535:
            raise errors.DataError("integer pixels outside 0..65535")
        return array.astype(np.uint16)[:, :, None]
    elif mode == "F":
        array = np.asarray(picture)
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise errors.DataError("floating-point pixels outside [0, 1]")
        return (array * 65535 + 0.5).astype(np.uint16)[:, :, None]
    elif mode in ("1", "L", "RGB") and "transparency" in picture.info:
        picture = picture.convert("RGBA" if mode == "RGB" else "LA")
    elif mode in ("1", "La"):
        picture = picture.convert("L" if mode == "1" else "LA")
    elif mode not in MODES.values():
        picture = picture.convert("RGBA" if mode == "RGBa" else "RGB")
    (width, height), channels = picture.size, len(picture.getbands())
    if width * height * channels <= LARGE:
        return np.array(picture).reshape(height, width, channels)
    rows = Rows((height, width, channels), np.uint8)
    for top in range(0, height, STRIP):  # Pillow hands over copies, several at once
        strip = picture.crop((0, top, width, min(top + STRIP, height)))
        rows.add(np.asarray(strip).reshape(-1, width, channels))
    return rows.picture()


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels as EXIF orientation 1..8 wants them seen; an unknown one is taken for 1."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if array.nbytes <= LARGE:
        return np.ascontiguousarray(array)
    rows = Rows(array.shape, array.dtype)
    for strip in strips(array):
        rows.add(strip)
    return rows.picture()


def take_orientation(exif: bytes) -> tuple[bytes, int]:
    """Return EXIF bytes with the orientation reset to 1 and no thumbnail, and what the orientation was.

    The thumbnail shows the picture before anything was done to it. Bytes are changed in place, because maker
    notes do not survive being moved. EXIF that cannot be understood is dropped.
    """
    start = 6 if exif[:6] == b"Exif\0\0" else 0
    data = bytearray(exif[start:])
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    orientation = 1
    try:
        (first,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
            if tag == _ORIENTATION and kind in (3, 4) and number == 1:
                form = order + ("H" if kind == 3 else "I")
                (orientation,) = struct.unpack_from(form, data, entry + 8)
                struct.pack_into(form, data, entry + 8, 1)
        if len(data) >= first + 2 + 12 * count + 4:
            struct.pack_into(order + "I", data, first + 2 + 12 * count, 0)
    except (struct.error, TypeError):
        return b"", 1
    return b"Exif\0\0" + bytes(data), orientation


def image_from(picture: PIL.Image.Image, array: np.ndarray, name: str) -> Image:
    """Return the record of a loaded Pillow picture: upright, with its profile, resolution and EXIF."""
    meta: dict = {"format": name}
    icc, dpi, exif = picture.info.get("icc_profile"), picture.info.get("dpi"), picture.info.get("exif")
    if icc:
        meta["icc"] = bytes(icc)
    if dpi and all(np.isfinite(float(each)) and float(each) > 0 for each in dpi):
        meta["dpi"] = (float(dpi[0]), float(dpi[1]))
    if isinstance(exif, bytes) and exif:
        exif, orientation = take_orientation(exif)
        if exif:
            meta["exif"] = exif
        if orientation != 1:
            array = upright(array, orientation)
    return Image(array, meta=meta)


def pillow_options(image: Image, channels: int) -> dict:
    """Return what Pillow's `save` needs to keep the profile, resolution and EXIF of a record."""
    options = {"icc_profile": matching_icc(image, channels)}
    for key in ("dpi", "exif"):
        if image.meta.get(key):
            options[key] = image.meta[key]
    return options


def to_pillow(array: np.ndarray) -> PIL.Image.Image:
    """Return 8-bit pixels as a Pillow picture."""
    flat = array[:, :, 0] if array.shape[2] == 1 else array
    if flat.nbytes <= LARGE:
        return PIL.Image.fromarray(np.ascontiguousarray(flat))
    picture = PIL.Image.new(MODES[array.shape[2]], flat.shape[1::-1])
    for number, strip in enumerate(strips(flat)):
        picture.paste(PIL.Image.fromarray(np.ascontiguousarray(strip)), (0, number * STRIP))
    return picture


def cmyk_to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return a CMYK picture in RGB: sRGB through its profile where that works, else by plain arithmetic.

    The profile is taken off: it does not describe RGB.
    """
    profile = picture.info.pop("icc_profile", None)
    if profile:
        from PIL import ImageCms

        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            return ImageCms.profileToProfile(
                picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    return picture.convert("RGB")


def with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """Return the picture with 1 to 4 channels: grey from BT.601 luma, colour from grey, alpha full or dropped."""
    have = array.shape[2]
    if have == channels:
        return array
    full = np.iinfo(array.dtype).max
    colours = array[:, :, : 1 if have < 3 else 3]
    alpha = array[:, :, -1:] if have in (2, 4) else np.full_like(array[:, :, :1], full)
    if channels >= 3 and have < 3:
        colours = np.repeat(colours, 3, axis=2)
    elif channels < 3 and have >= 3:
        weighted = colours.astype(np.uint64) @ np.array([19595, 38470, 7471], np.uint64)
        colours = ((weighted + 32768) >> np.uint64(16)).astype(array.dtype)[:, :, None]
    return np.concatenate([colours, alpha], axis=2) if channels in (2, 4) else colours
