"""Picture files that cannot follow one another in a pipe: GIF, WebP, TIFF, BMP and what else Pillow decodes.

The whole source is one record, its first frame; how many were left out is in `meta["frames"]`. Formats that start other
programs (EPS) are not in the list. Read only: ICO, PSD, SGI, QOI, DDS.
"""

import contextlib
import importlib
import io
import re
import sys

import numpy as np
import PIL.Image

from styletools import errors
from styletools.streams import Writer as _Writer
from styletools.streams import _pixels

NAMES = ("bmp", "gif", "tiff", "webp", "avif", "jp2")
EXTENSIONS = {".bmp": "bmp", ".gif": "gif", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp", ".avif": "avif",
              ".jp2": "jp2"}  # fmt: skip
KIND = "image"
STREAMS = False
MAGIC = (
    rb"GIF8[79]a|RIFF.{4}WEBP|II(\*\x00|\+\x00\x08)|MM(\x00\*|\x00\+\x00\x08)|BM.{10}\x00\x00"
    rb"|.{4}ftyp(avif|avis)|\x00{3}\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"
    rb"|\x00\x00\x01\x00|8BPS\x00\x01|\x01\xda[\x00\x01][\x01\x02]|qoif|DDS "
)

_PLUGINS = {
    "gif": ("GIF", "Gif"), "webp": ("WEBP", "WebP"), "tiff": ("TIFF", "Tiff"), "bmp": ("BMP", "Bmp"),
    "avif": ("AVIF", "Avif"), "jp2": ("JPEG2000", "Jpeg2K"), "ico": ("ICO", "Ico"), "psd": ("PSD", "Psd"),
    "sgi": ("SGI", "Sgi"), "qoi": ("QOI", "Qoi"), "dds": ("DDS", "Dds"),
}  # fmt: skip
_DEEP = re.compile(r"(RGB|RGBA|RGBX);16([LBN])")


def read(reader, limits, *, argument, strict):
    """Yield the one picture of a file."""
    data = reader.everything(limits.max_bytes)
    with _pixels.decoding("picture file"):
        name, picture = _open(data)
    what = f"{name} file"
    with _pixels.decoding(what):
        limits.check_size(*picture.size)
        frames = getattr(picture, "n_frames", 1)
        array = _deep_tiff(data, picture) if name == "tiff" else None
        if array is None:
            picture.load()
            array = _pixels.from_pillow(picture)
        record = _pixels.image_from(picture, array, name)
    if frames > 1:
        record.meta["frames"] = frames - 1
    yield record


def _plugin(name: str):
    """Return what Pillow calls a format, with only that format's plugin imported. Unavailable in an older Pillow."""
    identity, module = _PLUGINS[name]
    try:
        importlib.import_module(f"PIL.{module}ImagePlugin")
    except ImportError:
        raise errors.Unavailable(f"{name} needs a newer Pillow: pip install -U pillow") from None
    return identity


def _open(data: bytes) -> tuple[str, PIL.Image.Image]:
    """Open a file with the plugin that knows its first bytes; nothing is decoded yet."""
    for name in _PLUGINS:
        # Not through Image.open: its limit on pixels is the whole process's, ours is the caller's.
        with contextlib.suppress(errors.Unavailable, KeyError):
            factory, accept = PIL.Image.OPEN[_plugin(name)]
            if accept(data[:16]) is True:
                return name, factory(io.BytesIO(data), "")
    raise errors.DataError("no decoder for this picture")


def _deep_tiff(data: bytes, picture) -> np.ndarray | None:
    """Decode 16-bit colour, of which Pillow keeps the high bytes: once for those and once, with the bytes swapped,
    for the low ones. None where it is not that."""
    kinds = [_DEEP.fullmatch(tile[3][0]) for tile in picture.tile if isinstance(tile[3], tuple)]
    if not kinds or len(kinds) < len(picture.tile) or not all(kinds):
        return None
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    swapped = PIL.Image.OPEN["TIFF"][0](io.BytesIO(data), "")
    # Tiles are named tuples since Pillow 11, bare ones before.
    swapped.tile = [
        getattr(tile, "_make", tuple)([*tile[:3], (f"{kind[1]};16{other[kind[2]]}", *tile[3][1:])])
        for tile, kind in zip(swapped.tile, kinds, strict=True)
    ]
    high, low = (_pixels.from_pillow(each) for each in (picture, swapped))
    return high.astype(np.uint16) << 8 | low


class Writer(_Writer):
    """Writes one picture, 8 bits a channel (TIFF: 16 for grey); `quality` for webp and avif (default 95)."""

    streams = False

    def encode(self, record):
        """Return one picture file."""
        array, name = _pixels.check(record), self.name
        if name == "bmp":
            array = _pixels.opaque(self, array)
        if not (name == "tiff" and array.shape[2] == 1):
            array = _pixels.to_8bit(array)
        if name in ("webp", "avif", "gif"):
            array = _pixels.with_channels(array, {1: 3, 2: 4}.get(array.shape[2], array.shape[2]))
        options = _pixels.pillow_options(record, array.shape[2])
        if name in ("webp", "avif"):
            options["quality"] = self.options["quality"] or 95
        if name == "tiff":
            options["compression"] = "tiff_adobe_deflate"
        out = io.BytesIO()
        try:
            _pixels.to_pillow(array).save(out, _plugin(name), **options)
        except KeyError:
            raise errors.Unavailable(f"this Pillow is built without {name}") from None
        except (ValueError, OSError) as error:
            raise errors.CannotCreate(f"{name} cannot hold this picture: {error}") from error
        return out.getbuffer()
