"""PAM, against ffmpeg."""

import numpy as np
import pytest
from stream_samples import FORMS, decode, encode, noise, until_error


@pytest.mark.parametrize("channels,deep", FORMS)
def test_every_sample_is_kept_and_ffmpeg_agrees(ffmpeg, channels, deep):
    wanted = [noise(20, 30, channels, deep, seed=n) for n in range(2)]
    data, _ = encode("pam", wanted)
    for record, want in zip(decode(data, stream=True), wanted, strict=True):
        assert record.array.dtype == want.array.dtype and np.array_equal(record.array, want.array)
    form = FORMS[channels, deep]
    bare = b"".join(want.array.astype(want.array.dtype.newbyteorder(">")).tobytes() for want in wanted)
    assert ffmpeg("-f", "pam_pipe", "-i", "-", "-pix_fmt", form, "-f", "rawvideo", "-", data=data) == bare
    theirs = ffmpeg(
        "-f", "rawvideo", "-pix_fmt", form, "-s", "30x20", "-i", "-", "-f", "image2pipe", "-c:v", "pam", "-", data=bare
    )
    for record, want in zip(decode(theirs, stream=True), wanted, strict=True):
        assert np.array_equal(record.array, want.array)


def test_bitmaps_comments_and_depths():
    head = b"P7\n# x\nWIDTH 3\nHEIGHT 1\n\nDEPTH 1\nMAXVAL 1\nTUPLTYPE BLACKANDWHITE\nENDHDR\n"
    assert decode(head + b"\0\1\0")[0].array.ravel().tolist() == [0, 255, 0]
    head = b"P7\nHEIGHT 1\nWIDTH 1\nMAXVAL 1023\nDEPTH 2\nENDHDR\n"
    assert decode(head + b"\x03\xff\x00\x00")[0].array.ravel().tolist() == [65535, 0]


@pytest.mark.parametrize(
    "head",
    [
        "WIDTH 1\nHEIGHT 1\nDEPTH 1\nENDHDR",
        "WIDTH x\nENDHDR",
        "WIDTH 1\nHEIGHT 1\nDEPTH 5\nMAXVAL 255\nENDHDR",
        "WIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\nTUPLTYPE CMYK\nENDHDR",
        "WIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 0\nENDHDR",
        "WIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR",
        "COLOUR 1\nENDHDR",
        "x" * 9999,
        "WIDTH \x1c5\nENDHDR",
        "\n" * 9999,
    ],
)
def test_damage(head):
    found, message = until_error(b"P7\n" + head.encode() + b"\n" + b"abcdefgh")
    assert not found and "pam" in message
