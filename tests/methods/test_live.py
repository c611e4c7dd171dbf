"""live: its training sees many colours, hears of noise, and starts from slim."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, methods, modelfile, stats
from styletools.methods import live as module

SMALL = {"channels": 8, "widths": "8"}


@pytest.fixture
def live():
    return modelfile.load("live")


def pictures(count, size=64, seed=0):
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def test_recoloured_pictures_keep_their_shapes_and_only_a_share_changes():
    images = pictures(64, 16)
    torch.manual_seed(0)
    changed = module._recoloured(images, 0.5)
    different = (changed - images).abs().amax((1, 2, 3)) > 1e-4
    assert 16 <= different.sum() <= 48
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(module._recoloured(images, 0.0), images)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    still_grey = module._recoloured(grey.clamp(0.35, 0.65), 1.0)
    assert (still_grey - still_grey.mean(1, keepdim=True)).abs().max() < 1e-4, "turning hues leaves grey alone"


def test_the_gain_of_noise_is_that_of_the_network(slim):
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    content = pictures(4)
    code = method.nets["encoder"](pictures(4, seed=1))
    with torch.no_grad():
        output = method.nets["trunk"](content, code)
        gain = float(method._noise_gain(content, code, output))
        noise = torch.randn(content.shape) * module.NOISE
        change = method.nets["trunk"](content + noise, code) - output
    expected = float(change.square().mean() / noise.square().mean())
    assert expected / 2 < gain < expected * 2


def test_it_starts_from_slim(slim):
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    batch = {"content": pictures(8), "style": pictures(8, seed=1)}
    method.initialize(batch)
    encoder = method.nets["encoder"]
    normal = (encoder.statistics(batch["style"]) - encoder.centre) / encoder.spread
    assert normal.mean().abs() < 0.1 and 0.1 < normal.std() < 2
    # What it sees tells the pictures' colours apart, as slim does.
    found = encoder.network(batch["style"], ["relu1_1"])["relu1_1"].detach().transpose(0, 1).flatten(1)
    assert torch.linalg.matrix_rank(torch.cov(found), rtol=1e-4) >= 3


def test_content_is_lost_where_features_know_nothing_of_it():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 5, 40, 40, generator=generator) * scale + shift for scale, shift in ((1, 0), (3, 2)))
    expected = module._unrelated(stats.mean_std(a), stats.mean_std(b))
    torch.testing.assert_close(expected, (a - b).square().mean((1, 2, 3)), rtol=0.05, atol=0)


def test_the_losses_are_shares_of_what_doing_nothing_would_give(slim):
    """A trunk that gives the photograph back has lost none of it, and is as far from the style as it was."""
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    method.nets["trunk"].forward = lambda images, code: images
    batch = {"content": pictures(4), "style": pictures(4, seed=1).pow(3)}
    method.nets["scales"].distance.fill_(1e-6)
    with torch.no_grad():
        named = method._losses(batch, learn=False, identity=False)
        assert named["content"] < 1e-6 and abs(float(named["style"]) - 1) < 1e-3
        method.nets["trunk"].forward = lambda images, code: batch["style"][-len(images) :]
        named = method._losses(batch, learn=False, identity=False)
        assert named["style"] < 1e-6 and 0.3 < named["content"] < 1.5


def test_a_refined_code_is_better_on_photographs_that_it_was_not_fitted_to(slim):
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    torch.nn.init.normal_(method.nets["encoder"].code.weight, std=0.1)
    photographs, style = pictures(6, 128).split(1), pictures(1, 128, seed=1).pow(3)
    record = method.encode_style([style], [1.0])
    refined = method.refine(record, [style], [1.0], photographs[:4])
    assert refined["code"].shape == record["code"].shape and not refined["code"].requires_grad
    with torch.no_grad():
        _, targets = method._look(style)
        before, after = (
            sum(float(method._total(method._compare(x, method._look(x), code["code"][None], targets)[1]))
                for x in photographs[4:]) for code in (record, refined)
        )  # fmt: skip
    assert after < 0.95 * before


@pytest.mark.parametrize("size", [(40, 56), (64, 72)])
def test_small_pictures_are_their_own_style(live, size):
    """With most of the style taken back they are near to what they were: edges are not taken for texture."""
    photograph = pictures(1, size)
    style = {"code": live.nets["encoder"](pictures(1, 256, seed=1)).detach()[0]}
    with torch.no_grad():
        assert (live.apply(photograph, style=style, alpha=1e-6) - photograph).abs().mean() < 0.25


@pytest.mark.parametrize("widths", ["16,", "a", "0", "8,-8", "8 8"])
def test_widths_that_are_none(widths):
    with pytest.raises(errors.UsageError, match="a number for each block"):
        methods.create("live", {"widths": widths})
