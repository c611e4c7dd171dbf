"""GIF, WebP, TIFF, BMP, AVIF, JPEG 2000 through Pillow."""

import io

import numpy as np
import PIL.Image
import pytest
from stream_samples import decode, encode, noise, picture, until_error
from test_png import SRGB

from styletools import errors, streams

HERE = {extension[1:] for extension in PIL.Image.registered_extensions()}
FILES = [name for name in streams.names("image") if not streams.can_stream(name) and name in HERE]


def saved(array, kind, mode=None, **options):
    out = io.BytesIO()
    PIL.Image.fromarray(array, mode).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (301, 1), (19, 27)])
def test_sizes(name, size):
    (record,) = decode(encode(name, [picture(*size)])[0])
    assert record.array.shape[:2] == size and record.meta["format"] == name


@pytest.mark.parametrize("name", ["tiff", "bmp", "jp2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_ones_keep_every_sample(name, channels):
    wanted = noise(channels=channels)
    assert np.array_equal(decode(encode(name, [wanted])[0])[0].array, wanted.array)


@pytest.mark.parametrize("name", [name for name in ("webp", "avif", "tiff", "jp2") if name in HERE])
def test_alpha_is_kept(name):
    wanted = picture(40, 60, channels=4)
    (record,) = decode(encode(name, [wanted])[0])
    assert record.array.shape == (40, 60, 4)
    assert np.abs(record.array[:, :, 3].astype(int) - wanted.array[:, :, 3]).mean() < 2


@pytest.mark.parametrize("name", [name for name in ("webp", "avif", "tiff") if name in HERE])
def test_profiles_are_kept(name):
    wanted = picture()
    wanted.meta = {"icc": SRGB}
    assert decode(encode(name, [wanted])[0])[0].meta["icc"] == SRGB


@pytest.mark.parametrize("kind", [kind for kind in ("GIF", "WEBP", "TIFF", "AVIF") if kind.lower() in HERE])
def test_further_frames_are_counted(kind, count=3):
    frames = [PIL.Image.fromarray(picture(40, 60, phase=n).array) for n in range(count)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    (record,) = decode(out.getvalue())
    assert record.meta["frames"] == count - 1
    assert np.abs(record.array[:, :, :3].astype(int) - picture(40, 60).array).mean() < 12


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_colour_of_16_bits(compression, order, channels, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile to write such files")
    wanted = noise(channels=channels, deep=True).array
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, wanted, photometric="rgb", compression=compression, byteorder=order, **extra)
    (record,) = decode(path.read_bytes())
    assert record.array.dtype == np.uint16 and np.array_equal(record.array, wanted)


def test_tiff_grey_of_16_bits_and_floats():
    wanted = noise(channels=1, deep=True)
    assert np.array_equal(decode(encode("tiff", [wanted])[0])[0].array, wanted.array)
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    (record,) = decode(saved(values, "TIFF"))
    assert record.array.dtype == np.uint16 and np.array_equal(record.array[:, :, 0], np.round(values * 65535))
    for wrong in (values * 2, values - 1, values * np.nan):
        assert "floating" in until_error(saved(wrong, "TIFF"))[1]
    assert decode(saved(np.array([[0, 65535]], np.int32), "TIFF"))[0].array.ravel().tolist() == [0, 65535]
    assert "integer" in until_error(saved(np.array([[0, 70_000]], np.int32), "TIFF"))[1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [kind for kind in ("TIFF", "WEBP", "AVIF") if kind.lower() in HERE])
def test_orientation_is_applied(kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    want = picture(40, 60).array
    data = saved(want, kind, exif=exif, **({} if kind == "TIFF" else {"quality": 95}))
    (record,) = decode(data)
    stored = PIL.Image.fromarray(want)
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(PIL.ImageOps.exif_transpose(stored))
    assert record.array.shape == upright.shape
    assert np.abs(record.array.astype(int) - upright).mean() < 4


def test_palettes_with_transparency():
    clear = picture(40, 60, channels=4)
    clear.array[:10, :10, 3], clear.array[10:, :, 3], clear.array[:, 10:, 3] = 0, 255, 255
    (record,) = decode(encode("gif", [clear])[0])
    assert record.array.shape[2] == 4
    assert (record.array[:10, :10, 3] == 0).all() and (record.array[20:, :, 3] == 255).all()


def test_cmyk_tiff():
    want = picture().array
    out = io.BytesIO()
    PIL.Image.fromarray(want).convert("CMYK").save(out, "TIFF")
    assert np.abs(decode(out.getvalue())[0].array.astype(int) - want).mean() < 2


@pytest.mark.parametrize("kind", [kind for kind in ("ICO", "SGI", "QOI", "DDS") if kind in PIL.Image.SAVE])
def test_what_is_only_read(kind):
    (record,) = decode(saved(picture(32, 32).array, kind))
    assert record.array.shape[:2] == (32, 32) and record.meta["format"] == kind.lower()
    with pytest.raises(errors.UsageError):
        streams.writer(io.BytesIO(), kind.lower())


def test_formats_that_start_other_programs_are_not_opened():
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.4\n" * 99, b"<svg xmlns='x'/>"):
        assert "known format" in until_error(data)[1]
    assert "HEIC" in until_error(b"\0\0\0\x18ftypheic" + bytes(99))[1]


def test_too_large_for_it():
    with pytest.raises(errors.CannotCreate, match="webp"):
        encode("webp", [streams.Image(np.zeros((1, 20_000, 3), np.uint8))])
