"""JPEG and MJPEG, against ffmpeg and Pillow."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
from stream_samples import decode, encode, picture, until_error
from test_png import SRGB


def saved(array, mode=None, **options):
    out = io.BytesIO()
    made = PIL.Image.fromarray(array)
    (made.convert(mode) if mode else made).save(out, "JPEG", **options)
    return out.getvalue()


def close(have, want, most=3.0):
    return have.shape == want.shape and np.abs(have.astype(float) - want).mean() < most


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 1},
        {"optimize": True},
        {"subsampling": 2},
        {"quality": 30},
        {"comment": b"\xff\xd9 not the end"},
    ],
)
def test_kinds_of_jpeg_follow_one_another(options):
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (70, 90, 3), np.uint8)  # noise makes many ff bytes
    data = saved(rough, **options)
    found = decode(data * 3, stream=True)
    want = np.asarray(PIL.Image.open(io.BytesIO(data)))
    assert len(found) == 3 and all(np.array_equal(record.array, want) for record in found)


def test_motion_jpeg_from_and_to_ffmpeg(ffmpeg):
    video = ("-f", "lavfi", "-i", "testsrc2=size=66x42:rate=5:duration=1")
    found = decode(ffmpeg(*video, "-f", "mjpeg", "-q:v", "2", "-"), stream=True)
    assert [record.array.shape for record in found] == [(42, 66, 3)] * 5
    wanted = [picture(42, 66, phase=n) for n in range(4)]
    bare = ffmpeg("-f", "mjpeg", "-i", "-", "-pix_fmt", "rgb24", "-f", "rawvideo", "-", data=encode("jpeg", wanted)[0])
    theirs = np.frombuffer(bare, np.uint8).reshape(4, 42, 66, 3)
    assert all(close(have, want.array) for have, want in zip(theirs, wanted, strict=True))


def test_colour_models():
    want = picture(40, 60).array
    for mode in ("RGB", "CMYK", "YCbCr"):
        (record,) = decode(saved(want, mode))
        assert close(record.array, want, 6), mode
    (grey,) = decode(saved(want[:, :, 0]))
    assert grey.array.shape == (40, 60, 1) and close(grey.array[:, :, 0], want[:, :, 0])


def test_quality_and_full_chroma():
    sizes = [len(encode("jpeg", [picture(100, 100)], quality=q)[0]) for q in (10, 50, 95)]
    assert sizes == sorted(sizes)
    data = encode("jpeg", [picture()])[0]
    assert data == encode("jpeg", [picture()], quality=95)[0]
    with PIL.Image.open(io.BytesIO(data)) as opened:
        assert [layer[1:3] for layer in opened.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_profile_and_resolution(orientation):
    want = picture(40, 60).array
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    data = saved(want, exif=exif, icc_profile=SRGB, dpi=(72, 72), quality=95)
    (record,) = decode(data)
    with PIL.Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(record.array, np.asarray(PIL.ImageOps.exif_transpose(opened)))
    with PIL.Image.open(io.BytesIO(encode("jpeg", [record])[0])) as again:
        assert again.getexif().get(0x0112) == 1 and again.getexif()[0x010F] == "a camera"
        assert again.info["icc_profile"] == SRGB and again.info["dpi"] == (72, 72)
        assert again.size == (record.array.shape[1], record.array.shape[0])


def test_the_thumbnail_of_what_it_was_is_not_kept():
    inside = saved(picture(8, 8).array)
    first = struct.pack("<HHHIIHHI", 1, 0x0112, 3, 1, 6, 0, 0, 0)[:14]
    first = struct.pack("<H", 1) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<I", 26)
    second = (
        struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, 56) + struct.pack("<HHII", 0x0202, 4, 1, len(inside))
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0" + first + second + b"\0\0\0\0" + inside
    (record,) = decode(saved(picture(20, 30).array, exif=exif))
    assert record.array.shape == (30, 20, 3)
    reset = PIL.Image.Exif()
    reset.load(record.meta["exif"])
    assert reset[0x0112] == 1 and not reset.get_ifd(1)


def test_broken_exif_is_dropped():
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0XX*\0\x08\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    ):
        data = saved(picture().array)
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        (record,) = decode(data[:2] + segment + data[2:])
        assert record.array.shape == (19, 27, 3) and "exif" not in record.meta


def multi_picture(first, second, length=None):
    """Two JPEGs as cameras put them into one file: an index in the first says where the second is."""
    entries = 2 * 16
    segment = 2 + 2 + 4 + 8 + 2 + 2 * 12 + 4 + entries
    total = len(first) + segment
    start = 2 + 8  # where the index counts from
    offset = 8 + 2 + 2 * 12 + 4
    index = b"II*\0\x08\0\0\0" + struct.pack("<H", 2)
    index += (
        struct.pack("<HHII", 0xB001, 4, 1, 2) + struct.pack("<HHII", 0xB002, 7, entries, offset) + struct.pack("<I", 0)
    )
    index += struct.pack("<IIIHH", 0x30000, length or total, 0, 0, 0)
    index += struct.pack("<IIIHH", 0, len(second), (length or total) - start, 0, 0)
    body = b"MPF\0" + index
    return first[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + first[2:] + second


def test_the_second_picture_of_a_camera_is_no_record_of_its_own():
    first, second = saved(picture(40, 60).array), saved(picture(10, 15).array)
    both = multi_picture(first, second)
    with PIL.Image.open(io.BytesIO(both)) as opened:
        assert opened.format == "MPO" and opened.n_frames == 2  # Pillow understands our index too
    for stream in (False, True):
        found = decode(both * 2 + first, stream=stream)
        assert [record.array.shape for record in found] == [(40, 60, 3)] * 3
        assert [record.meta.get("frames") for record in found] == [1, 1, None]
    # An index that survived from elsewhere hides nothing.
    found = decode(multi_picture(first, second, length=12345), stream=True)
    assert [record.array.shape for record in found] == [(40, 60, 3), (10, 15, 3)]


@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut_is_noticed(progressive):
    data = saved(picture().array, progressive=progressive)
    for cut in range(1, len(data)):
        found, message = until_error(data[:cut])
        assert not found and message, cut


def test_what_may_follow_in_a_file_and_in_a_pipe():
    data = encode("jpeg", [picture()])[0]
    for tail, in_pipe in ((b"\0" * 100, True), (b"garbage after the end", False)):
        found, message = until_error(data + tail)
        assert len(found) == 1 and message is None
        found, message = until_error(data + tail, stream=True)
        assert len(found) == 1 and (message is None) == in_pipe


def test_too_large_for_it():
    from styletools import errors, streams

    with pytest.raises(errors.CannotCreate, match="70000x1"):
        encode("jpeg", [streams.Image(np.zeros((1, 70_000, 3), np.uint8))])
