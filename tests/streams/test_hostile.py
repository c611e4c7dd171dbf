"""The hostile pictures of the reference folder: a correct result, or one line that says why not."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from styletools import errors, streams

if not os.environ.get("STYLETOOLS_REFERENCE"):
    pytest.skip("STYLETOOLS_REFERENCE names no folder of reference pictures", allow_module_level=True)
FOLDER = Path(os.environ["STYLETOOLS_REFERENCE"]) / "hostile"

# (height, width, channels) and dtype.
PLAIN = (64, 96, 3)
GOOD = {
    **dict.fromkeys(
        ["-dash.png", "with space.png", "quote's.png", "ünïcode 画.png", "png-called.jpg", "cmyk.jpg", "p3.jpg"]
        + ["progressive.jpg", "trailing.jpg", "palette.png", "animated.gif", "pages.tif", "float.tif"]
        + [f"exif-{n}.jpg" for n in range(1, 5)],
        (PLAIN, np.uint8),
    ),
    **{f"exif-{n}.jpg": ((96, 64, 3), np.uint8) for n in range(5, 9)},
    "animated.webp": ((64, 96, 4), np.uint8),
    "rgba.webp": ((64, 96, 4), np.uint8),
    "rgba.png": ((64, 96, 4), np.uint8),
    "palette-transparent.png": ((64, 96, 4), np.uint8),
    "grey-alpha.png": ((64, 96, 2), np.uint8),
    "bilevel.png": ((64, 96, 1), np.uint8),
    "grey.png": ((64, 96, 1), np.uint8),
    "grey.jpg": ((64, 96, 1), np.uint8),
    "grey16.png": ((64, 96, 1), np.uint16),
    "float32.tif": ((64, 96, 1), np.uint16),
    "rgb16.png": (PLAIN, np.uint16),
    "flat.png": ((1, 3000, 3), np.uint8),
    "thin.png": ((3000, 1, 3), np.uint8),
    "one.png": ((1, 1, 3), np.uint8),
    "two.png": ((2, 2, 3), np.uint8),
    "odd.png": ((65, 97, 3), np.uint8),
}
BAD = {
    "badcrc.png": "checksum",
    "bomb.png": "limit",
    "bomb.ppm": "limit",
    "empty.jpg": "empty",
    "noise.png": "format",
    "text.jpg": "format",
    "truncated.jpg": "cut off",
    "truncated.png": "cut off",
    "README.md": "format",
}


def pixels(name):
    record = streams.open_image(FOLDER / name)
    return streams.to_8bit(streams.to_rgb(record)[0]).astype(float)


def test_every_file_is_expected():
    assert {path.name for path in FOLDER.iterdir()} == {*GOOD, *BAD}


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    record = streams.open_image(FOLDER / name)
    shape, dtype = GOOD[name]
    assert record.array.shape == shape and record.array.dtype == dtype
    # They all show one picture.
    grey = (pixels(name) @ [0.299, 0.587, 0.114]).mean()
    assert abs(grey - (pixels("grey.png") @ [0.299, 0.587, 0.114]).mean()) < 3
    if shape == PLAIN and not name.startswith("exif"):
        assert np.abs(pixels(name) - pixels("-dash.png")).mean() < 12


@pytest.mark.parametrize("name", BAD)
def test_bad(name):
    with pytest.raises(errors.DataError, match=BAD[name]) as raised:
        streams.open_image(FOLDER / name)
    assert "\n" not in str(raised.value) and str(raised.value).count(name) == 1


@pytest.mark.parametrize("number", range(1, 9))
def test_orientation(number):
    """Their stored pixels are all the same, so upright they are the eight turns of one picture."""
    with PIL.Image.open(FOLDER / f"exif-{number}.jpg") as opened:
        assert np.array_equal(pixels(f"exif-{number}.jpg"), np.asarray(PIL.ImageOps.exif_transpose(opened)))


def test_alpha_survives():
    assert streams.open_image(FOLDER / "rgba.png").array[:, :, 3].std() > 10
    assert streams.open_image(FOLDER / "rgba.webp").array[:, :, 3].std() > 10
    hidden = streams.open_image(FOLDER / "palette-transparent.png").array[:, :, 3]
    assert set(np.unique(hidden)) == {0, 255}


def test_sixteen_bits_are_sixteen():
    for name in ("rgb16.png", "grey16.png"):
        array = streams.open_image(FOLDER / name).array
        assert array.dtype == np.uint16 and array.max() > 50_000
        assert np.array_equal(array, array // 257 * np.uint16(257))  # that is how these were made


def test_frames_are_counted_and_a_profile_is_kept():
    for name in ("animated.gif", "animated.webp", "pages.tif"):
        assert streams.open_image(FOLDER / name).meta["frames"] == 3
    assert streams.open_image(FOLDER / "p3.jpg").meta["icc"][16:20] == b"RGB "


def test_a_pipe_takes_no_garbage_after_the_end():
    with open(FOLDER / "trailing.jpg", "rb") as source:
        found = []
        with pytest.raises(errors.DataError, match="follows"):
            found.extend(streams.read(source, stream=True))
