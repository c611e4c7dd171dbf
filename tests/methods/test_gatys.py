"""gatys: better than plain L-BFGS on the same losses, steady at the edges, and clear about what is missing."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from styletools import backbones, errors, methods, stats
from styletools.methods.gatys import _gram_error, _Moments

LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]


@pytest.fixture
def pair():
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(40, 48), mode="bicubic").clamp(0, 1).split(1)


def restyle(content, style, alpha=1.0, **config):
    method = methods.create("gatys", {"steps": 6} | config)
    with torch.no_grad():
        return method.apply(content, style=method.encode_style([style], [1.0]), alpha=alpha)


def test_the_style_record_holds_statistics_that_add_up(slim, pair):
    method = methods.create("gatys")
    one, two = (method.encode_style([image], [1.0]) for image in pair)
    assert set(one) == {f"{layer}.{kind}" for layer in LAYERS for kind in ("mean", "moment")}
    for layer in LAYERS:
        channels = len(one[f"{layer}.mean"])
        assert one[f"{layer}.moment"].shape == (channels, channels)
    both = method.encode_style(list(pair), [3.0, 1.0])
    for key, value in both.items():
        torch.testing.assert_close(value, 0.75 * one[key] + 0.25 * two[key])
    network = backbones.load("slim")
    features = network(pair[0], ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(one["relu1_1.moment"], stats.moment(features)[0])


def test_the_style_loss_falls(slim, pair):
    seen = []
    method = methods.create("gatys", {"steps": 30, "scales": 1})
    method.progress = lambda step, steps, losses: seen.append((step, steps, losses))
    with torch.no_grad():
        method.apply(pair[0], style=method.encode_style([pair[1]], [1.0]))
    assert [(step, steps) for step, steps, _ in seen] == [(i, 30) for i in range(1, 31)]
    assert all(set(losses) == {"content", "style", "spread", "tv"} for *_, losses in seen)
    assert all(seen[-1][2][name] < 0.5 * seen[0][2][name] for name in ("style", "spread"))


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("start", ["content", "noise"])
def test_the_same_seed_gives_the_same_picture(slim, pair, optimizer, start):
    first = restyle(*pair, optimizer=optimizer, start=start)
    torch.manual_seed(99)
    assert torch.equal(first, restyle(*pair, optimizer=optimizer, start=start))
    other = restyle(*pair, optimizer=optimizer, start=start, seed=1)
    assert torch.equal(first, other) == (start == "content")


def test_alpha_goes_from_content_to_style(slim, pair):
    content = pair[0]
    assert torch.equal(restyle(*pair, alpha=0.0), content)
    moved = [float((restyle(*pair, alpha=alpha, steps=20) - content).abs().mean()) for alpha in (0.2, 1.0)]
    assert 0 < moved[0] < moved[1]
    with pytest.raises(errors.UsageError, match="alpha=2"):
        restyle(*pair, alpha=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (7, 5), (129, 65)])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_pictures_of_any_size(slim, pair, size, optimizer):
    content = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    result = restyle(content, pair[1], optimizer=optimizer, steps=4)
    assert result.shape == content.shape and torch.isfinite(result).all()
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_pictures_of_one_colour(slim, pair, value):
    flat = torch.full((1, 3, 16, 16), value)
    for content, style in ((flat, pair[1]), (pair[0], flat), (flat, flat)):
        assert torch.isfinite(restyle(content, style)).all()


def test_scales_share_the_steps(slim, pair):
    content = F.interpolate(pair[0], size=(128, 160))
    seen, sizes = [], set()
    method = methods.create("gatys", {"steps": 10, "scales": 3})
    method.progress = lambda step, steps, losses: seen.append(step)
    features = method._features

    def noted(image, space):
        sizes.add(tuple(image.shape[-2:]))
        return features(image, space)

    style = method.encode_style([pair[1]], [1.0])
    method._features = noted
    method.apply(content, style=style)
    assert seen == list(range(1, 11))
    assert sizes == {(128, 160), (64, 80)}, "a third size would be too small"


def test_starting_from_an_image(slim, pair, tmp_path):
    Image.new("L", (20, 10), 200).save(tmp_path / "grey.png")
    result = restyle(*pair, start=str(tmp_path / "grey.png"), steps=1)
    torch.testing.assert_close(result, torch.full_like(result, 200 / 255), rtol=0, atol=1e-5)
    Image.fromarray(np.full((10, 20), 51400, np.uint16)).save(tmp_path / "deep.png")
    assert torch.equal(restyle(*pair, start=str(tmp_path / "deep.png"), steps=1), result)
    with pytest.raises(errors.MissingInput, match="none.png: no such file"):
        restyle(*pair, start=str(tmp_path / "none.png"))
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(errors.DataError, match="bad.png: neither a picture"):
        restyle(*pair, start=str(tmp_path / "bad.png"))


def test_a_loss_that_is_no_number_ends_with_the_best_picture(slim, pair, capsys):
    method = methods.create("gatys", {"steps": 20, "scales": 1})
    style = method.encode_style([pair[1]], [1.0])
    features, calls = method._features, []

    def poisoned(image, space):
        calls.append(1)
        found = features(image, space)
        return {k: v * float("nan") for k, v in found.items()} if len(calls) > 8 else found

    method._features = poisoned
    result = method.apply(pair[0], style=style)
    assert torch.isfinite(result).all() and not torch.equal(result, pair[0])
    assert len(calls) == 9
    assert "the loss became nan at step 8" in capsys.readouterr().err


def test_steps_that_go_astray_are_taken_back(slim, pair):
    seen = []
    method = methods.create("gatys", {"steps": 40, "scales": 1, "lr": 30.0})
    method.progress = lambda step, steps, losses: seen.append(losses["style"])
    style = method.encode_style([pair[1]], [1.0])
    result = method.apply(pair[0], style=style)
    grams = [stats.gram_from_moment(record["relu1_1.moment"]) for record in (style, method.encode_style([result], [1]))]
    assert torch.isfinite(result).all()
    assert float((grams[0] - grams[1]).abs().max()) < float("inf")
    assert min(seen) < seen[0]


def test_a_style_that_does_not_fit(slim, pair):
    method = methods.create("gatys", {"steps": 2})
    style = method.encode_style([pair[1]], [1.0])
    less = {key: value for key, value in style.items() if not key.startswith("relu3_1")}
    with pytest.raises(errors.DoesNotFit, match=r"no statistics of relu3_1 \(it has relu1_1, relu2_1, relu4_1"):
        method.apply(pair[0], style=less)
    with pytest.raises(errors.DoesNotFit, match="no statistics of relu1_1"):
        method.apply(pair[0], style={"code": torch.zeros(9)})
    with pytest.raises(errors.DoesNotFit, match="statistics of relu2_1 are not of slim, which has 64 channels"):
        method.apply(pair[0], style=style | {"relu2_1.moment": torch.zeros(5, 5)})
    more = style | {"relu4_2.mean": torch.zeros(3), "relu4_2.moment": torch.zeros(3, 3)}
    assert torch.equal(method.apply(pair[0], style=more), method.apply(pair[0], style=style)), "more is no fault"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"style_layers": "relu1_1,relu9_1"}, "slim has no layer 'relu9_1'"),
        ({"style_layers": " , "}, "names no layer"),
        ({"content_layer": "conv4_1"}, "slim has no layer 'conv4_1'"),
        ({"backbone": "vgg11"}, "unknown backbone"),
        ({"finish": "vgg11"}, "unknown backbone"),
        ({"optimizer": "sgd"}, "lbfgs or adam"),
        ({"steps": 0}, "at least 1"),
        ({"scales": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_meant(config, message):
    with pytest.raises(errors.UsageError, match=message):
        methods.create("gatys", config)


@pytest.fixture
def short_vgg19(tmp_path, monkeypatch):
    """VGG-19 with random weights that stop at conv2_1."""
    from styletools.nn.vgg import VGG, VGG19, torchvision_index

    state = {}
    for conv, layer in VGG(VGG19, last="relu2_1").convs.items():
        for kind in ("weight", "bias"):
            state[f"{torchvision_index(VGG19, conv)}.{kind}"] = getattr(layer, kind).detach()
    torch.save(state, tmp_path / "vgg19.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))


def test_weights_that_stop_early(short_vgg19, pair, capsys):
    shallow = {"backbone": "vgg19", "content_layer": "relu2_1", "steps": 2}
    method = methods.create("gatys", shallow)
    style = method.encode_style([pair[1]], [1.0])
    method.apply(pair[0], style=style)
    assert set(style) == {"relu1_1.mean", "relu1_1.moment", "relu2_1.mean", "relu2_1.moment"}
    told = capsys.readouterr().err
    assert told.count("warning") == 1 and "vgg19 without relu3_1, relu4_1, relu5_1" in told
    method = methods.create("gatys", shallow | {"style_layers": "relu1_1,relu3_1"})
    with pytest.raises(errors.Unavailable, match="relu3_1 of vgg19 is not to be had: .* stop at relu2_1"):
        method.encode_style([pair[1]], [1.0])
    method = methods.create("gatys", {"backbone": "vgg19"})
    with pytest.raises(errors.Unavailable, match="relu4_1"):
        method.encode_style([pair[1]], [1.0])


def picture(path, size):
    with Image.open(path) as file:
        pixels = np.array(file.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().contiguous() / 255


def plain_lbfgs(network, content, style, layers, config, steps):
    """Minimise the same objective by torch's L-BFGS as it is; return the picture."""
    with torch.no_grad():
        kept = network(content, [config.content_layer])[config.content_layer]
        wanted = {layer: _statistics(x) for layer, x in network(style, layers).items()}
    image = content.contiguous().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=steps, max_eval=steps, tolerance_grad=0, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        total = _objective(network, image, kept, wanted, config)[0] * image.numel()
        total.backward()
        return total

    optimizer.step(closure)
    return image.detach().clamp(0, 1), kept, wanted


def _statistics(x):
    """Return the Gram matrix, and means and deviations."""
    flat = x[0].flatten(1)
    return flat @ flat.T / flat.numel(), torch.stack([flat.mean(1), (flat.var(1, correction=0) + 1e-5).sqrt()])


def _objective(network, image, kept, wanted, config):
    """Return the weighted total and the losses of style."""
    found = network(image, [*wanted])
    content = (found[config.content_layer] - kept).pow(2).mean() / kept.pow(2).mean()
    gram, spread = (
        sum((_statistics(found[k])[i] - w[i]).pow(2).mean() / w[i].pow(2).mean() for k, w in wanted.items())
        / len(wanted)
        for i in (0, 1)
    )
    style = config.style_weight * gram + config.spread_weight * spread
    rough = (image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean()) * config.tv_weight
    return config.content_weight * content + style + rough, style


@pytest.mark.slow
def test_better_than_plain_lbfgs_in_half_the_steps(weights, reference):
    content = picture(reference / "content" / "adain_golden_gate.jpg", (96, 80))
    style = picture(reference / "style" / "la_muse.jpg", (96, 96))
    steps = 100
    method = methods.create("gatys", {"backbone": "vgg19", "steps": steps})
    with torch.no_grad():
        ours = method.apply(content, style=method.encode_style([style], [1.0]))
    network, layers = backbones.load("vgg19"), LAYERS[:4]
    theirs, kept, wanted = plain_lbfgs(network, content, style, layers, method.config, 2 * steps)
    with torch.no_grad():
        (total, loss), (their_total, their_loss) = (
            map(float, _objective(network, x, kept, wanted, method.config)) for x in (ours, theirs)
        )
    print(f"total {total:.4f}, theirs {their_total:.4f}; style {loss:.5f}, theirs {their_loss:.5f}")
    assert total <= 0.98 * their_total
    assert loss <= 0.98 * their_loss


def test_the_gram_error_is_that_of_the_wide_matrices(slim, pair):
    """Computed narrowly, it is what the Gram matrices of the lifted features (before their ReLU) would say."""
    space = methods.create("gatys")._space("slim")
    network, layer = space.network, "relu3_1"
    wide, joint = [], []
    for image in pair:
        features = network(image, [layer])[layer]
        wide.append(stats.gram_matrix(network.heads[layer](features)))
        joint.append(space.style(layer, *_Moments.apply(features))[0])
    expected = (wide[0] - wide[1]).square().mean() / wide[1].square().mean()
    torch.testing.assert_close(_gram_error(*joint, space.metric(layer)), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(40, 48), (3, 5), (32, 64)])
def test_moments_and_their_gradient(kind, size):
    """They are what autograd makes of the plain formulas, as near as the type allows."""
    tolerance = 1e-5 if kind is torch.float32 else 0.02
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(1, 7, *size, generator=generator).contiguous(memory_format=torch.channels_last).to(kind)
    weights = torch.randn(7, generator=generator), torch.randn(7, 7, generator=generator)
    gradients = []
    for statistics in (_Moments.apply, lambda x: (stats.mean(x)[0], stats.moment(x)[0])):
        leaf = features.detach().clone().requires_grad_()
        found = statistics(leaf)
        gradients += torch.autograd.grad(sum((a * b).sum() for a, b in zip(found, weights)), leaf)
        for value, wanted in zip(found, (stats.mean(features)[0], stats.moment(features)[0])):
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, wanted, rtol=tolerance / 4, atol=1e-5)
    ours, theirs = (gradient.float() for gradient in gradients)
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_a_steep_start_does_not_stop_the_search(slim, pair):
    """Steps too long for the losses are shortened until they help, again and again."""
    seen = []
    method = methods.create("gatys", {"steps": 60, "scales": 1, "style_weight": 3000.0, "spread_weight": 3000.0})
    method.progress = lambda step, steps, losses: seen.append(losses["spread"])
    method.apply(pair[0], style=method.encode_style([pair[1]], [1.0]))
    assert min(seen[30:]) < 0.9 * min(seen[:30])


@pytest.fixture
def both(random_slim, tmp_path, monkeypatch):
    """A slim, and a VGG-19 to relu4_1, of random weights."""
    from styletools.nn.vgg import VGG, VGG19, torchvision_index

    state, generator = {}, torch.Generator().manual_seed(0)
    for conv, layer in VGG(VGG19, last="relu4_1").convs.items():
        for kind in ("weight", "bias"):
            value = torch.randn(getattr(layer, kind).shape, generator=generator) * 0.03
            state[f"{torchvision_index(VGG19, conv)}.{kind}"] = value
    torch.save(state, tmp_path / "vgg19.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", f"{tmp_path}:{random_slim}")


def test_another_network_does_the_last_size(both, pair, capsys):
    content, style = F.interpolate(pair[0], size=(128, 128)), pair[1]
    method, sizes = methods.create("gatys", {"steps": 5}), set()
    record, features = method.encode_style([style], [1.0]), method._features

    def noted(image, space):
        sizes.add((space.network.name, image.shape[-1]))
        return features(image, space)

    method._features = noted
    result = method.apply(content, style=record)
    assert sizes == {("slim", 64), ("vgg19", 128)}
    assert {key for key in record if key.startswith("vgg19.")} == {
        f"vgg19.{layer}.{kind}" for layer in LAYERS[:4] for kind in ("mean", "moment")
    }
    assert not torch.equal(result, restyle(content, style, finish="none", steps=5))
    assert "does all of the work" not in capsys.readouterr().err
    less = {key: value for key, value in record.items() if not key.startswith("vgg19.")}
    alone = methods.create("gatys", {"steps": 5}).apply(content, style=less)
    assert torch.equal(alone, restyle(content, style, finish="none", steps=5))
    assert "the style says nothing of vgg19: slim does all of the work" in capsys.readouterr().err


def test_without_its_weights_vgg19_is_not_waited_for(slim, pair, monkeypatch):
    monkeypatch.setattr(backbones, "download", lambda *args: pytest.fail("a download was tried"))
    assert not backbones.at_hand("vgg19") and backbones.at_hand("slim")
    assert torch.equal(restyle(*pair), restyle(*pair, finish="none"))
