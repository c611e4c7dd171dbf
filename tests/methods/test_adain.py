"""adain: the features take over the style's statistics, and the decoder learns to paint them."""

import pytest
import torch

from styletools import backbones, errors, methods, modelfile, stats


def images(count, seed=0, size=(48, 64)):
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


@pytest.fixture
def method(slim):
    torch.manual_seed(0)
    made = methods.create("adain")
    made.nets.eval()
    return made


def test_the_target_has_the_statistics_of_the_style():
    generator = torch.Generator().manual_seed(0)
    content, style = (torch.rand(2, 7, 9, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    wanted = stats.mean_std(style * 3)
    found = stats.mean_std(stats.adapt(content, *wanted))
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-4)  # eps under the root


def test_the_style_record_is_that_of_the_features_and_mixes_linearly(method):
    one, two = (method.encode_style([image[None]], [1.0]) for image in images(2))
    average, deviation = stats.mean_std(backbones.load("slim")(images(2)[:1], ["relu4_1"])["relu4_1"])
    torch.testing.assert_close(one, {"mean": average[0], "std": deviation[0]})
    both = method.encode_style([images(2)[:1], images(2)[1:]], [3.0, 1.0])
    for key, value in both.items():
        torch.testing.assert_close(value, 0.75 * one[key] + 0.25 * two[key])


def test_alpha_acts_on_the_features(method):
    content, style = images(1), method.encode_style([images(1, 1)], [1.0])
    features = backbones.load("slim")(content, ["relu4_1"])["relu4_1"]
    with torch.no_grad():
        rebuilt = method.nets["decoder"](features).clamp(0, 1)
        torch.testing.assert_close(method.apply(content, style=style, alpha=0.0), rebuilt)
        whole, half = (method.apply(content, style=style, alpha=alpha) for alpha in (1.0, 0.5))
    assert (whole - rebuilt).abs().mean() > (half - rebuilt).abs().mean() > 0


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [(8, 8), (16, 64)])
def test_pictures_of_one_colour_and_small_ones(method, value, size):
    flat = torch.full((1, 3, *size), value)
    with torch.no_grad():
        for content, style in ((flat, images(1)), (images(1), flat), (flat, flat)):
            result = method.apply(content, style=method.encode_style([style], [1.0]))
            assert result.shape == content.shape and torch.isfinite(result).all()


def test_it_learns(method):
    batch = {"content": images(2), "style": images(2, 1)}
    optimizers = method.optimizers()
    seen = [float(method.train_step(batch, optimizers, step)["loss"].detach()) for step in range(25)]
    assert seen[-1] < 0.6 * seen[0]


def test_a_model_file_is_bound_to_its_encoder(method, tmp_path, monkeypatch):
    style = method.encode_style([images(1)], [1.0])
    before = method.apply(images(1), style=style)
    modelfile.save(tmp_path / "m.safetensors", "adain", method)
    loaded = modelfile.load(tmp_path / "m.safetensors")
    torch.testing.assert_close(loaded.apply(images(1), style=style), before)
    loaded = modelfile.load(tmp_path / "m.safetensors")
    with torch.no_grad():
        loaded._encoder.network.convs["conv1_1"].bias += 1
    with pytest.raises(errors.DoesNotFit, match="other weights of slim"):
        loaded.apply(images(1), style=style)


@pytest.mark.slow
def test_it_works_with_vgg19(weights):
    torch.manual_seed(0)
    method = methods.create("adain", {"backbone": "vgg19"})
    batch = {"content": images(1), "style": images(1, 1)}
    optimizers = method.optimizers()
    seen = [float(method.train_step(batch, optimizers, step)["loss"].detach()) for step in range(6)]
    assert min(seen[3:]) < seen[0]
    result = method.apply(images(1), style=method.encode_style([images(1, 1)], [1.0]))
    assert result.shape == images(1).shape
