"""What holds for every metric, however it measures."""

import importlib
import math
import re

import pytest
import torch
from metric_samples import look, picture

from styletools import errors, metrics
from styletools.metrics._look import Look

# What an untouched photograph scores, where the definition says so; and the painting, handed in as it is.
UNTOUCHED = {"style": 1, "content": 0, "ssim": 1, "psnr": 100, "lpips": 0, "cfsd": 0, "warp": 0}
PAINTING = {"style": 0, "content": 1, "color": 0, "fd": 0, "fid": 0}
NEEDS_PACKAGE = ("fid", "kid", "inception")


@pytest.fixture
def make(judges, critic):
    """Return a function that makes a metric by name, over random weights."""

    def make(name):
        if name in NEEDS_PACKAGE:
            pytest.importorskip("torch_fidelity")
        return metrics.create(metrics.parse(f"{name}:{critic}" if name == "adversarial" else name)[0])

    return make


def scores(metric, name, pairs):
    """Return all scores of outputs, contents and styles: of the last pair, and of the set."""
    needs, found = metrics.describe(name).needs, {}
    for output, content, style in pairs:
        found |= metric.pair(output, content if "content" in needs else None, style if "style" in needs else None)
    return found | metric.total()


def pairs(*sizes, still=False):
    """Return outputs, contents and styles; `still`: all of the same content, as the frames of a scene are."""
    return [(look(i, *s), look(10 if still else 10 + i, *s), look(20 + i, 33, 29)) for i, s in enumerate(sizes)]


def is_sequence(name):
    return metrics.describe(name).scope == "sequence"


@pytest.mark.parametrize("name", metrics.names())
def test_it_says_where_it_comes_from(name):
    text = importlib.import_module(f"styletools.metrics.{name}").__doc__
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|\b(19|20)\d\d\b|decibels", text)


@pytest.mark.parametrize("name", metrics.names())
def test_scores_are_plain_and_the_same_again(make, name):
    still = is_sequence(name)
    sizes = (40, 48), (40, 48) if still else (33, 50), (40, 48)
    found = scores(make(name), name, pairs(*sizes, still=still))
    assert "" in found and all(type(value) is float and math.isfinite(value) for value in found.values())
    again = scores(make(name), name, pairs(*sizes, still=still))
    assert found == pytest.approx(again, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", metrics.names())
@pytest.mark.parametrize("size", [(1, 1), (17, 23)], ids=str)
def test_small_pictures_are_scored(make, name, size):
    found = scores(make(name), name, pairs(size, size, still=is_sequence(name)))
    assert all(type(value) is float and not math.isinf(value) for value in found.values())
    assert not math.isnan(found[""]) or size == (1, 1)


@pytest.mark.parametrize("name", UNTOUCHED)
def test_the_untouched_photograph(make, name):
    shown = [(content, content, style) for _, content, style in pairs((40, 48), (40, 48), still=is_sequence(name))]
    assert scores(make(name), name, shown)[""] == pytest.approx(UNTOUCHED[name], abs=1e-5)


@pytest.mark.parametrize("name", PAINTING)
def test_the_painting_itself(make, name):
    shown = [(style, look(30 + i, 33, 29), style) for i, (_, _, style) in enumerate(pairs((1, 1), (1, 1), (1, 1)))]
    assert scores(make(name), name, shown)[""] == pytest.approx(PAINTING[name], abs=1e-5)


@pytest.mark.parametrize("name", [n for n in metrics.names() if not is_sequence(n)])
def test_better_is_better(make, name):
    """Noise laid over the photograph, or over the painting, is found to be worse by those that compare with it."""
    told = metrics.describe(name)
    if told.better == "neither" or not told.needs or name in ("adversarial", "artfid", "fid", "kid"):
        pytest.skip("nothing is known of such a pair beforehand")
    base = "style" if "style" in told.needs and name != "content" else "content"
    by = {}
    for amount in (0.02, 0.5):
        shown = []
        for i in range(3):
            content, style = look(10 + i), look(20 + i)
            image = (style if base == "style" else content).image
            noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(i)) * amount
            shown.append((Look((image + noise).clamp(0, 1)), content, style))
        by[amount] = scores(make(name), name, shown)[""]
    assert (by[0.02] < by[0.5]) == (told.better == "lower")


def test_what_is_nothing_over_nothing_is_not_a_number(make):
    same = look(1)
    for name in ("style", "content"):
        assert math.isnan(make(name).pair(look(2), same, same)[""])
    assert math.isnan(make("sharpness").pair(look(2), Look(torch.full((1, 3, 8, 8), 0.5)))["ratio"])
    assert math.isnan(make("diversity").total()[""]) and math.isnan(make("fd").total()[""])


def test_names_of_scores():
    keys = [spec.key for spec in metrics.parse("style,style:vgg16,lpips,fd,fid,diversity,cfsd")]
    assert keys == ["style", "style:vgg16", "lpips", "fd:slim", "fid", "diversity:squeezenet", "cfsd"]
    by = {spec.name: spec.network for spec in metrics.parse("style,lpips,fd,fid,psnr", backbone="vgg16")}
    assert by == {"style": "vgg16", "lpips": "squeezenet", "fd": "vgg16", "fid": "inception", "psnr": ""}
    with pytest.raises(errors.UsageError, match="style: style judges by cd16x, slim, vgg16"):
        metrics.parse("style", backbone="squeezenet")
    with pytest.raises(errors.UsageError, match="content:squeezenet: content judges by"):
        metrics.parse("content:squeezenet")


def test_small_pictures_are_continued_for_networks_that_need_it(judges):
    """As SqueezeNet needs it; those that do not are shown what they were."""
    from styletools.metrics import _look

    judge = _look.network("squeezenet")
    assert Look(picture(1, 3, 2)).features(judge, ("fire9",))["fire9"].shape == (1, 512, 1, 1)
    image = picture(1, 17, 40)
    assert torch.equal(Look(image).features(judge, ("fire9",))["fire9"], judge(image, ("fire9",))["fire9"])


def test_features_are_let_go_of_in_all_sizes(judges):
    from styletools.metrics import _look

    judge, whole = _look.network("squeezenet"), look(1)
    small = whole.fitted((20, 20))
    small.features(judge, ("fire9",))
    whole.forget()
    assert not small._features and whole.fitted((20, 20)) is small
