"""What the stream tests share: pictures, a source that dribbles, records to bytes and back."""

import io

import numpy as np

from styletools import streams

# (channels, 16 bits) -> what ffmpeg calls samples of that kind
FORMS = {
    (1, False): "gray",
    (2, False): "ya8",
    (3, False): "rgb24",
    (4, False): "rgba",
    (1, True): "gray16be",
    (2, True): "ya16be",
    (3, True): "rgb48be",
    (4, True): "rgba64be",
}


def picture(height=19, width=27, channels=3, deep=False, phase=0.0):
    """A smooth picture with an edge, so that lossy formats keep it."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(x / 9 + phase + c) * np.cos(y / 7 - c) * 0.4 + 0.5 for c in range(channels)]
    full = 65535 if deep else 255
    array = (np.stack(planes, axis=2) * full + 0.5).astype(np.uint16 if deep else np.uint8)
    return streams.Image(array)


def noise(height=19, width=27, channels=3, deep=False, seed=0):
    """A picture of random samples, which only lossless formats keep."""
    dtype = np.uint16 if deep else np.uint8
    return streams.Image(
        np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)
    )


class Dribble(io.RawIOBase):
    """A source that gives one byte at a time."""

    def __init__(self, data):
        super().__init__()
        self._rest = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, room):
        return self._rest.readinto(memoryview(room)[:1])


def encode(name, records, **options):
    """The bytes of `records`, and where each of them ends."""
    out, ends = io.BytesIO(), []
    with streams.writer(out, name, **options) as writer:
        for record in records:
            writer.write(record)
            ends.append(out.tell())
    return out.getvalue(), ends


def decode(data, **options):
    """The records of `data`."""
    return list(streams.read(io.BytesIO(data) if isinstance(data, (bytes, bytearray)) else data, **options))


def until_error(data, **options):
    """The records before the error, and the error's message or None."""
    found = []
    try:
        for record in streams.read(io.BytesIO(data), **options):
            found.append(record)
    except streams.errors.DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return found, str(error)
    return found, None
