"""Pictures of any size and kind through a method: what must stay, and what may change."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from styletools import errors, methods, stats, streams
from styletools.engine import infer
from styletools.engine.infer import Restyler
from styletools.methods import Method


@dataclass(frozen=True)
class Config:
    value: float = 0.0


class Negative(Method):
    """What the restyler is tested with: exact, and seen in every pixel; a style is a colour, in place of it."""

    multiple = 8

    def __init__(self):
        self.config, self.nets = Config(), torch.nn.ModuleDict()
        self.shapes = []

    def apply(self, image, *, style=None, alpha=1.0):
        """Return the negative, or the style's colour."""
        self.shapes.append(tuple(image.shape[-2:]))
        other = 1 - image if style is None else style["colour"].view(1, 3, 1, 1).expand_as(image)
        return torch.lerp(image, other, alpha)


def image(height, width, channels=3, dtype=np.uint8, seed=0, **meta):
    top = np.iinfo(dtype).max
    array = np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=dtype, endpoint=True)
    return streams.Image(array, "x.png", 3, meta)


def colour(*rgb):
    return {"colour": torch.tensor(rgb)}


SIZES = [(1, 1), (2, 2), (1, 300), (300, 1), (3, 2), (16, 16), (17, 33)]


# ---- what stays ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_size_depth_alpha_name_and_metadata_stay(size, dtype, channels):
    method, given = Negative(), image(*size, channels, dtype, icc=b"profile", rate="25:1")
    before = given.array.copy()
    result = Restyler(method)(given)
    assert result.array.dtype == dtype and result.array.shape == (*size, 4 if channels in (2, 4) else 3)
    assert (result.name, result.index, result.meta) == (given.name, given.index, given.meta)
    assert (given.array == before).all(), "the input is left alone"
    colours = before[..., : channels - (channels in (2, 4))]
    # Exact in every bit, with 16 too: nothing is lost between integers and floats.
    assert (result.array[..., :3] == np.iinfo(dtype).max - np.repeat(colours, 3 // colours.shape[2], 2)).all()
    if channels in (2, 4):
        assert (result.array[..., 3] == before[..., -1]).all()
    height, width = method.shapes[0]
    assert height % 8 == width % 8 == 0 and min(height, width) >= infer.MINIMUM
    assert 0 <= height - max(size[0], infer.MINIMUM) < 8 and 0 <= width - max(size[1], infer.MINIMUM) < 8


def test_all_levels_survive():
    for dtype in (np.uint8, np.uint16):
        levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1, 1)
        assert (Restyler(Negative(), alpha=0.0)(streams.Image(levels)).array == levels).all()


@pytest.mark.parametrize("size", [*SIZES, (1, 3000), (3000, 1)])
def test_live_takes_pictures_of_any_size(size):
    method = methods.create("live", {"channels": 8, "widths": "8"})
    style = method.encode_style([torch.rand(1, 3, 64, 64)], [1.0])
    for alpha in (1.0, 0.5):
        assert Restyler(method, style, alpha=alpha)(image(*size)).array.shape == (*size, 3)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300), (300, 1), (19, 17)])
def test_gatys_takes_pictures_of_any_size(slim, size):
    method = methods.create("gatys", {"steps": 2})
    style = method.encode_style([torch.rand(1, 3, 32, 32)], [1.0])
    assert Restyler(method, style)(image(*size)).array.shape == (*size, 3)


def test_tensors_are_no_pictures():
    with pytest.raises(errors.DataError, match="not a picture"):
        Restyler(Negative())(streams.Tensors({}))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 32]))
def test_padding_mirrors_and_keeps_what_was_there(height, width, multiple):
    tensor = torch.rand(1, 3, height, width)
    padded = infer.pad(tensor, multiple)
    assert torch.equal(padded[..., :height, :width], tensor)
    for size, wanted in zip((height, width), padded.shape[-2:]):
        assert wanted % multiple == 0 and max(size, infer.MINIMUM) <= wanted < max(size, infer.MINIMUM) + multiple
    if width > 1:
        columns = [min(x % (2 * width - 2), -x % (2 * width - 2)) for x in range(padded.shape[-1])]
        assert torch.equal(padded[..., :height, :], tensor[..., columns])


def test_values_that_are_not_numbers_are_no_picture():
    with pytest.raises(errors.DataError, match="not numbers"):
        Restyler(Negative(), colour(float("nan"), 0.0, 0.0))(image(4, 4))


# ---- size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short", "wanted"),
    [((30, 20), 10, (15, 10)), ((20, 31), 40, (40, 62)), ((1, 1), 7, (7, 7)), ((1, 90), 2, (2, 180)),
     ((20, 30), 20, (20, 30)), ((99, 100), 33, (33, 33))],
)  # fmt: skip
def test_size_is_of_the_short_side(size, short, wanted):
    result = Restyler(Negative(), size=short)(image(*size, 4))
    assert result.array.shape == (*wanted, 4)


def test_size_scales_alpha_with_the_picture():
    given = image(20, 20, 4)
    given.array[..., 3] = 0
    given.array[:, 10:, 3] = 255
    result = Restyler(Negative(), size=10)(given).array[..., 3]
    assert (result[:, :4] == 0).all() and (result[:, 6:] == 255).all()
    given = image(20, 20, 2, np.uint16)
    given.array[..., 1] = 65535
    assert (Restyler(Negative(), size=33)(given).array[..., 3] == 65535).all()


def test_size_that_changes_nothing_is_exact():
    given = image(20, 30, 4)
    assert (Restyler(Negative(), size=20)(given).array == Restyler(Negative())(given).array).all()


def test_size_keeps_to_the_limit_of_pixels():
    """A thread of pixels must not become a giant that takes the memory of all the others."""
    restyler = Restyler(Negative(), size=512, limits=streams.Limits(max_pixels=1_000_000))
    with pytest.raises(errors.DataError, match="512x1536000|1536000x512"):
        restyler(image(3000, 1))


# ---- alpha -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("preserve", ["", *stats.COLOR_TRANSFERS])
def test_alpha_0_is_exactly_the_photograph(dtype, preserve):
    method, given = Negative(), image(9, 7, 4, dtype)
    assert (Restyler(method, alpha=0.0, preserve_color=preserve)(given).array == given.array).all()
    assert not method.shapes, "the method is not even asked"


def test_alpha_between_is_handed_to_the_method():
    given = image(9, 7)
    half = Restyler(Negative(), alpha=0.5)(given).array
    assert (abs(half.astype(int) - 127.5) <= 0.5).all()


def test_alpha_has_no_jump_at_0():
    """Not even with a network that rebuilds nothing; one that knows no alpha is blended with the photograph."""
    method, given = methods.create("live", {"channels": 8, "widths": "8"}), image(20, 24)
    style = method.encode_style([torch.rand(1, 3, 32, 32)], [1.0])
    near = Restyler(method, style, alpha=0.001)(given).array
    assert abs(near.astype(int) - given.array).max() <= 1

    class Deaf(Negative):
        """Knows no alpha."""

        def apply(self, image, *, style=None, alpha=1.0):
            """Return the negative."""
            return 1 - image

    half = Restyler(Deaf(), alpha=0.25)(given).array
    wanted = 0.75 * given.array + 0.25 * (255.0 - given.array)
    assert abs(half - wanted).max() <= 0.51


# ---- colour ----------------------------------------------------------------------------------------------


def gentle(height, width, seed):
    """Return a picture whose colours stay away from black and white, so that nothing is clipped."""
    given = image(height, width, 3, np.uint16, seed)
    given.array[:] = given.array // 4 + 24000
    return given


class Shuffle(Negative):
    """Puts other colours at other places, within the same range."""

    def apply(self, image, *, style=None, alpha=1.0):
        """Return the picture upside down with its channels exchanged, and a little darker."""
        return image.flip(-2)[:, [1, 2, 0]] * 0.9


def restyled(how, given):
    result = Restyler(Shuffle(), preserve_color=how)(given)
    return [torch.from_numpy(x.array.astype(np.float64) / 65535).permute(2, 0, 1)[None] for x in (given, result)]


def test_luminance_keeps_the_chroma():
    given, result = restyled("luminance", gentle(32, 24, 1))
    chroma = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)
    before, after = (torch.einsum("ij,njhw->nihw", chroma, x) for x in (given, result))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    assert (given - result).abs().mean() > 0.01


def test_coral_keeps_mean_and_covariance():
    given, result = restyled("coral", gentle(32, 24, 1))
    torch.testing.assert_close(stats.mean(result), stats.mean(given), rtol=0, atol=1e-4)
    torch.testing.assert_close(stats.covariance(result), stats.covariance(given), rtol=0, atol=1e-4)
    assert (given - result).abs().mean() > 0.01


def test_histogram_keeps_the_values_of_each_channel():
    given, result = restyled("histogram", gentle(32, 24, 1))
    # Equal values share one: the two distributions are the same up to that.
    before, after = (x.flatten(2).sort(2).values for x in (given, result))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)
    torch.testing.assert_close(after.mean(2), before.mean(2), rtol=0, atol=1e-5)
    assert (given - result).abs().mean() > 0.01


@pytest.mark.parametrize("how", sorted(stats.COLOR_TRANSFERS))
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3)])
def test_colours_are_kept_of_the_smallest_pictures(how, size):
    assert Restyler(Negative(), preserve_color=how)(image(*size)).array.shape == (*size, 3)


# ---- masks -----------------------------------------------------------------------------------------------


def test_masks_choose_between_style_and_photograph():
    given = image(20, 24, 4)
    plain = Restyler(Negative())(given).array
    white, black = torch.ones(7, 5), torch.zeros(7, 5)
    assert (Restyler(Negative(), mask=white)(given).array == plain).all()
    assert (Restyler(Negative(), mask=black)(given).array == given.array).all()
    half = Restyler(Negative(), mask=0.5 * white)(given).array
    assert (abs(half[..., :3].astype(int) - 127.5) <= 0.5).all() and (half[..., 3] == given.array[..., 3]).all()
    left = torch.zeros(10, 24)
    left[:, :12] = 1
    mixed = Restyler(Negative(), mask=left)(given).array
    assert (mixed[:, :12] == plain[:, :12]).all() and (mixed[:, 12:] == given.array[:, 12:]).all()


def test_masks_are_exact_with_16_bits():
    given = image(20, 24, 3, np.uint16)
    assert (Restyler(Negative(), mask=torch.zeros(3, 3))(given).array == given.array).all()
    assert (Restyler(Negative(), mask=torch.ones(3, 3))(given).array == 65535 - given.array).all()


def test_masks_fit_what_size_makes_of_a_picture():
    left = torch.zeros(40, 40)
    left[:, :20] = 1
    styles = {"style": colour(1.0, 1.0, 1.0), "outside": colour(0.0, 0.0, 0.0)}
    result = Restyler(Negative(), mask=left, size=10, **styles)(image(20, 20)).array
    assert result.shape == (10, 10, 3) and (result[:, :4] == 255).all() and (result[:, 6:] == 0).all()


def test_outside_is_another_style():
    left = torch.zeros(4, 8)
    left[:, :4] = 1
    result = Restyler(Negative(), colour(1.0, 0.0, 0.0), mask=left, outside=colour(0.0, 0.0, 1.0))(image(4, 8)).array
    assert (result[:, :4] == [255, 0, 0]).all() and (result[:, 4:] == [0, 0, 255]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_transparent_in_a_mask_is_black(dtype):
    top = np.iinfo(dtype).max
    array = np.full((2, 2, 4), top, dtype)
    array[0, 0, 3], array[0, 1, 3], array[1, 0, :3] = 0, top // 2, 0
    plane = infer.to_plane(streams.Image(array))
    torch.testing.assert_close(plane, torch.tensor([[0.0, 0.5], [0.0, 1.0]]), rtol=0, atol=0.005)
    torch.testing.assert_close(infer.to_plane(streams.Image(array[..., 2:])), plane)
    assert infer.to_plane(streams.Image(array[..., :1])).tolist() == [[1, 1], [0, 1]]


# ---- methods that iterate --------------------------------------------------------------------------------


class Slow(Negative):
    """Reports three steps."""

    iterative = True

    def apply(self, image, *, style=None, alpha=1.0):
        """Return the picture as it is; gradients can be had here."""
        picture = image.clone().requires_grad_()
        with torch.enable_grad():
            picture.sum().backward()
        for step in range(1, 4):
            self.progress(step, 3, {"content": 0.5, "style": 0.25})
        return picture.detach()


def test_progress_of_methods_that_iterate(capsys, monkeypatch):
    given = image(4, 4)
    assert (Restyler(Slow())(given).array == given.array).all()
    assert capsys.readouterr().err == "", "silent where no terminal is"
    monkeypatch.setattr("styletools.log.progress_is_shown", lambda: True)
    Restyler(Slow())(given)
    assert "3/3" in (shown := capsys.readouterr().err) and "content 0.5 style 0.25" in shown
    assert shown.endswith("\r\x1b[K")
