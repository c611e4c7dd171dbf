"""wct: closed-form style, which never fails, between decoders that learn to rebuild."""

import pytest
import torch

from styletools import backbones, errors, methods, stats

LEVELS = ["relu4_1", "relu3_1", "relu2_1", "relu1_1"]


def images(count, seed=0, size=(48, 64)):
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def made(**config):
    torch.manual_seed(0)
    method = methods.create("wct", config)
    method.nets.eval()
    return method


def restyle(method, content, style, alpha=1.0):
    with torch.no_grad():
        return method.apply(content, style=method.encode_style([style], [1.0]), alpha=alpha)


def test_transformed_features_have_the_covariance_of_the_style(slim):
    """Seen through a decoder that gives back what it is given, at a level with more pixels than channels."""
    method = made(levels="relu1_1")
    style = images(1, 1)
    seen = []
    method.nets["relu1_1"].forward = lambda features: seen.append(features) or images(1)
    restyle(method, torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1)), style)
    wanted = backbones.load("slim")(style, ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(stats.mean(seen[0]), stats.mean(wanted), rtol=1e-3, atol=1e-4)
    size = stats.covariance(wanted).abs().max()
    assert (stats.covariance(seen[0]) - stats.covariance(wanted)).abs().max() < 1e-3 * size


def test_the_style_record_adds_up(slim):
    method = made()
    one, two = (method.encode_style([image[None]], [1.0]) for image in images(2))
    assert set(one) == {f"{level}.{kind}" for level in LEVELS for kind in ("mean", "moment")}
    both = method.encode_style([images(2)[:1], images(2)[1:]], [3.0, 1.0])
    for key, value in both.items():
        torch.testing.assert_close(value, 0.75 * one[key] + 0.25 * two[key])


def test_alpha_0_is_rebuilding(slim):
    method, content = made(levels="relu2_1"), images(1)
    with torch.no_grad():
        rebuilt = method.nets["relu2_1"](backbones.load("slim")(content, ["relu2_1"])["relu2_1"]).clamp(0, 1)
    torch.testing.assert_close(restyle(method, content, images(1, 1), 0.0), rebuilt)
    whole, half = (restyle(method, content, images(1, 1), alpha) for alpha in (1.0, 0.5))
    assert (whole - rebuilt).abs().mean() > (half - rebuilt).abs().mean() > 0


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (8, 40), (16, 16)])
def test_pictures_of_one_colour_and_of_few_pixels(slim, value, size):
    method, flat = made(), torch.full((1, 3, *size), value)
    multiple = [max(side, method.multiple) for side in size]
    for content, style in ((torch.full((1, 3, *multiple), value), images(1)), (images(1), flat)):
        result = restyle(method, content, style)
        assert result.shape == content.shape and torch.isfinite(result).all()


def test_a_decomposition_that_does_not_converge(slim, monkeypatch):
    def fails(matrix):
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    assert torch.isfinite(restyle(made(), images(2), images(1, 1))).all()


@pytest.mark.parametrize(("levels", "multiple"), [("relu1_1", 1), ("relu3_1,relu1_1", 4), ("relu5_1", 16)])
def test_levels_of_choice(slim, levels, multiple):
    method = made(levels=levels)
    assert method.multiple == multiple and list(method.nets) == levels.split(",")
    assert torch.isfinite(restyle(method, images(1), images(1, 1))).all()


@pytest.mark.parametrize("levels", ["", "relu9_1", "relu1_1,relu1_1"])
def test_levels_that_cannot_be_meant(slim, levels):
    with pytest.raises(errors.UsageError):
        methods.create("wct", {"levels": levels})


def test_levels_beyond_the_weights(weights):
    with pytest.raises(errors.Unavailable, match="relu5_1 of vgg19 is not to be had: .* stop at relu4_1"):
        methods.create("wct", {"backbone": "vgg19", "levels": "relu5_1"})


def test_every_level_learns_to_rebuild(slim):
    method, batch = made(), {"images": images(2)}
    optimizers = method.optimizers()
    seen = [method.train_step(batch, optimizers, step) for step in range(25)]
    for level in LEVELS:
        first, last = (float(losses[f"{level}.pixels"].detach()) for losses in (seen[0], seen[-1]))
        assert last < 0.8 * first, level


@pytest.mark.slow
def test_it_works_with_vgg19(weights):
    method = made(backbone="vgg19", levels="relu4_1,relu1_1")
    optimizers = method.optimizers()
    seen = [float(method.train_step({"images": images(1)}, optimizers, s)["loss"].detach()) for s in range(6)]
    assert min(seen[3:]) < seen[0]
    assert torch.isfinite(restyle(method, images(1), images(1, 1))).all()
