"""Raw video: bare frames without any header, named as ffmpeg names its pixel formats (`-pix_fmt`).

Nothing in the bytes says what they are, so the reader is told: `rgb24:1920x1080`.
"""

import re

import numpy as np

from styletools import errors
from styletools.streams import Image, _pixels
from styletools.streams import Writer as _Writer

NAMES = (
    "rgb24", "bgr24", "rgba", "bgra", "gray", "gray8", "ya8", "gray16le", "gray16be", "rgb48le", "rgb48be",
    "rgba64le", "rgba64be",
)  # fmt: skip
EXTENSIONS = {".rgb": "rgb24", ".gray": "gray", ".rgba": "rgba"}
KIND = "image"
STREAMS = True
MAGIC = b""

_LAYOUTS = {
    "rgb24": (3, "u1"), "bgr24": (3, "u1"), "rgba": (4, "u1"), "bgra": (4, "u1"), "gray": (1, "u1"),
    "gray8": (1, "u1"), "ya8": (2, "u1"), "gray16le": (1, "<u2"), "gray16be": (1, ">u2"), "rgb48le": (3, "<u2"),
    "rgb48be": (3, ">u2"), "rgba64le": (4, "<u2"), "rgba64be": (4, ">u2"),
}  # fmt: skip


def read(reader, limits, *, argument, strict):
    """Yield the frames of a stream; `argument` is NAME:WIDTHxHEIGHT."""
    name, _, size = argument.partition(":")
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", size)
    if match is None:
        raise errors.UsageError(f"{name} does not say how large its frames are: write {name}:WIDTHxHEIGHT")
    width, height = int(match[1]), int(match[2])
    limits.check_size(width, height)
    channels, dtype = _LAYOUTS[name]
    while not reader.at_end():
        data = reader.take(width * height * channels * int(dtype[-1]), "frame")
        array = np.frombuffer(data, dtype).reshape(height, width, channels)
        array = array.astype(np.uint8 if dtype == "u1" else np.uint16, copy=False)
        yield Image(_swapped(array, name), meta={"format": name})


def _swapped(array: np.ndarray, name: str) -> np.ndarray:
    """Exchange red and blue where the format has them the other way round."""
    return np.ascontiguousarray(array[:, :, [2, 1, 0, 3][: array.shape[2]]]) if name.startswith("bgr") else array


class Writer(_Writer):
    """Writes frames, all of one size; grey becomes colour or colour grey, as the format is."""

    def __init__(self, out, name, options):
        super().__init__(out, name, options)
        self._size = None

    def encode(self, record):
        """Return the samples of one frame. DataError when it is not as large as the first."""
        array = _pixels.check(record)
        channels, dtype = _LAYOUTS[self.name]
        self._size = self._size or array.shape[:2]
        if array.shape[:2] != self._size:
            raise errors.DataError(
                f"a frame of {array.shape[1]}x{array.shape[0]} pixels after frames of {self._size[1]}x{self._size[0]}: "
                "raw video has one size"
            )
        array = _pixels.to_8bit(array) if dtype == "u1" else _pixels.to_16bit(array)
        if channels in (1, 3):
            array = _pixels.opaque(self, array)
        return _swapped(_pixels.with_channels(array, channels), self.name).astype(dtype, copy=False).tobytes()
