"""live: its training sees many colours, hears of noise, and starts from slim."""

import pytest
import torch
from torch.nn import functional as F

from styletools import backbones, errors, losses, methods, modelfile, stats
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
    assert ((changed - changed.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-6).any(), "some are grey"
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    still_grey = module._recoloured(grey.clamp(0.35, 0.65), 1.0)
    assert (still_grey - still_grey.mean(1, keepdim=True)).abs().max() < 1e-4, "turning hues leaves grey alone"


def test_sharpened_pictures_have_more_contrast_between_neighbours_only():
    images = pictures(64, 16)
    torch.manual_seed(0)
    changed = module._sharpened(images, 0.5)
    different = (changed - images).abs().amax((1, 2, 3)) > 1e-4
    assert 16 <= different.sum() <= 48 and changed.min() >= 0 and changed.max() <= 1
    steps = [(x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)) for x in (changed, images)]
    assert (steps[0] >= steps[1] - 1e-6).all() and (changed - images).mean((1, 2, 3)).abs().max() < 0.02


def test_mixed_statistics_are_those_of_both_images_together():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(3, 5, 8, 8, generator=generator) * torch.tensor([1.0, 2, 3])[:, None, None, None]
    torch.manual_seed(0)
    (mixed,) = module._some_mixed([{"x": stats.mean_std(features)}], 1.0, keep=1)
    mean, std = mixed["x"]
    own = stats.mean_std(features)
    torch.testing.assert_close((mean[0], std[0]), (own[0][0], own[1][0]), msg="the first is kept")
    share = float((mean[1, 0] - own[0][1, 0]) / (own[0][2, 0] - own[0][1, 0]))
    assert 0 < share < 1
    moment = (1 - share) * features[1].square().mean((1, 2)) + share * features[2].square().mean((1, 2))
    torch.testing.assert_close(mean[1].square() + std[1].square(), moment, rtol=1e-3, atol=0)


def test_all_that_is_learnt_is_reached_by_the_losses(slim):
    """Every parameter has a gradient, of mixed styles and of corrected codes, too."""
    torch.manual_seed(0)
    method = methods.create("live", SMALL | {"mixed": 1.0})
    batch = {"content": pictures(3), "style": pictures(3, seed=1)}
    method.initialize(batch)
    torch.nn.init.normal_(method.nets["encoder"].correction.weight)
    torch.nn.init.normal_(method.nets["encoder"].deeper[1].weight)
    method._losses(batch, learn=True)["loss"].backward()
    assert not [name for name, each in method.nets.named_parameters() if each.grad is None or not each.grad.any()]


def test_the_gain_of_noise_is_that_of_the_network(slim):
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    content = pictures(4)
    code = method._encode(pictures(4, seed=1))
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
    normal = encoder.normal(encoder.statistics(batch["style"]))
    assert normal.mean().abs() < 0.1 and 0.1 < normal.std() < 2
    assert 0.1 < encoder.probe.std() < 0.4, "there is something to try codes on"
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


def test_the_probe_is_like_a_photograph_and_always_the_same():
    probe = module._dead_leaves(64)
    assert torch.equal(probe, module._dead_leaves(64)) and probe.shape == (1, 3, 64, 64)
    assert 0 <= probe.min() < 0.1 and 0.9 < probe.max() <= 1
    # Twice as coarse it varies nearly as much: there are things of all sizes.
    coarse = F.avg_pool2d(probe, 2).std((2, 3)) / probe.std((2, 3))
    assert (coarse > 0.85).all()


def test_corrections_bring_the_style_nearer(live, monkeypatch):
    """Another network than that by which they are found says so, too."""
    judge, photograph = backbones.load("slim"), pictures(1, 256)
    styles = [pictures(1, 256, seed).pow(power) for seed, power in ((1, 3.0), (2, 0.4), (3, 1.0))]

    def seen(picture):
        features = judge(picture, module.STYLE_LAYERS)
        return [stats.mean_std(features[layer]) for layer in module.STYLE_LAYERS]

    def left():
        made = [live.apply(photograph, style=live.encode_style([style], [1.0])) for style in styles]
        return sum(
            float(losses.mean_std_distance(found, wanted) / losses.mean_std_distance(before, wanted))
            for picture, style in zip(made, styles)
            for found, wanted, before in zip(seen(picture), seen(style), seen(photograph))
        )

    with torch.no_grad():
        corrected = left()
        monkeypatch.setattr(module, "LOOKS", 0)
        assert corrected < 0.95 * left()


def test_what_is_neither_painting_nor_photograph_is_not_corrected_without_end(live):
    encoder, trunk = live.nets["encoder"], live.nets["trunk"]
    with torch.no_grad():
        for style in (pictures(1, 256), torch.rand(1, 3, 192, 192), torch.zeros(1, 3, 192, 192)):
            code, guess = encoder(encoder.statistics(style), trunk)
            assert 0 < (code - guess).abs().max() <= 1.001 * module.FARTHEST


@pytest.mark.parametrize("size", [(40, 56), (64, 72)])
def test_small_pictures_are_their_own_style(live, size):
    """With most of the style taken back they are near to what they were: edges are not taken for texture."""
    photograph = pictures(1, size)
    with torch.no_grad():
        style = live.encode_style([pictures(1, 256, seed=1)], [1.0])
        assert (live.apply(photograph, style=style, alpha=1e-6) - photograph).abs().mean() < 0.25


@pytest.mark.parametrize("optimizer", module.OPTIMIZERS)
def test_every_optimizer_trains(optimizer):
    """In bfloat16 as in training, and what it corrects with, too."""
    torch.manual_seed(0)
    live = methods.create("live", {"channels": 8, "widths": "8", "optimizer": optimizer})
    batch = {"content": pictures(2, 64), "style": pictures(2, 64, seed=1)}
    live.initialize(batch)
    optimizers, before = live.optimizers(), {key: x.clone() for key, x in live.nets.named_parameters()}
    for step in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            named = live.train_step(batch, optimizers, step)
        assert named["loss"].isfinite()
    after = dict(live.nets.named_parameters())
    same = [key for key, x in before.items() if torch.equal(after[key], x)]
    assert not same


def test_an_optimizer_that_is_none():
    with pytest.raises(errors.UsageError, match="optimizer=sgd: adam or soap expected"):
        methods.create("live", {"optimizer": "sgd"})


@pytest.mark.parametrize("widths", ["16,", "a", "0", "8,-8", "8 8"])
def test_widths_that_are_none(widths):
    with pytest.raises(errors.UsageError, match="numbers expected, as 16,"):
        methods.create("live", {"widths": widths})
