"""Pictures that are too large to be held whole: the same pixels come in and go out, strip by strip."""

import io
import zlib

import numpy as np
import PIL.Image
import pytest

from styletools import errors, files, streams
from styletools.streams import _pixels

SHAPE = (61, 47)


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    """Take any picture for a large one, and few rows for a strip."""
    monkeypatch.setattr(_pixels, "LARGE", 1000)
    monkeypatch.setattr(_pixels, "STRIP", 7)


def pixels(channels, dtype=np.uint8):
    """Return smooth pixels with some noise, for which different filters are the best in different rows."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    levels = np.stack([(y * (c + 1) + x * 2 + rng.integers(0, 3, SHAPE)) % 256 for c in range(channels)], 2)
    return (levels * (257 if dtype == np.uint16 else 1)).astype(dtype)


def read(data, **options):
    (record,) = streams.read(io.BytesIO(data), **options)
    return record


def written(array, name, **meta):
    out = io.BytesIO()
    with streams.writer(out, name) as writer:
        writer.write(streams.Image(array, meta=meta))
    return out.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("name", "channels"), [*(("png", c) for c in (1, 2, 3, 4)), ("ppm", 1), ("ppm", 3), ("pam", 4)]
)
def test_what_is_written_is_read(name, channels, dtype):
    array = pixels(channels, dtype)
    data = written(array, name)
    assert (read(data).array == array).all()
    if name != "pam" and dtype == np.uint8:
        assert (np.asarray(PIL.Image.open(io.BytesIO(data))).reshape(array.shape) == array).all(), "others read it, too"
        assert isinstance(read(data).array, np.memmap)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_pictures_of_other_programs(mode):
    picture = PIL.Image.fromarray(pixels(3)).convert(mode)
    out = io.BytesIO()
    picture.save(out, "PNG", dpi=(300, 300), optimize=True)
    record = read(out.getvalue())
    wanted = np.asarray(picture.convert({"P": "RGB", "1": "L"}.get(mode, mode)))
    assert (record.array == wanted.reshape(record.array.shape)).all()
    assert record.meta["dpi"][0] == pytest.approx(300, 1e-3)


@pytest.mark.parametrize("name", ["jpeg", "tiff", "bmp", "webp"])
def test_formats_of_pillow(name, monkeypatch):
    array = pixels(3)
    data = written(array, name)
    large = read(data).array
    monkeypatch.setattr(_pixels, "LARGE", 1 << 28)
    assert written(array, name) == data
    assert isinstance(large, np.memmap) and (read(data).array == large).all()


def test_several_large_pictures_follow_one_another():
    arrays = [pixels(3), pixels(1), pixels(4)]
    data = b"".join(written(array, "png") for array in arrays)
    for array, record in zip(arrays, streams.read(io.BytesIO(data), stream=True), strict=True):
        assert (record.array == array).all()


def test_profile_and_orientation_stay():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    out, profile = io.BytesIO(), b"\0" * 16 + b"RGB " + b"\0" * 200
    PIL.Image.fromarray(pixels(3)).save(out, "PNG", exif=exif, icc_profile=profile)
    record = read(out.getvalue())
    assert (record.array == np.rot90(pixels(3), -1)).all()
    again = read(written(record.array, "png", **record.meta))
    assert again.meta["icc"] == profile and (again.array == record.array).all()


@pytest.mark.parametrize("damage", ["cut", "bits", "filter", "short"])
def test_damage_is_found(damage):
    data = written(pixels(3), "png")
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "bits":
        data = data[:300] + bytes([data[300] ^ 255]) + data[301:]
    else:
        from styletools.streams import png

        lines = b"".join((b"\7" if damage == "filter" else b"\0") + bytes(row) for row in pixels(3))
        body = zlib.compress(lines[: 9999 if damage == "filter" else 2000])
        start = data.index(b"IDAT") - 4
        data = data[:start] + png._chunk(b"IDAT", body) + png._chunk(b"IEND", b"")
    with pytest.raises(errors.DataError, match="png"):
        read(data)


def test_limits_hold_before_any_pixel_is_kept(monkeypatch):
    monkeypatch.setattr(files, "scratch", lambda: pytest.fail("nothing is to be kept"))
    for name in ("png", "ppm"):
        with pytest.raises(errors.DataError, match="over the limit"):
            read(written(pixels(3), name), limits=streams.Limits(max_pixels=100))


def test_a_disk_without_room():
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    rows = _pixels.Rows((60, 47, 3), np.uint8)
    rows._file = Full()
    with pytest.raises(errors.TryAgain, match=r"no space left.*TMPDIR"):
        rows.add(pixels(3)[:5])


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    array = read(written(pixels(3), "png")).array
    assert not list(tmp_path.iterdir()), "files of pixels have no names"
    streams.release(array)
    assert (array == pixels(3)).all()
