"""Raw video, against ffmpeg."""

import numpy as np
import pytest
from stream_samples import decode, encode, noise, picture, until_error

from styletools import errors, streams

# What ffmpeg calls each; it knows gray8 as gray.
NAMES = {
    name: {"gray8": "gray"}.get(name, name)
    for name in streams.names("image")
    if name[:4] in ("rgb2", "bgr2", "rgba", "bgra", "gray", "ya8", "rgb4")
}


@pytest.mark.parametrize("name", NAMES)
def test_ffmpeg_agrees_both_ways(ffmpeg, name):
    deep = "16" in name or "48" in name or "64" in name
    channels = 1 if "gray" in name else 2 if "ya" in name else 4 if "a" in name else 3
    wanted = [noise(20, 30, channels, deep, seed=n) for n in range(2)]
    data, _ = encode(name, wanted)
    for record, want in zip(decode(data, format=f"{name}:30x20", stream=True), wanted, strict=True):
        assert record.array.dtype == want.array.dtype and np.array_equal(record.array, want.array)
        assert record.meta["format"] == name
    form = {1: "gray16be", 2: "ya16be", 3: "rgb48be", 4: "rgba64be"}[channels]
    form = form if deep else {1: "gray", 2: "ya8", 3: "rgb24", 4: "rgba"}[channels]
    bare = ffmpeg(
        "-f",
        "rawvideo",
        "-pix_fmt",
        NAMES[name],
        "-s",
        "30x20",
        "-i",
        "-",
        "-pix_fmt",
        form,
        "-f",
        "rawvideo",
        "-",
        data=data,
    )
    order = wanted[0].array.dtype.newbyteorder(">")
    assert bare == b"".join(want.array.astype(order).tobytes() for want in wanted)


def test_frames_are_of_one_size():
    with pytest.raises(errors.DataError, match="28x20.*27x19"):
        encode("rgb24", [picture(), picture(20, 28)])
    found, message = until_error(bytes(30 * 20 * 3 + 7), format="rgb24:30x20")
    assert len(found) == 1 and "7 of 1800" in message


def test_grey_and_colour_become_one_another():
    grey = encode("rgb24", [picture(channels=1)])[0]
    assert np.array_equal(np.frombuffer(grey, np.uint8)[::3], picture(channels=1).array.ravel())
    white = streams.Image(np.full((2, 2, 3), 255, np.uint8))
    assert encode("gray", [white])[0] == b"\xff" * 4
    assert encode("rgba", [white])[0] == b"\xff" * 16
