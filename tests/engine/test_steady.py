"""Steadied films: of the bundled model, on motion that is known; what must stay exactly what it is."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional as F

from styletools import errors, files, methods, metrics, modelfile, streams
from styletools.engine import infer, styles
from styletools.engine.infer import Restyler
from styletools.engine.steady import Steady
from styletools.methods import Method
from styletools.metrics._look import Look

SIZES = [(1, 1), (1, 40), (2, 2), (16, 16), (17, 33), (64, 48)]


@pytest.fixture(scope="module")
def live():
    """A function that makes a restyler of the bundled model, with one of two bundled styles."""
    path = files.zoo_dir() / "live.safetensors"
    method, digest = modelfile.load(path), modelfile.digest(path)

    def style(name):
        return styles.encode(method, styles.parse([name]), method_name="live", model_digest=digest)

    return lambda **options: Restyler(method, style("starry-night"), outside=style("the-scream"), **options)


def texture(height=96, width=128, seed=0):
    """A picture with detail of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    noises = (torch.rand(1, 3, cells, cells, generator=generator) for cells in (4, 10, 24))
    return (sum(F.interpolate(noise, (height, width), mode="bicubic") for noise in noises) / 3).clamp(0, 1)


def pan(dx, dy, frames=5, height=96, width=128):
    """Frames of a camera that goes over a picture: what is at x in one is at x + (dx, dy) in the next."""
    whole = texture(height + frames * abs(dy), width + frames * abs(dx), seed=3)
    corners = [[max(step, 0) * frames - step * i for step in (dx, dy)] for i in range(frames)]
    return [whole[..., y : y + height, x : x + width] for x, y in corners]


def noisy(frames=6, deviation=4 / 255, height=96, width=128):
    """Frames of a camera that stands still and has noise."""
    generator = torch.Generator().manual_seed(1)
    still = texture(height, width)
    return [(still + deviation * torch.randn(still.shape, generator=generator)).clamp(0, 1) for _ in range(frames)]


def run(steady, frames):
    return [steady(frame).clone() for frame in frames]


def score(name, results, frames, flow=None):
    """Return the mean of a metric over a film."""
    metric = metrics.create(metrics.parse(name)[0])
    found = [metric.pair(Look(a), Look(b, flow=flow), None).get("") for a, b in zip(results, frames, strict=True)]
    found = [value for value in found if value is not None]
    return sum(found) / len(found)


def image(size, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    array = np.random.default_rng(seed).integers(0, top, (*size, channels), dtype=dtype, endpoint=True)
    return streams.Image(array, "x.png", 3, {"rate": "25:1"})


# ---- steadier, and no less sharp -----------------------------------------------------------------------------


def test_a_still_film_with_noise_is_steadier(live):
    frames = noisy()
    results = {strength: run(Steady(live(), strength), frames) for strength in (0, 0.5, 1)}
    still = torch.zeros(1, 2, 96, 128)
    plain, steady, steadiest = (score("warp", films, frames, still) for films in results.values())
    assert steady < 0.6 * plain and steadiest < 0.6 * steady
    assert score("sharpness", results[0.5], frames) > 0.9 * score("sharpness", results[0], frames)


@pytest.mark.parametrize("dx, dy", [(3, 1), (-2, -5), (9, 0), (8, 4)])
def test_a_pan_is_steadier_and_stays_sharp(live, dx, dy):
    frames = pan(dx, dy)
    flow = torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    plain, steady = run(Restyler.paint.__get__(live()), frames), run(Steady(live()), frames)
    assert score("warp", steady, frames, flow) < 0.6 * score("warp", plain, frames, flow)
    assert 0.9 < score("sharpness", steady, frames) / score("sharpness", plain, frames) < 1.2


def test_strokes_do_not_grow_on_a_still_picture(live):
    results = run(Steady(live(), 1), [texture()] * 12)
    assert (results[-1] - results[-2]).abs().mean() < 0.003
    assert (results[-1] - results[0]).square().mean().sqrt() < 0.1


def test_statistics_follow_slowly(live):
    still, lit = texture(), texture()
    lit[..., 90:] *= 0.7
    steady, fresh = Steady(live()), Steady(live())
    steady(still)
    before = steady.state()["mean.0"]
    steady(lit)
    fresh(lit)
    moved, wanted = steady.state()["mean.0"] - before, fresh.state()["mean.0"] - before
    assert 0.3 < float((moved * wanted).sum() / wanted.square().sum()) < 0.9


# ---- scenes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("light", [1, 0.15])
def test_nothing_of_the_frame_before_is_seen_after_a_cut(live, light):
    steady = Steady(live())
    frames = [light * frame for frame in (*pan(2, 1, 3), texture(seed=7), texture(seed=8), *pan(-3, 2, 2))]
    results = run(steady, frames)
    for number in (3, 4, 5):
        assert torch.equal(results[number], Steady(live())(frames[number])), f"frame {number}"
    assert not torch.equal(results[6], Steady(live())(frames[6])), "one scene goes on"


def test_a_flash_leaves_nothing_behind(live):
    still = texture()
    results = run(Steady(live()), [still, 0.3 * still + 0.7, still])
    for number, frame in ((1, 0.3 * still + 0.7), (2, still)):
        assert torch.equal(results[number], Steady(live())(frame))


@pytest.mark.parametrize("frames", [pan(24, 0, 2), pan(0, -14, 2), [texture(), 0.85 * texture()], noisy(2, 0.04)])
def test_what_is_no_cut(live, frames):
    """Fast pans, a light that goes down, much noise."""
    results = run(Steady(live()), frames)
    assert not torch.equal(results[1], Steady(live())(frames[1]))


def test_reset_begins_a_scene(live):
    steady, frame = Steady(live()), texture()
    first = steady(frame).clone()
    assert not torch.equal(steady(frame), first)
    steady.reset()
    assert not steady.state() and torch.equal(steady(frame), first)


# ---- exactly the restyler's ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_without_strength_it_is_the_restyler(live, size):
    restyler = live(preserve_color="luminance", alpha=0.7)
    steady = Steady(restyler, 0)
    for number, (channels, dtype) in enumerate([(3, np.uint8), (4, np.uint16), (1, np.uint8)]):
        frame = image(size, channels, dtype, number)
        result, wanted = steady(frame), restyler(frame)
        assert (result.array == wanted.array).all() and result.array.dtype == dtype
        assert (result.name, result.index, result.meta) == (frame.name, frame.index, frame.meta)
    assert not steady.state()


def test_the_first_frame_is_the_restylers(live):
    frame = image((40, 30))
    np.testing.assert_array_equal(Steady(live())(frame).array, live()(frame).array)


def test_without_style_nothing_changes(live):
    steady = Steady(live(alpha=0.0))
    for frame in (image((20, 30), seed=i) for i in range(3)):
        assert (steady(frame).array == frame.array).all()


@pytest.mark.parametrize("channels, dtype", [(1, np.uint8), (2, np.uint16), (3, np.uint16), (4, np.uint8)])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_and_depth(live, size, channels, dtype):
    steady = Steady(live())
    frame = image(size, channels, dtype)
    for result in (steady(frame), steady(frame), steady(frame)):
        assert result.array.shape == (*size, 4 if channels in (2, 4) else 3) and result.array.dtype == dtype
        if channels in (2, 4):
            assert (result.array[..., 3] == frame.array[..., -1]).all()


def test_another_size_begins_anew(live):
    steady, other = Steady(live()), texture(50, 71)
    steady(texture())
    assert torch.equal(steady(other), Steady(live())(other))
    # Sizes that differ and are the same when halved.
    assert torch.equal(steady(other[..., :-1, :]), Steady(live())(other[..., :-1, :]))


def test_mask_colours_and_size_apply(live):
    mask = torch.zeros(96, 128)
    mask[:, 64:] = 1
    frames = noisy(3)
    for result, frame in zip(run(Steady(Restyler(live().method, live().style, mask=mask)), frames), frames):
        assert torch.equal(result[..., :64], frame[..., :64])
        assert (result[..., 64:] - frame[..., 64:]).abs().mean() > 0.05
    inside, outside = live(), live()
    outside.style = outside.outside
    found = run(Steady(live(mask=mask)), frames)
    for part, restyler in ((slice(64, None), inside), (slice(0, 64), outside)):
        for result, wanted in zip(found, run(Steady(restyler), frames), strict=True):
            torch.testing.assert_close(result[..., part], wanted[..., part])
    large = Steady(live(size=40, preserve_color="luminance"))
    assert [large(image((20, 30))).array.shape for _ in range(2)] == [(40, 60, 3)] * 2


# ---- going on ------------------------------------------------------------------------------------------------


def test_it_goes_on_bit_for_bit(live):
    options = {"mask": torch.rand(12, 16, generator=torch.Generator().manual_seed(0))}
    frames = pan(3, 1, 6)
    steady = Steady(live(**options))
    run(steady, frames[:3])
    kept = save({name: tensor.contiguous() for name, tensor in steady.state().items()})
    wanted = run(steady, frames[3:])
    other = Steady(live(**options))
    other.restore(load(kept))
    for result, expected in zip(run(other, frames[3:]), wanted, strict=True):
        assert torch.equal(result, expected)
    other.restore({})
    assert torch.equal(other(frames[0]), Steady(live(**options))(frames[0]))


def test_what_is_remembered_does_not_grow(live):
    steady, sizes = Steady(live()), []
    for frame in pan(3, 1, 6):
        steady(frame)
        sizes.append({name: tensor.shape for name, tensor in steady.state().items()})
    assert sizes[0] == sizes[-1] and sizes[0]["output.0"] == (1, 3, 96, 128)


@dataclass(frozen=True)
class Config:
    backbone: str = ""


class Descent(Method):
    """A method that learns on each picture, as gatys does; it fails when told to."""

    multiple, iterative, fails = 4, True, False

    def __init__(self):
        self.config, self.nets = Config(), torch.nn.ModuleDict()

    def apply(self, image, *, style=None, alpha=1.0):
        if self.fails:
            raise errors.TryAgain("out of memory")
        with torch.enable_grad():
            found = torch.zeros_like(image, requires_grad=True)
            (gradient,) = torch.autograd.grad((found * image - image).square().mean(), found)
        return image - 0 * gradient


def test_methods_that_learn_on_each_picture():
    steady, frames = Steady(Restyler(Descent())), pan(2, 2, 3)
    assert [result.shape for result in run(steady, frames)] == [(1, 3, 96, 128)] * 3


def test_a_frame_that_fails_is_not_remembered():
    steady = Steady(Restyler(Descent()))
    steady(texture())
    before = steady.state()
    steady.restyler.method.fails = True
    with pytest.raises(errors.TryAgain):
        steady(texture(seed=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in steady.state().items())


@pytest.mark.parametrize("name, config", [("johnson", {}), ("cyclegan", {"width": 8}), ("cut", {"width": 8})])
def test_statistics_of_other_methods_are_followed(name, config):
    torch.manual_seed(0)
    steady = Steady(Restyler(methods.create(name, config)))
    frames = pan(2, 2, 3, 48, 64)
    results = run(steady, frames)
    assert any(key.startswith("variance.") for key in steady.state())
    assert all(result.shape == (1, 3, 48, 64) and result.isfinite().all() for result in results)


def test_images_and_tensors_are_the_same(live):
    pictures = [infer.to_image(frame, image((96, 128)), None) for frame in pan(3, 1, 3)]
    tensors = [infer.to_tensor(picture)[0] for picture in pictures]
    of_pictures, of_tensors = Steady(live()), Steady(live())
    for picture, tensor in zip(pictures, tensors):
        wanted = infer.to_image(of_tensors(tensor), picture, None)
        assert (of_pictures(picture).array == wanted.array).all()
