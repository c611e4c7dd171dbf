"""johnson: learns its style, or several; leaves no grid; mixes the styles that it holds."""

import pytest
import torch

from styletools import backbones, errors, losses, methods, modelfile, stats

TINY = {"widths": "8,12,16", "blocks": 1, "kernel": 3}


def images(count, seed=0, size=(48, 48)):
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def made(**config):
    torch.manual_seed(0)
    return methods.create("johnson", TINY | config)


def trained(method, steps, **batch):
    optimizers = method.optimizers()
    return [
        {k: float(v.detach()) for k, v in method.train_step(batch, optimizers, step).items()} for step in range(steps)
    ]


def test_it_learns_and_leaves_no_grid(slim):
    method = made()
    method.take_styles([images(1, 5, (80, 100))])
    content = images(2)
    seen = trained(method, 40, content=content)
    assert seen[-1]["style"] < 0.7 * seen[0]["style"] and seen[-1]["loss"] < 0.7 * seen[0]["loss"]
    method.nets.eval()
    with torch.no_grad():
        assert losses.grid(method.apply(content), content) < 0.01


def test_the_targets_are_the_statistics_of_the_whole_style(slim):
    method, style = made(style_size=40), images(1, 5, (80, 100))
    method.take_styles([style])
    wanted = method._wanted({}, torch.zeros(2, dtype=torch.long))
    network = backbones.load("slim")
    small = torch.nn.functional.interpolate(style, (40, 50), mode="bicubic", antialias=True).clamp(0, 1)
    features = network(small, ["relu3_1"])
    average, deviation = stats.mean_std(network.lift(features)["relu3_1"])
    torch.testing.assert_close(wanted["relu3_1.mean"], average.expand(2, -1))
    torch.testing.assert_close(wanted["relu3_1.std"], deviation.expand(2, -1))
    head = network.heads["relu3_1"]
    gram = stats.gram_matrix(head(features["relu3_1"]))
    torch.testing.assert_close(wanted["relu3_1.gram"][:1], gram, rtol=1e-3, atol=1e-3 * float(gram.abs().max()))


def test_without_whole_styles_the_crops_tell(slim):
    method, style = made(), images(2, 3)
    wanted = method._wanted({"style": style}, torch.zeros(2, dtype=torch.long))
    average, _ = stats.mean_std(backbones.load("slim")(style, ["relu1_1"])["relu1_1"])
    torch.testing.assert_close(wanted["relu1_1.mean"], average.mean(0, keepdim=True))


def test_a_bank_of_styles(slim, tmp_path):
    method = made(styles="red,blue", gram_weight=0.0, content_weight=0.0, lr=0.03)
    red, blue = (0.5 * images(1, 5) + 0.5 * torch.eye(3)[i].view(1, 3, 1, 1) for i in (0, 2))
    method.take_styles([red, blue])
    trained(method, 60, content=images(2, size=(32, 32)))
    modelfile.save(tmp_path / "bank.safetensors", "johnson", method)
    bank = modelfile.load(tmp_path / "bank.safetensors")
    with torch.no_grad():
        shown = [bank.apply(images(1), style=bank.own_style(name)).mean((0, 2, 3)) for name in ("red", "blue")]
        mixed = stats.merge([bank.own_style("red"), bank.own_style("blue")], [1.0, 1.0])
        between = bank.apply(images(1), style=mixed).mean((0, 2, 3))
        each = bank.apply(images(1).expand(2, -1, -1, -1)).mean((2, 3))
    assert shown[0][0] > shown[0][2] + 0.1 and shown[1][2] > shown[1][0] + 0.1
    assert shown[1][0] < between[0] < shown[0][0]
    torch.testing.assert_close(each, torch.stack(shown))
    with pytest.raises(errors.DoesNotFit, match="no style 'green' in this model: it has red, blue"):
        bank.own_style("green")
    with pytest.raises(errors.UsageError, match="3 style images for a model of 2 styles"):
        method.take_styles([red] * 3)


def test_alpha_blends(slim):
    method, content = made(), images(1)
    with torch.no_grad():
        assert torch.equal(method.apply(content, alpha=0.0), content)
        whole, half = (method.apply(content, alpha=alpha) for alpha in (1.0, 0.5))
    torch.testing.assert_close(half, (whole + content) / 2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_pictures_of_one_colour(slim, value):
    method, flat = made(), torch.full((1, 3, 48, 48), value)
    method.take_styles([flat])
    assert all(v == v and abs(v) < float("inf") for v in trained(method, 2, content=flat)[-1].values())
    with torch.no_grad():
        assert torch.isfinite(method.apply(flat)).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widths": "16,32"}, "3 numbers"),
        ({"widths": "a,b,c"}, "3 numbers"),
        ({"kernel": 4}, "kernel must be odd"),
        ({"blocks": -1}, "not negative"),
        ({"styles": "a,b,a"}, "a name twice"),
        ({"backbone": "vgg11"}, "unknown backbone"),
        ({"style_layers": "relu9_1"}, "no layer"),
        ({"style_layers": ","}, "names no layer"),
    ],
)
def test_settings_that_cannot_be_meant(config, message):
    with pytest.raises(errors.UsageError, match=message):
        methods.create("johnson", config)


@pytest.mark.slow
def test_it_works_with_vgg19(weights):
    method = made(backbone="vgg19")
    method.take_styles([images(1, 5)])
    seen = trained(method, 10, content=images(1))
    assert min(entry["loss"] for entry in seen[5:]) < seen[0]["loss"]
