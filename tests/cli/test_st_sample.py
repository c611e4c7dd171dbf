"""st-sample: pictures from noise."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import methods, modelfile, streams
from styletools.engine import sampling


@pytest.fixture(scope="module", params=["dcgan", "wgan_gp"])
def model(request, tmp_path_factory):
    """A model file of random weights, large enough for pictures that differ."""
    torch.manual_seed(0)
    method = methods.create(request.param, {"image_size": 16, "channels": 4, "z_dim": 6})
    for layer in method.nets["generator"].modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    modelfile.save(path, request.param, method)
    return path


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def test_a_folder(call, folder, model):
    assert call("st-sample", "-m", model, "-n", 5, "--seed", 1, "-o", "out/") == (0, b"", "")
    assert sorted(p.name for p in (folder / "out").iterdir()) == [f"seed1-{i:06}.png" for i in range(1, 6)]
    found = [read(path) for path in sorted((folder / "out").iterdir())]
    assert all(pixels.shape == (16, 16, 3) for pixels in found)
    assert all(np.abs(found[0] - other).max() > 20 for other in found[1:]), "no two alike"
    assert call("st-sample", "-m", model, "-n", 1, "--seed", 2, "-o", "out/", "--to", "jpeg")[0] == 0
    assert (folder / "out/seed2-000001.jpg").exists()


def test_a_picture_depends_on_seed_and_number_alone(call, folder, model):
    runs = {"a": [8], "b": [3], "c": [8, "--batch", 3], "d": [8, "--batch", 1], "e": [8, "--seed", 5]}
    for name, words in runs.items():
        assert call("st-sample", "-m", model, "-o", f"{name}-%d.png", "-n", *words)[0] == 0
    for i in range(1, 9):
        first = read(f"a-{i}.png")
        if i <= 3:
            assert (read(f"b-{i}.png") == first).all()
        for name in "cd":
            assert np.abs(read(f"{name}-{i}.png") - first).max() <= 1
        assert np.abs(read(f"e-{i}.png") - first).max() > 20


def test_a_sheet_has_them_in_rows(call, folder, model, records):
    assert call("st-sample", "-m", model, "-n", 5, "--sheet", "-o", "sheet.png")[0] == 0
    assert call("st-sample", "-m", model, "-n", 5, "-o", "%d.png")[0] == 0
    sheet = read("sheet.png")
    assert sheet.shape == (2 * 16, 3 * 16, 3)
    for i in range(5):
        cell = sheet[i // 3 * 16 : i // 3 * 16 + 16, i % 3 * 16 : i % 3 * 16 + 16]
        assert (cell == read(f"{i + 1}.png")).all()
    assert (sheet[16:, 32:] == 255).all()
    status, out, _ = call("st-sample", "-m", model, "-n", 5, "--sheet")
    assert status == 0 and (records(out)[0].array == sheet).all(), "to standard output"


@pytest.mark.parametrize(
    ("words", "start"), [([], b"\x89PNG"), (["--to", "ppm"], b"P6\n16 16"), (["--to", "y4m"], b"YUV4")]
)
def test_a_stream(call, folder, model, records, words, start):
    status, out, err = call("st-sample", "-m", model, "-n", 3, *words)
    assert (status, err) == (0, "") and out.startswith(start)
    assert [record.array.shape for record in records(out)] == [(16, 16, 3)] * 3


def test_an_archive_names_them(call, folder, model, records):
    assert call("st-sample", "-m", model, "-n", 2, "-o", "all.tar")[0] == 0
    assert [record.name for record in records("all.tar")] == ["seed0-000001.png", "seed0-000002.png"]


def test_a_walk_is_closed_and_steady(call, folder, model, records):
    status, out, _ = call("st-sample", "-m", model, "-n", 30, "--interpolate", "--points", 3, "--to", "ppm")
    assert status == 0
    frames = np.stack([record.array.astype(float) for record in records(out)])
    steps = np.abs(np.roll(frames, -1, 0) - frames).mean((1, 2, 3))
    apart = np.abs(frames[0] - frames[10]).mean()
    assert len(frames) == 30 and steps.max() < apart / 2, "the last leads to the first, too"
    assert call("st-sample", "-m", model, "-n", 3, "-o", "%d.png")[0] == 0
    for i in range(3):
        assert np.abs(frames[10 * i] - read(f"{i + 1}.png")).max() <= 1, "it goes through the pictures of the seed"


def test_truncation_brings_pictures_together(call, folder, model, records):
    def spread(*words):
        out = call("st-sample", "-m", model, "-n", 12, "--to", "ppm", *words)[1]
        return np.stack([record.array for record in records(out)]).std(0).mean()

    assert spread("--truncation", 0.1) < 0.5 * spread("--truncation", 1) < 0.5 * spread()
    plain = call("st-sample", "-m", model, "--to", "ppm")
    assert call("st-sample", "-m", model, "--to", "ppm", "--truncation", 100) == plain


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["-o", "x.png"], 2, "16 pictures for one file, x.png: --sheet, or x.png/"),
        (["-o", "x.jpg", "-n", "2"], 2, "2 pictures for one file"),
        (["-o", "x.safetensors"], 2, "safetensors cannot hold pictures"),
        (["-o", "x.xyz"], 2, "unknown extension"),
        (["--to", "npy"], 2, "npy cannot hold pictures"),
        (["-n", "0"], 2, "0"),
        (["--truncation", "0"], 2, "0"),
        (["--truncation", "nan"], 2, "nan"),
        (["--interpolate", "--points", "1"], 2, "1"),
        (["--device", "gpu"], 2, "unknown device"),
        (["-o", "file/out/"], 73, "not a directory"),
    ],
)
def test_what_cannot_be(call, folder, model, words, status, message):
    (folder / "file").touch()
    found, out, err = call("st-sample", "-m", model, *words)
    assert (found, out) == (status, b"") and message in err and len(err.splitlines()) == 1
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == ["file"]


def test_models_that_do_not_do(call, folder, live_model, model):
    status, _, err = call("st-sample", "-m", live_model, "-o", "out/")
    assert status == 2 and "live makes no pictures from noise: it applies to image+style" in err
    assert call("st-sample", "-m", "gone.safetensors")[0] == 66
    assert call("st-sample")[0] == 2
    (folder / "cut.safetensors").write_bytes(model.read_bytes()[:-100])
    assert call("st-sample", "-m", "cut.safetensors", "-o", "out/")[0] == 65
    assert not (folder / "out").exists()
    status, _, err = call("st-apply", "-m", model, "a.png", "-o", "b.png")
    assert status == 2 and "applies to noise" in err


def test_noise():
    z = torch.stack([sampling.latent(3, i, 100) for i in range(200)])
    assert z.shape == (200, 100) and z.dtype == torch.float32
    assert float(z.mean()) == pytest.approx(0, abs=0.03) and float(z.std()) == pytest.approx(1, abs=0.03)
    assert float((z > 1.96).float().mean()) == pytest.approx(0.025, abs=0.005)
    assert float(torch.corrcoef(z).fill_diagonal_(0).abs().max()) < 0.6, "each has noise of its own"
    assert torch.equal(z[7], sampling.latent(3, 7, 100)) and not torch.equal(z[7], sampling.latent(4, 7, 100))
    cut = torch.stack([sampling.latent(3, i, 100, 0.5) for i in range(200)])
    assert cut.abs().max() <= 0.5 and cut.std() > 0.25
    assert float(torch.corrcoef(torch.stack([z.flatten(), cut.flatten()]))[0, 1]) > 0.9
    assert torch.equal(sampling.latent(3, 7, 100, 50.0), z[7])


def test_great_circles():
    a, b = torch.tensor([2.0, 0, 0]), torch.tensor([0, 4.0, 0])
    half = sampling.slerp(a, b, 0.5)
    torch.testing.assert_close(half, 3 * torch.tensor([0.5**0.5, 0.5**0.5, 0]))
    torch.testing.assert_close(sampling.slerp(a, b, 0.0), a)
    torch.testing.assert_close(sampling.slerp(a, b, 1.0), b)
    torch.testing.assert_close(sampling.slerp(a, 2 * a, 0.5), 1.5 * a)
    assert torch.isfinite(sampling.slerp(a, -a, 0.5)).all()
    walk = torch.stack(list(sampling.walk(torch.eye(4), 40)))
    torch.testing.assert_close(walk[::10], torch.eye(4))
    torch.testing.assert_close(walk.norm(dim=1), torch.ones(40))
    angles = (walk * walk.roll(-1, 0)).sum(1).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, torch.full((40,), math.pi / 2 / 10), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (7, 3, 3), (16, 4, 4)])
def test_sheets(count, rows, columns):
    found = sampling.sheet(torch.full((3, 2, 5), i / 100) for i in range(count))
    assert found.shape == (3, rows * 2, columns * 5)
    image = sampling.to_image(found)
    assert isinstance(image, streams.Image) and image.array.dtype == np.uint8
    assert len(np.unique(image.array)) == count + (rows * columns > count)
