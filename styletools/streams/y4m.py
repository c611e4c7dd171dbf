"""YUV4MPEG2: video for pipes, with its frame rate; 8 bits, 4:2:0, 4:4:4 and grey.

Frame rate, aspect, interlacing, range and chroma pass through a record's metadata and out again. The format does not
say which matrix made its YCbCr: BT.601 is taken both ways, as ffmpeg does where nothing else is said. Chroma is
interpolated linearly, at the place that the tag names (420jpeg: centre, 420mpeg2: left, 420paldv: top left; ffmpeg
takes the centre for all). Grey (mono) is of full range whatever the header says, because ffmpeg takes and makes it so.
Source: yuv4mpeg(5) of mjpegtools; ITU-R BT.601-7.
"""

import re
from fractions import Fraction

import numpy as np
import PIL.Image

from styletools import errors
from styletools.streams import Image, _pixels
from styletools.streams import Writer as _Writer

NAMES = ("y4m",)
EXTENSIONS = {".y4m": "y4m"}
KIND = "image"
STREAMS = True
MAGIC = rb"YUV4MPEG2[ \n]"

# Where the chroma sample of a 2x2 block lies: shift from its centre, in chroma samples, (across, down).
_SITES = {"420jpeg": (0.0, 0.0), "420": (0.0, 0.0), "420mpeg2": (0.25, 0.0), "420paldv": (0.25, 0.25)}
_CHROMA = (*_SITES, "444", "mono")
_KEPT = {"F": "rate", "A": "aspect", "I": "interlace"}


def read(reader, limits, *, argument, strict):
    """Yield the frames of a stream."""
    words = reader.line("y4m").split()
    if not words or words[0] != "YUV4MPEG2":
        raise errors.DataError("not a y4m stream")
    meta, size, chroma = {"range": "limited"}, {}, "420jpeg"
    for word in words[1:]:
        key, value = word[0], word[1:]
        if key in "WH" and re.fullmatch(r"\d{1,9}", value):
            size[key] = int(value)
        elif key == "C":
            chroma = value
        elif key in _KEPT:
            meta[_KEPT[key]] = value
        elif word == "XCOLORRANGE=FULL":
            meta["range"] = "full"
    if len(size) < 2:
        raise errors.DataError("damaged y4m: the header does not say the size")
    width, height = size["W"], size["H"]
    limits.check_size(width, height)
    if chroma not in _CHROMA:
        flag = "yuv444p" if chroma.startswith("444") else "yuv420p"
        raise errors.DataError(f"y4m with chroma {chroma[:20]} is not read here: give ffmpeg -pix_fmt {flag}")
    meta["chroma"] = chroma
    if chroma == "mono":
        meta["range"] = "full"
    luma = width * height
    across, down = _chroma_size(width, height, chroma)
    number = 0
    while not reader.at_end():
        if reader.peek(5) != b"FRAME":
            raise errors.DataError(f"something that is not a y4m frame follows {number} frames")
        reader.line("y4m")
        planes = np.frombuffer(reader.take(luma + 2 * across * down, "frame"), np.uint8)
        y = planes[:luma].reshape(height, width)
        if chroma == "mono":
            array = y[:, :, None]
        else:
            blue, red = planes[luma:].reshape(2, down, across)
            array = _to_rgb(y, blue, red, chroma, meta["range"])
        yield Image(array, meta=dict(meta))
        number += 1


def _chroma_size(width: int, height: int, chroma: str) -> tuple[int, int]:
    if chroma == "mono":
        return 0, 0
    return (width, height) if chroma == "444" else ((width + 1) // 2, (height + 1) // 2)


def _matrices() -> dict[str, tuple[list[float], list[float]]]:
    """Return range -> (YCbCr to RGB, RGB to YCbCr) of BT.601 as rows of (three factors, offset)."""
    red, green, blue = 0.299, 0.587, 0.114
    forward = np.array([
        [red, green, blue],
        [-red / 1.772, -green / 1.772, 0.5],
        [0.5, -green / 1.402, -blue / 1.402],
    ])  # fmt: skip
    found = {}
    for name, scale, offset in (("full", (1, 1, 1), (0, 128, 128)), ("limited", (219, 224, 224), (16, 128, 128))):
        there = forward * (np.array(scale)[:, None] / (1 if name == "full" else 255))
        back = np.linalg.inv(there)
        found[name] = tuple(
            np.column_stack([factors, shift]).ravel().tolist()
            for factors, shift in ((back, -back @ np.array(offset)), (there, np.array(offset)))
        )
    return found


_MATRICES = _matrices()
# Grey to luma of limited range, 16..235.
_COMPRESS = (np.arange(256) * 219 / 255 + 16.5).astype(np.uint8)


def _to_rgb(y: np.ndarray, blue: np.ndarray, red: np.ndarray, chroma: str, levels: str) -> np.ndarray:
    height, width = y.shape
    planes = [PIL.Image.fromarray(y)]
    for plane in (blue, red):
        if chroma in _SITES:
            right, lower = _SITES[chroma]
            # Pillow samples inside the picture only, so a shifted window needs a margin.
            padded = np.pad(plane, ((0, 1 if lower else 0), (0, 1 if right else 0)), mode="edge")
            box = (right, lower, right + width / 2, lower + height / 2)
            planes.append(PIL.Image.fromarray(padded).resize((width, height), PIL.Image.Resampling.BILINEAR, box=box))
        else:
            planes.append(PIL.Image.fromarray(plane))
    return np.array(PIL.Image.merge("RGB", planes).convert("RGB", _MATRICES[levels][0]))


def _to_planes(array: np.ndarray, chroma: str, levels: str) -> list[bytes]:
    height, width = array.shape[:2]
    if array.shape[2] == 1:
        y = array[:, :, 0] if levels == "full" else _COMPRESS[array[:, :, 0]]
        across, down = _chroma_size(width, height, chroma)
        return [y.tobytes(), b"\x80" * (2 * across * down)]
    planes = PIL.Image.fromarray(np.ascontiguousarray(array)).convert("RGB", _MATRICES[levels][1]).split()
    if chroma == "mono":
        return [planes[0].tobytes()]
    return [planes[0].tobytes(), *(_smaller(plane, chroma).tobytes() for plane in planes[1:])]


def _smaller(plane: PIL.Image.Image, chroma: str) -> PIL.Image.Image:
    """Return a chroma plane at the size and place that `chroma` wants, from the mean of the pixels around."""
    if chroma == "444":
        return plane
    right, lower = _SITES[chroma]
    margins = ((1 if lower else 0, plane.height % 2), (1 if right else 0, plane.width % 2))
    array = np.asarray(plane)
    if any(map(any, margins)):
        array = np.pad(array, margins, mode="edge")
    size = ((plane.width + 1) // 2, (plane.height + 1) // 2)
    # A sample that lies on a pixel takes it and half of its neighbours, one between two takes both.
    if not right:
        return PIL.Image.fromarray(array).reduce(2)
    wide = array.astype(np.uint16)
    wide = wide[:, 0:-2:2] + 2 * wide[:, 1:-1:2] + wide[:, 2::2]
    if lower:
        wide = wide[0:-2:2] + 2 * wide[1:-1:2] + wide[2::2]
    else:
        wide = 2 * (wide[0::2] + wide[1::2])
    return PIL.Image.fromarray(((wide + 8) // 16).astype(np.uint8)[: size[1], : size[0]])


class Writer(_Writer):
    """Writes frames, all of one size; what its header says comes from the first record.

    Chroma is that of the first record's metadata, else 420jpeg, which every encoder and player understands; `rate`
    likewise, else 25:1.
    """

    def __init__(self, out, name, options):
        super().__init__(out, name, options)
        self._size, self._chroma, self._levels = None, "", ""

    def encode(self, record):
        """Return a frame, after the header if it is the first. DataError when it is not as large as the first."""
        array = _pixels.to_8bit(_pixels.opaque(self, _pixels.check(record)))
        size = (array.shape[1], array.shape[0])
        header = b"" if self._size else self._header(record, size, array.shape[2])
        if size != self._size:
            raise errors.DataError(
                f"a frame of {size[0]}x{size[1]} pixels after frames of {self._size[0]}x{self._size[1]}: "
                "video has one size"
            )
        return b"".join([header, b"FRAME\n", *_to_planes(array, self._chroma, self._levels)])

    def _header(self, record, size, channels) -> bytes:
        meta = record.meta
        self._size = size
        self._chroma = meta.get("chroma") if meta.get("chroma") in _CHROMA else "420jpeg"
        if self._chroma == "mono" and channels == 3:
            self._chroma = "420jpeg"
        self._levels = "full" if meta.get("range") == "full" or self._chroma == "mono" else "limited"
        rate = _rate(self.options["rate"]) if self.options["rate"] else _known_rate(meta.get("rate"))
        aspect, interlace = str(meta.get("aspect") or "1:1"), str(meta.get("interlace") or "p")
        words = [f"W{size[0]} H{size[1]} F{rate} I{interlace} A{aspect} C{self._chroma}"]
        if "range" in meta or self._chroma == "mono":
            words.append(f"XCOLORRANGE={self._levels.upper()}")
        return f"YUV4MPEG2 {' '.join(words)}\n".encode("ascii", "replace")


def _known_rate(text) -> str:
    """Return the frame rate that a record brings; 25:1 where it brings none that makes sense."""
    try:
        return _rate(text)
    except errors.UsageError:
        return "25:1"


def _rate(text) -> str:
    """Return a frame rate ("25", "29.97", "30000:1001", "30000/1001") as y4m writes it."""
    if str(text) == "0:0":
        return "0:0"
    try:
        rate = Fraction(str(text).replace(":", "/")).limit_denominator(1_000_000)
        if rate <= 0:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise errors.UsageError(f"not a frame rate: {text!r}") from None
    return f"{rate.numerator}:{rate.denominator}"
