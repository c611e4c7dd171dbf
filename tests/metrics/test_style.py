"""Style and content against their formulas, written plainly, and what they say of known pictures."""

import math

import pytest
import torch
from metric_samples import look

from styletools import backbones, metrics, streams
from styletools.engine import infer
from styletools.metrics._look import LAYERS, Look, fit

OUTPUT, CONTENT, STYLE = look(1), look(2), look(3)


def create(word):
    return metrics.create(metrics.parse(word)[0])


def lifted(judge, image):
    with torch.no_grad():
        return {layer: x[0].flatten(1).double() for layer, x in judge.lift(judge(image, LAYERS)).items()}


def moments(x):
    return torch.cat([x.mean(1), (x.var(1, correction=0) + 1e-5).sqrt()])


def gram(x):
    return x @ x.T / x.numel()


def test_they_are_what_they_are_defined_as():
    judge = backbones.load("slim")
    o, c, s = (lifted(judge, each.image) for each in (OUTPUT, CONTENT, STYLE))
    expected = {}
    for layer in LAYERS:
        for part, measure in ((layer, moments), (f"gram.{layer}", gram)):
            far, near = (
                (measure(x[layer]) - measure(s[layer])).square().sum().item() for x in (c, o)
            )
            expected[part] = near / far
    expected[""] = sum(expected[layer] for layer in LAYERS) / 4
    expected["gram"] = sum(expected[f"gram.{layer}"] for layer in LAYERS) / 4
    assert create("style").pair(OUTPUT, CONTENT, STYLE) == pytest.approx(expected, rel=1e-3)
    lost = (o["relu4_1"] - c["relu4_1"]).square().mean()
    content = {
        "": lost / (s["relu4_1"] - c["relu4_1"]).square().mean(), "mse": lost / c["relu4_1"].square().mean(),
    }  # fmt: skip
    found = create("content").pair(OUTPUT, CONTENT, STYLE)
    assert found == pytest.approx({key: float(value) for key, value in content.items()}, rel=1e-3)


def test_a_style_of_another_size_is_compared_from_its_middle():
    wide = look(3, 40, 100)
    middle = Look(wide.image[..., 26:74].contiguous())
    assert create("content").pair(OUTPUT, CONTENT, wide) == create("content").pair(OUTPUT, CONTENT, middle)


def test_statistics_are_found_out_once(monkeypatch):
    metric, passes = create("style"), []
    forward = metric.judge.network.forward
    monkeypatch.setattr(metric.judge.network, "forward", lambda *a: passes.append(1) or forward(*a))
    content, style = look(2), look(3)
    for seed in range(3):
        metric.pair(look(10 + seed), content, style)
        for seen in (content, style):
            seen.forget()
    assert len(passes) == 3 + 2


def test_slim_says_what_vgg19_says(weights, reference):
    """On real pictures scores by slim, lifted, are within a tenth of the untouched photograph's of those by VGG-19."""
    def read(path):
        return Look(fit(infer.to_tensor(streams.open_image(reference / path))[0], (256, 256)))

    content, style = read("content/adain_avril.jpg"), read("style/brushstrokes.jpg")
    half = Look((content.image + style.image) / 2)
    for name, bound in (("style", 0.1), ("content", 0.1), ("cfsd", 0.02)):
        slim, vgg19 = (create(f"{name}:{by}").pair(half, content, style)[""] for by in ("slim", "vgg19"))
        assert slim == pytest.approx(vgg19, abs=bound) and not math.isnan(slim)
