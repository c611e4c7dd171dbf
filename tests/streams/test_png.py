"""PNG of every kind, against ffmpeg and Pillow."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from stream_samples import FORMS, decode, encode, noise, picture, until_error

from styletools import streams

SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(rows, step):
    """The rows of a picture (bytes), filtered by 0, 1, 2, 3, 4, 0, 1 ... as the standard writes it down."""
    out, above = b"", bytes(rows.shape[1])
    for number, row in enumerate(rows):
        kind = number % 5
        row, left = bytes(row), bytes(step) + bytes(row)[:-step]
        corner = bytes(step) + above[:-step]
        line = []
        for x, a, b, c in zip(row, left, above, corner, strict=True):
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((x - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
        out += bytes([kind]) + bytes(line)
        above = row
    return out


def written(array, interlaced=False, extra=()):
    """An independent PNG encoder that uses every filter."""
    height, width, channels = array.shape
    big = array.astype(array.dtype.newbyteorder(">"))
    step = channels * array.itemsize
    passes = [big[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [big]
    data = b"".join(
        filtered(np.ascontiguousarray(part).view(np.uint8).reshape(part.shape[0], -1), step)
        for part in passes
        if part.size
    )
    head = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, COLOURS[channels], 0, 0, interlaced)
    chunks = [
        chunk(b"IHDR", head),
        *(chunk(*each) for each in extra),
        chunk(b"IDAT", zlib.compress(data)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("channels,deep", FORMS)
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(11, 13), (1, 1), (3, 2), (1, 40), (40, 1)])
def test_every_filter_and_depth(channels, deep, interlaced, size):
    wanted = noise(*size, channels, deep).array
    (record,) = decode(written(wanted, interlaced))
    assert record.array.dtype == wanted.dtype and np.array_equal(record.array, wanted)


@pytest.mark.parametrize("channels,deep", FORMS)
def test_ffmpeg_agrees_both_ways(ffmpeg, channels, deep):
    form = FORMS[channels, deep]
    for make in (noise, picture):
        wanted = make(30, 44, channels, deep)
        bare = wanted.array.astype(wanted.array.dtype.newbyteorder(">")).tobytes()
        for data in (encode("png", [wanted])[0], written(wanted.array), written(wanted.array, True)):
            read = ffmpeg(
                "-f", "image2pipe", "-c:v", "png", "-i", "-", "-pix_fmt", form, "-f", "rawvideo", "-", data=data
            )
            assert read == bare
        for predictor in ("none", "avg", "paeth", "mixed"):
            data = ffmpeg(
                "-f",
                "rawvideo",
                "-pix_fmt",
                form,
                "-s",
                "44x30",
                "-i",
                "-",
                "-c:v",
                "png",
                "-pred",
                predictor,
                "-f",
                "image2pipe",
                "-",
                data=bare,
            )
            (record,) = decode(data, stream=True)
            assert np.array_equal(record.array, wanted.array)


def test_a_stream_from_ffmpeg(ffmpeg):
    video = ("-f", "lavfi", "-i", "testsrc2=size=66x42:rate=5:duration=1", "-pix_fmt", "rgb24")
    found = decode(ffmpeg(*video, "-f", "image2pipe", "-c:v", "png", "-"), stream=True)
    bare = np.frombuffer(ffmpeg(*video, "-f", "rawvideo", "-"), np.uint8).reshape(5, 42, 66, 3)
    assert np.array_equal([record.array for record in found], bare)


def saved(array, mode, **options):
    out = io.BytesIO()
    PIL.Image.fromarray(array, mode).save(out, "PNG", **options) if mode != "P" else array.save(out, "PNG", **options)
    return out.getvalue()


def test_palettes_and_bitmaps():
    colours = PIL.Image.fromarray(picture().array).quantize(16)
    opaque = decode(saved(colours, "P"))[0]
    assert np.array_equal(opaque.array, np.asarray(colours.convert("RGB")))
    for bits in (1, 2, 4, 8):
        few = PIL.Image.fromarray(picture().array).quantize(2)
        assert np.array_equal(decode(saved(few, "P", bits=bits))[0].array, np.asarray(few.convert("RGB")))
    clear = decode(saved(colours, "P", transparency=3))[0]
    assert clear.array.shape[2] == 4
    assert np.array_equal(clear.array[:, :, 3] == 0, np.asarray(colours) == 3)
    out = io.BytesIO()
    bits = picture(channels=1).array[:, :, 0] > 128
    PIL.Image.fromarray(bits).save(out, "PNG")
    assert np.array_equal(decode(out.getvalue())[0].array[:, :, 0], bits * np.uint8(255))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_becomes_alpha(channels, deep):
    array = noise(8, 8, channels, deep).array
    array[2, 3] = array[5, 6]
    key = (b"tRNS", array[2, 3].astype(">u2").tobytes())
    (record,) = decode(written(array, extra=[key]))
    assert record.array.shape[2] == channels + 1
    hidden = (array == array[2, 3]).all(axis=2)
    assert np.array_equal(record.array[:, :, -1] == 0, hidden) and hidden.sum() >= 2
    assert record.array[:, :, -1].max() == (65535 if deep else 255)


def test_a_transparent_grey_of_two_bits():
    data = b"\0" + bytes([0b00011011])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0))
    whole = (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"tRNS", b"\0\2")
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )
    assert decode(whole)[0].array.tolist() == [[[0, 255], [85, 255], [170, 0], [255, 255]]]


@pytest.mark.parametrize("deep", [False, True])
def test_profile_resolution_and_orientation_are_kept(deep):
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 1, "what it shows"
    wanted = picture(deep=deep)
    wanted.meta = {"icc": SRGB, "dpi": (300.0, 150.0), "exif": exif.tobytes()}
    data = encode("png", [wanted])[0]
    (record,) = decode(data)
    assert record.meta["icc"] == SRGB
    assert record.meta["dpi"] == pytest.approx((300, 150), abs=0.1)
    with PIL.Image.open(io.BytesIO(data)) as opened:
        assert opened.getexif()[0x010E] == "what it shows"
    # A profile of colours does not describe grey.
    grey = streams.Image(wanted.array[:, :, :1], meta=wanted.meta)
    assert "icc" not in decode(encode("png", [grey])[0])[0].meta


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(orientation):
    upright = picture(20, 30).array
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    transposed = upright.transpose(1, 0, 2) if undo > 4 else upright
    stored = {
        1: transposed,
        5: transposed,
        2: transposed[:, ::-1],
        6: transposed[:, ::-1],
        4: transposed[::-1],
        8: transposed[::-1],
        3: transposed[::-1, ::-1],
        7: transposed[::-1, ::-1],
    }[undo]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(stored)).save(out, "PNG", exif=exif)
    (record,) = decode(out.getvalue())
    assert np.array_equal(record.array, upright)
    again = encode("png", [record])[0]
    with PIL.Image.open(io.BytesIO(again)) as opened:
        assert opened.getexif().get(0x0112, 1) == 1
    assert np.array_equal(decode(again)[0].array, upright)


def test_further_frames_are_counted():
    out = io.BytesIO()
    frames = [PIL.Image.fromarray(picture(phase=n).array) for n in range(3)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    (record,) = decode(out.getvalue())
    assert record.meta["frames"] == 2 and np.array_equal(record.array, np.asarray(frames[0]))


def test_every_byte_that_is_changed_is_noticed():
    data = bytearray(encode("png", [picture()])[0])
    for place in range(8, len(data)):
        damaged = data.copy()
        damaged[place] ^= 0x10
        found, message = until_error(bytes(damaged))
        assert message, place


def test_what_may_follow_in_a_file_and_in_a_pipe():
    data = encode("png", [picture()])[0]
    for tail, in_pipe in ((b"\0" * 100, True), (b"trailer", False), (b"\0\0x", False)):
        found, message = until_error(data + tail)
        assert len(found) == 1 and message is None
        found, message = until_error(data + tail, stream=True)
        assert len(found) == 1 and (message is None) == in_pipe


def test_compression_is_an_option():
    sizes = [len(encode("png", [picture(200, 200)], compression=level)[0]) for level in (0, 1, 9)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert encode("png", [picture()], stream=True)[0] == encode("png", [picture()], compression=1)[0]


@pytest.mark.parametrize("fault", ["no data", "bad filter", "bad depth", "no header"])
@pytest.mark.parametrize("deep", [False, True])
def test_damage_behind_right_checksums(fault, deep):
    depth = 16 if deep else 8
    head = struct.pack(">IIBBBBB", 5, 5, 3 if fault == "bad depth" else depth, 2, 0, 0, 0)
    rows = (b"\x09" if fault == "bad filter" else b"\0") + bytes(5 * 3 * depth // 8)
    data = zlib.compress(rows * 5)
    chunks = [chunk(b"IHDR", head)] if fault != "no header" else []
    chunks += [chunk(b"IDAT", data)] if fault != "no data" else []
    found, message = until_error(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))
    assert not found and message
