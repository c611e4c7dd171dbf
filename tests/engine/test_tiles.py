"""What is made in tiles is what is made of the whole: for every method that says it can, and for what hinders it."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from styletools import errors, methods, stats, streams
from styletools.engine import infer, memory, tiles
from styletools.engine.infer import Restyler
from styletools.methods import Method
from styletools.nn import norm

TILED = [
    name for name in methods.names() if methods.describe(name).applies_to in ("image", "image+style", "image+label")
    and methods._class(name).tiling and not methods._class(name).iterative
]  # fmt: skip
SMALL = {
    "live": {"channels": 16, "widths": "8,8"}, "johnson": {"widths": "8,8,8", "blocks": 1},
    "cyclegan": {"width": 8, "blocks": 2}, "cut": {"width": 8, "blocks": 2}, "microast": {"channels": 4},
    "culturegan": {"labels": "ink,oil", "width": 8, "blocks": 1},
}  # fmt: skip
SIZES = {"adain": (150, 300), "retention": (120, 270), "wct": (270, 120)}  # they are slow: one row or column of tiles
NOTHING = 1  # byte of memory: everything is too large, and tiles are as small as they get
PLENTY = 1 << 40


def picture(height, width, channels=3, dtype=np.uint8, seed=0):
    """Return a picture with large forms and fine ones, so that statistics differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 5, 4, generator=generator)
    fine = torch.rand(1, channels, height, width, generator=generator)
    both = 0.8 * F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) + 0.2 * fine
    levels = (both[0] * np.iinfo(dtype).max).round().permute(1, 2, 0).numpy().astype(dtype)
    return streams.Image(levels, "x.png", 3, {"rate": "25:1"})


def made(name):
    """Return a method of random weights, and a style of it."""
    torch.manual_seed(0)
    method = methods.create(name, SMALL.get(name))
    method.nets.eval()
    if name == "live":  # or it would make no difference how its encoder finds a code
        encoder = method.nets["encoder"]
        encoder.probe.uniform_()
        for layer in (encoder.code, encoder.correction):
            torch.nn.init.normal_(layer.weight, 0, 0.1)
    for decoder in method.nets.values() if name in ("adain", "wct") else ():
        decoder.convs["conv1_1"].weight.data *= 0.02  # or it is all black and white, and rounding errors with it
    said, style = methods.describe(name), None
    with torch.no_grad():
        if said.applies_to == "image+style":
            noise = torch.Generator().manual_seed(5)
            style = method.encode_style([torch.rand(1, 3, 64, 72, generator=noise)], [1.0])
        elif said.applies_to == "image+label":
            style = method.own_style("ink")
    return method, style


def compare(given, method, style, limit=1, **options):
    """Assert that a picture comes out of tiles as it comes out whole, up to `limit` levels."""
    whole = Restyler(method, style, memory=PLENTY, **options)(given)
    restyler = Restyler(method, style, memory=NOTHING, **options)
    result = restyler(given)
    (plan,) = restyler._plans.values()
    size = result.array.shape[:2]
    assert math.prod(tiles._tile(plan, size, NOTHING, tiles.LARGEST)) < math.prod(size), "there are several tiles"
    assert result.array.dtype == whole.array.dtype and result.array.shape == whole.array.shape
    assert (result.name, result.index, result.meta) == (given.name, given.index, given.meta)
    assert abs(result.array.astype(int) - whole.array).max() <= limit
    assert whole.array.std() > 0.01 * np.iinfo(whole.array.dtype).max
    return whole.array, result.array


# ---- every method ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "alpha"), [*((name, 1.0) for name in TILED), *((name, 0.5) for name in ("live", "johnson", "adain"))]
)
def test_tiles_are_the_whole(name, alpha, slim):
    method, style = made(name)
    whole, result = compare(picture(*SIZES.get(name, (203, 270))), method, style, alpha=alpha)
    assert (whole != result).mean() < 0.01, "and what rounding errors change is rare"


@pytest.mark.parametrize("size", [(130, 129), (1700, 20), (20, 1700), (7, 2500), (256, 256), (301, 128)])
@pytest.mark.parametrize("name", ["live", "johnson"])
def test_sizes_that_tiles_do_not_divide(name, size):
    method, style = made(name)
    compare(picture(*size), method, style)


@pytest.mark.parametrize("name", ["live", "cyclegan", "microast"])
def test_floats_differ_as_sums_in_another_order_do(name):
    method, style = made(name)
    given = infer.to_tensor(picture(190, 300))[0]
    whole, parts = (Restyler(method, style, memory=m).restyle(given, style) for m in (PLENTY, NOTHING))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


def test_methods_say_what_they_can():
    assert {"adain", "cut", "cyclegan", "johnson", "live", "microast", "retention"} <= set(TILED)


def test_the_least_is_computed_twice():
    """Passes go on where features were kept: 5 blocks of live do not begin with the picture 5 times."""
    method, style = made("live")
    plan = tiles.Plan(lambda image: method.apply(image, style=style), method.multiple, [3])
    assert len(plan.passes) == 5 and sum(each.start > 0 for each in plan.passes) >= 2
    assert 0 < plan.halo <= 32 and plan.align == 4


# ---- whatever else is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (4, np.uint16), (3, np.uint16)])
def test_depth_and_alpha_stay(channels, dtype):
    method, style = made("live")
    given = picture(150, 280, channels, dtype)
    whole, result = compare(given, method, style, limit=1 if dtype == np.uint8 else 64)
    if channels in (2, 4):
        assert (result[..., -1] == given.array[..., -1]).all()


@pytest.mark.parametrize("how", ["luminance", "coral"])
def test_colours_are_kept(how):
    method, style = made("live")
    compare(picture(203, 270), method, style, preserve_color=how)


@pytest.mark.parametrize("size", [150, 330, (170, 301)])
@pytest.mark.parametrize("channels", [3, 4])
def test_sizes_are_changed_in_tiles(size, channels):
    method, style = made("live")
    compare(picture(203, 270, channels), method, style, size=size)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("shape", [(31, 20), (500, 420)])
def test_masks(shape, both):
    method, style = made("live")
    mask = torch.zeros(shape)
    mask[:, : shape[1] // 2] = 1
    outside = method.encode_style([torch.rand(1, 3, 40, 40)], [1.0]) if both else None
    whole, _ = compare(picture(203, 270), method, style, mask=mask, outside=outside)
    if not both:
        assert (whole[:, 150:] == picture(203, 270).array[:, 150:]).all()


def test_statistics_can_be_replaced():
    """A film smooths the statistics of its frames: it is shown those of the whole, once each, in their order."""
    method, style = made("live")
    given = infer.to_tensor(picture(180, 260))[0]
    seen = {}

    def remember(to):
        def replace(mean, variance):
            seen.setdefault(to, []).append((mean, variance))
            return mean + 0.1, 2 * variance

        return replace

    results = []
    for limit in (PLENTY, NOTHING):
        with norm.replaced(remember(limit)):
            results.append(Restyler(method, style, memory=limit).restyle(given, style))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)
    assert len(seen[PLENTY]) == len(seen[NOTHING]) == 4
    for whole, parts in zip(seen[PLENTY], seen[NOTHING]):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("limit", [NOTHING, PLENTY])
def test_features_are_kept_in_memory_or_in_a_file(limit, monkeypatch):
    method, style = made("live")
    given = infer.to_tensor(picture(160, 300))[0]
    whole = Restyler(method, style, memory=PLENTY).restyle(given, style)
    result, asked = torch.empty_like(given), []
    monkeypatch.setattr(tiles, "_scratch", lambda *what, real=tiles._scratch: asked.append(what) or real(*what))

    def work(image):
        return method.apply(image, style=style)

    def put(top, left, part):
        result[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part

    tiles.paint(
        tiles.Plan(work, 4, [3]), work, [lambda y, x, h, w: given[..., y : y + h, x : x + w]], (160, 300), (160, 300),
        put, memory=limit, side=128,
    )  # fmt: skip
    torch.testing.assert_close(result, whole, rtol=0, atol=1e-4)
    assert bool(asked) == (limit == NOTHING)


# ---- what hinders it -------------------------------------------------------------------------------------


class Simple(Method):
    """Blurs; with `limit`, memory runs out with more pixels than that."""

    multiple = 4
    tiling = True

    def __init__(self, limit=1 << 40, error=None):
        self.nets, self.limit, self.error, self.sizes = torch.nn.ModuleDict(), limit, error or MemoryError(), []

    def apply(self, image, *, style=None, alpha=1.0):
        """Return a blurred picture."""
        self.sizes.append(image.shape[-1] * image.shape[-2])
        if self.sizes[-1] > self.limit:
            raise self.error
        return F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), 5, 1)


class Average(Simple):
    """Looks at all of the picture, behind everybody's back."""

    def apply(self, image, *, style=None, alpha=1.0):
        """Return the mean of all pixels everywhere."""
        return image * 0 + image.mean((2, 3), keepdim=True)


OUT = [MemoryError(), torch.OutOfMemoryError("out of memory"), RuntimeError("enforce fail: can't allocate memory")]


@pytest.mark.parametrize("error", OUT, ids=lambda error: type(error).__name__)
def test_a_device_that_runs_out_of_memory_gets_tiles(error, capsys):
    given = picture(300, 700)
    whole = Restyler(Simple())(given).array
    method = Simple(limit=40_000, error=error)
    restyler = Restyler(method, memory=PLENTY)
    assert (restyler(given).array == whole).all()
    told = capsys.readouterr().err.splitlines()
    assert len(told) >= 1 and all("out of memory" in line for line in told)
    method.sizes.clear()
    assert (restyler(given).array == whole).all()
    assert max(method.sizes) <= 40_000, "it does not try again what went wrong once"
    assert not capsys.readouterr().err


def test_without_any_memory_it_ends():
    with pytest.raises(MemoryError):
        Restyler(Simple(limit=100))(picture(300, 300))
    with pytest.raises(ValueError, match="other"):
        Restyler(Simple(limit=100, error=ValueError("other")))(picture(300, 300))


def test_what_depends_on_every_pixel_is_not_tiled():
    with pytest.raises(tiles.NotTiled, match="all of the picture"):
        tiles.Plan(Average().apply, 4, [3])
    restyler = Restyler(Average(), memory=NOTHING)
    assert (restyler(picture(140, 150)).array == Restyler(Average())(picture(140, 150)).array).all()


def test_what_changes_its_input_is_not_tiled():
    with pytest.raises(tiles.NotTiled, match="changes"):
        tiles.Plan(lambda image: (image + 1).relu_(), 4, [3])


def test_what_counts_pixels_is_not_tiled():
    with pytest.raises(tiles.NotTiled, match="counts pixels"):
        tiles.Plan(lambda image: image / torch.ones_like(image).sum(), 4, [3])


@pytest.mark.parametrize("how", [{"scale_factor": 1.5}, {"scale_factor": 2, "align_corners": True}])
def test_what_depends_on_the_place_is_not_tiled(how):
    def work(image):
        return F.interpolate(F.interpolate(image, mode="bilinear", **how), image.shape[-2:])

    with pytest.raises(tiles.NotTiled, match="where in the picture"):
        tiles.Plan(work, 4, [3])


def test_values_that_are_not_numbers_are_no_picture():
    class Broken(Simple):
        def apply(self, image, *, style=None, alpha=1.0):
            return image + float("nan")

    with pytest.raises(errors.DataError, match="not numbers"):
        Restyler(Broken(), memory=NOTHING)(picture(140, 150))


def test_a_disk_without_room(monkeypatch):
    def full(*unused):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiles.os, "posix_fallocate", full)
    with pytest.raises(errors.TryAgain, match=r"no space left.*TMPDIR"):
        tiles._scratch((1 << 20,), np.dtype(np.uint8))


# ---- parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "wanted"), [(40, 97), (97, 40), (40, 41), (300, 7), (1, 9)])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_parts_are_scaled_as_the_whole(given, wanted, kernel):
    line = torch.rand(1, 1, given, 8, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(line, (wanted, 8), mode=kernel, antialias=True, align_corners=False)[0, 0]
    for first, end in ((0, wanted), (wanted // 3, wanted // 2 + 1)):
        start, stop, weights = infer._scaling(given, wanted, first, end, kernel)
        torch.testing.assert_close(weights @ line[0, 0, start:stop], whole[first:end], rtol=0, atol=1e-5)


def test_moments_of_parts_are_those_of_the_whole():
    x = 100 + torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for kind, wanted in (
            ("variance", x.var((2, 3), correction=0)), ("unbiased", x.var((2, 3))), ("covariance", stats.covariance(x)),
        ):  # fmt: skip
            sums = tiles._Sums(kind, 3)
            for part in (x[..., :7, :], x[..., 7:, :13], x[..., 7:, 13:]):
                sums.add(part)
            slot = tiles._Slot(False, (), torch.float32, torch.device("cpu"), None, 0, 0)
            barrier = tiles._Operation(kind, (), {}, [], [0, 0], True)
            mean, spread = sums.result(type("Tape", (), {"slots": [slot]}), barrier)
            torch.testing.assert_close(mean, x.mean((2, 3)))
            torch.testing.assert_close(spread, wanted, rtol=1e-4, atol=1e-5)


def test_memory_is_known():
    assert 1 << 20 < memory.resident() < 1 << 36 and memory.available() > 0
    assert memory.free(1 << 40) == pytest.approx((1 << 40) - memory.resident(), abs=1 << 24)
    assert memory.free() <= memory.available()
