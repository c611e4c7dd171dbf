"""The bundled models: how large they are, what they say of themselves, and how good they are."""

import csv
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from styletools import backbones, files, losses, methods, metrics, modelfile, onnxfile, streams
from styletools.engine import evaluate, graph, infer, styles
from styletools.metrics._look import Look

ZOO = files.zoo_dir()
ROOT = Path(__file__).parents[1]
LARGEST = {
    "live.safetensors": 3_000_000, "live.onnx": 3_000_000, "slim.safetensors": 4_000_000, "styles.safetensors": 200_000,
}  # fmt: skip


@pytest.fixture
def looks():
    """What reads reference pictures: their middle squares, at 512 pixels."""
    return evaluate.Looks(size=512, square=True)


@pytest.mark.parametrize("name", LARGEST)
def test_files_are_small(name):
    assert (ZOO / name).stat().st_size <= LARGEST[name]


@pytest.mark.parametrize("name", ["live", "slim"])
def test_models_say_where_they_come_from(name):
    header = modelfile.check(ZOO / f"{name}.safetensors")
    assert all(header[key] for key in ("method", "config", "step", "version", "created_by", "trained_on", "licence"))
    assert not any(str(Path.home()) in value or "/work" in value for value in header.values())


def test_named_styles_are_the_works_of_the_table_and_fit_live():
    with open(ZOO / "works.tsv", encoding="utf-8", newline="") as file:
        works = [row["name"] for row in csv.DictReader(file, delimiter="\t")]
    bundled = styles.bundled()
    assert sorted(bundled) == sorted(works) and len(works) >= 24
    digest = modelfile.digest(ZOO / "live.safetensors")
    assert {record["model_sha256"] for record in bundled.values()} == {digest}


def test_every_model_that_can_has_its_graph():
    for name, path in modelfile.bundled().items():
        if methods.describe(modelfile.check(path)["method"]).has_graphs:
            digest = modelfile.digest(path)
            assert graph.find(path, digest) == ZOO / f"{name}.onnx", "st-model export makes it anew"
            told = onnxfile.read_metadata(ZOO / f"{name}.onnx")
            header = modelfile.check(path)
            assert all(told[key] == header[key] for key in ("method", "config", "trained_on", "licence"))


@pytest.fixture(scope="module")
def live():
    return modelfile.load("live")


def named(live, name):
    """Return the style record of a bundled style."""
    digest = modelfile.digest(ZOO / "live.safetensors")
    return styles.encode(live, styles.parse([name]), method_name="live", model_digest=digest)


@pytest.mark.parametrize("name", ["great-wave", "starry-night", "the-scream"])
def test_flat_areas_have_no_grid(live, name):
    style = named(live, name)
    x = torch.linspace(0.2, 0.8, 256)
    photograph = torch.stack([x.expand(256, 256), x.flip(0).expand(256, 256), x[:, None].expand(256, 256)])[None]
    with torch.no_grad():
        result = live.apply(photograph, style=style)
    assert losses.grid(result, photograph, window=16).item() < 2 / 255


def test_alpha_of_nothing_rebuilds_the_photograph_roughly(live):
    """The code of the photograph itself, to which alpha leads, keeps it recognisable."""
    generator = torch.Generator().manual_seed(0)
    photograph = F.interpolate(torch.rand(1, 3, 12, 12, generator=generator), 192, mode="bicubic").clamp(0.05, 0.95)
    with torch.no_grad():
        style = named(live, "the-scream")
        errors = [(live.apply(photograph, style=style, alpha=a) - photograph).abs().mean() for a in (0.0, 0.5, 1.0)]
    assert errors[0] < errors[2]


@pytest.mark.slow
def test_live_on_styles_it_never_saw(live, looks, reference, weights):
    """On reference pairs, 512 pixels, judged by VGG-19."""
    evaluation = evaluate.Evaluation(metrics.parse("style:vgg19,content:vgg19"), controls=False)
    rows = [line.split("\t") for line in (reference / "pairs.tsv").read_text().splitlines()[1:]]
    for names in rows[7 :: len(rows) // 8]:
        content, style = (looks.read(str(reference / name)) for name in names)
        with torch.no_grad():
            output = live.apply(content.image, style=live.encode_style([style.image], [1.0]))
        evaluation.add(Look(output), content, style)
    scores = evaluation.summary()["scores"]
    assert scores["style:vgg19"] <= 0.18 and scores["content:vgg19"] <= 0.6


@pytest.mark.slow
def test_live_does_not_make_noise_louder(live, looks, reference):
    """Gaussian noise of 2/255 comes out at most half as strong again, on average over pairs."""
    gains = []
    rows = [line.split("\t") for line in (reference / "pairs.tsv").read_text().splitlines()[1:]]
    generator = torch.Generator().manual_seed(0)
    for names in rows[3::29]:  # nine of the twelve styles
        content, style = (looks.read(str(reference / name)).image for name in names)
        noisy = (content + torch.randn(content.shape, generator=generator) * 2 / 255).clamp(0, 1)
        with torch.no_grad():
            code = live.encode_style([style], [1.0])
            change = live.apply(noisy, style=code) - live.apply(content, style=code)
        gains.append(float((change.square().mean() / (noisy - content).square().mean()).sqrt()))
    assert sum(gains) / len(gains) <= 1.5, gains


@pytest.mark.slow
def test_slim_stands_in_for_vgg19(reference, weights):
    """On photographs and paintings that it never saw."""
    # Not what a STYLETOOLS_WEIGHTS may hold under that name: what is bundled.
    slim = backbones.load("slim")
    assert slim.source == str(ZOO / "slim.safetensors")
    judge = backbones.load("vgg19")
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    pairs = {layer: [] for layer in layers}
    for path in sorted((reference / "content").glob("*.jpg"))[::4]:
        image = infer.resize(infer.to_tensor(streams.open_image(path))[0], 256)
        with torch.no_grad():
            truth, found = judge(image, layers), slim.lift(slim(image, layers))
        for layer in layers:
            pairs[layer].append(torch.stack([truth[layer].flatten(), found[layer].flatten()]))
    found = {layer: torch.corrcoef(torch.cat(parts, 1))[0, 1].item() for layer, parts in pairs.items()}
    least = {"relu1_1": 0.98, "relu2_1": 0.95, "relu3_1": 0.95, "relu4_1": 0.92}
    assert all(found[layer] >= least[layer] for layer in layers), found
