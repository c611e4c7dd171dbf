"""PPM, against ffmpeg and Pillow."""

import io

import numpy as np
import PIL.Image
import pytest
from stream_samples import Dribble, decode, encode, noise, picture, until_error

VIDEO = ("-f", "lavfi", "-i", "testsrc2=size=66x42:rate=5:duration=1")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deep", [False, True])
def test_every_sample_is_kept(channels, deep):
    wanted = noise(channels=channels, deep=deep)
    (record,) = decode(encode("ppm", [wanted])[0])
    assert record.array.dtype == wanted.array.dtype and np.array_equal(record.array, wanted.array)
    assert record.array.flags.writeable


def test_ffmpeg_writes_it(ffmpeg):
    found = decode(ffmpeg(*VIDEO, "-f", "image2pipe", "-c:v", "ppm", "-"), stream=True)
    bare = np.frombuffer(ffmpeg(*VIDEO, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"), np.uint8).reshape(5, 42, 66, 3)
    assert np.array_equal([record.array for record in found], bare)
    deep = decode(ffmpeg(*VIDEO, "-pix_fmt", "rgb48be", "-f", "image2pipe", "-c:v", "ppm", "-"))
    bare = np.frombuffer(ffmpeg(*VIDEO, "-pix_fmt", "rgb48be", "-f", "rawvideo", "-"), ">u2").reshape(5, 42, 66, 3)
    assert deep[0].array.dtype == np.uint16 and np.array_equal([record.array for record in deep], bare)


@pytest.mark.parametrize("deep,form", [(False, "rgb24"), (True, "rgb48le")])
def test_ffmpeg_reads_it(ffmpeg, deep, form):
    wanted = [noise(20, 30, deep=deep, seed=n) for n in range(3)]
    bare = ffmpeg(
        "-f",
        "image2pipe",
        "-c:v",
        "ppm",
        "-i",
        "-",
        "-pix_fmt",
        form,
        "-f",
        "rawvideo",
        "-",
        data=encode("ppm", wanted)[0],
    )
    assert bare == b"".join(record.array.astype(record.array.dtype.newbyteorder("<")).tobytes() for record in wanted)


def test_pillow_reads_it():
    for channels in (1, 3):
        wanted = noise(channels=channels)
        with PIL.Image.open(io.BytesIO(encode("ppm", [wanted])[0])) as opened:
            assert np.array_equal(np.asarray(opened), wanted.array.squeeze(2) if channels == 1 else wanted.array)


PLAIN = {
    "bitmap": (b"P1\n# one\n3 2\n1 0 1\n0 1 0\n", [[0, 255, 0], [255, 0, 255]]),
    "bitmap without blanks": (b"P1 3 2 101010", [[0, 255, 0], [255, 0, 255]]),
    "grey": (b"P2 3 2 255\n1 2 3\n4 5\n6\n", [[1, 2, 3], [4, 5, 6]]),
    "grey of 4 bits": (b"P2 3 1 15 0 8 15", [[0, 136, 255]]),
    "colour": (b"P3 1 1 255 9 8 7", [[[9, 8, 7]]]),
    "raw bitmap": (b"P4 3 2\n\xa0\x40", [[0, 255, 0], [255, 0, 255]]),
    "comments": (b"P5 #x\n#y 9\n3 # z\n 1\n255\n\x01\x02\x03", [[1, 2, 3]]),
    "maxval 1": (b"P5 3 1 1\n\x00\x01\x01", [[0, 255, 255]]),
    "maxval 100": (b"P5 3 1 100\n\x00\x32\x64", [[0, 128, 255]]),
    "over maxval": (b"P5 3 1 100\n\x00\x65\xff", [[0, 255, 255]]),
    "maxval 1023": (b"P5 3 1 1023\n\x00\x00\x02\x00\x03\xff", [[0, 32800, 65535]]),
    "maxval 256": (b"P5 2 1 256\n\x00\x80\x01\x00", [[32768, 65535]]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_kinds_and_depths(name):
    data, wanted = PLAIN[name]
    wanted = np.array(wanted)
    for source in (data, Dribble(data)):
        (record,) = decode(source)
        assert np.array_equal(record.array.squeeze(2) if wanted.ndim == 2 else record.array, wanted)


@pytest.mark.parametrize("name", PLAIN)
def test_kinds_follow_one_another_with_white_space_between(name):
    data = PLAIN[name][0]
    found, message = until_error(data + b"\n\n" + data + b" \n" + encode("ppm", [picture()])[0])
    assert message is None and len(found) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"P6 0 1 255\n",
        b"P6 1 1 0\n   ",
        b"P6 1 1 65536\n      ",
        b"P6 -1 1 255\n",
        b"P6 1 x",
        b"P2 1 1 255 x",
        b"P2 1 1 255 70000 ",
        b"P1 1 1 2",
        b"P6 99999999999 1 255\n",
        b"P6 1",
        b"P3 2 2 255 1 2 3",
        b"P2 1 1 255 " + b"1" * 9999,
    ],
)
def test_damage(data):
    found, message = until_error(data)
    assert not found and message
