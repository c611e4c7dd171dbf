"""st-extract: features of pictures as records."""

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import __version__, backbones

pytestmark = pytest.mark.usefixtures("slim")

LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]


def pixels(path):
    array = np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def test_features_are_those_of_the_network(call, picture, records):
    picture("in/a.png", 40, 24)
    status, out, err = call("st-extract", "-l", "relu3_1,relu1_1,relu3_1", "in/a.png")
    assert (status, err) == (0, "")
    (record,) = records(out)
    network = backbones.load("slim")
    expected = network(pixels("in/a.png"), ["relu1_1", "relu3_1"])
    assert set(record.tensors) == {"relu1_1", "relu3_1"}
    for layer, tensor in expected.items():
        assert record.tensors[layer].dtype == np.float32
        np.testing.assert_allclose(record.tensors[layer], tensor[0].numpy(), atol=1e-5)
    assert record.meta == {
        "kind": "features", "name": "in/a.png", "backbone": "slim", "backbone_sha256": network.digest(),
        "layers": "relu1_1,relu3_1", "image_size": "40x24", "producer": f"styletools {__version__}",
    }  # fmt: skip


def test_lift_and_half(call, picture, records):
    picture("a.png", 40, 24)
    (record,) = records(call("st-extract", "--lift", "--half", "a.png")[1])
    network = backbones.load("slim")
    expected = network.lift(network(pixels("a.png"), LAYERS))
    for layer, tensor in expected.items():
        assert record.tensors[layer].dtype == np.float16
        np.testing.assert_allclose(record.tensors[layer], tensor[0].detach().numpy(), rtol=1e-3, atol=1e-3)
    assert record.meta["lifted"] == "true" and record.tensors["relu1_1"].shape == (64, 24, 40)
    assert call("st-extract", "--lift", "-l", "relu1_1,relu1_2", "a.png")[0] == 2


def test_a_pipe_of_pictures_is_a_pipe_of_records(call, folder, picture, records):
    data = b"".join(picture(f"{i}.ppm", 8 + i, 6, seed=i).read_bytes() for i in range(3))
    status, out, _ = call("st-extract", "-l", "relu1_1", stdin=data)
    found = records(out)
    assert status == 0
    assert [record.meta["image_size"] for record in found] == ["8x6", "9x6", "10x6"]
    alone = records(call("st-extract", "-l", "relu1_1", "2.ppm")[1])[0]
    np.testing.assert_allclose(found[2].tensors["relu1_1"], alone.tensors["relu1_1"], atol=1e-6)
    assert call("st-extract", stdin=b"")[:2] == (0, b"")


def test_folder_of_records(call, folder, picture, records):
    picture("in/a.png")
    picture("in/b/c.jpg")
    assert call("st-extract", "in", "-o", "out/", "-l", "relu1_1")[0] == 0
    assert sorted(str(p) for p in (folder / "out").rglob("*.*")) == [
        str(folder / "out/a.safetensors"),
        str(folder / "out/b/c.safetensors"),
    ]
    assert records("out/b/c.safetensors")[0].name == "in/b/c.jpg"


def test_size_scales_the_short_side(call, picture, records):
    picture("a.png", 40, 20)
    (record,) = records(call("st-extract", "--size", "30", "-l", "relu1_1", "a.png")[1])
    assert record.meta["image_size"] == "60x30" and record.tensors["relu1_1"].shape[1:] == (30, 60)


def test_alpha_lies_over_white_and_depth_is_used(call, folder, records):
    rng = np.random.default_rng(0)
    clear = rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    clear[..., 3] = 0
    Image.fromarray(clear).save("clear.png")
    Image.fromarray(np.full((6, 8, 3), 255, np.uint8)).save("white.png")
    grey = rng.integers(0, 65536, (6, 8), dtype=np.uint16)
    Image.fromarray(grey).save("grey.png")
    found = {}
    for name in ("clear", "white", "grey"):
        (record,) = records(call("st-extract", "-l", "relu1_1", f"{name}.png")[1])
        found[name] = record.tensors["relu1_1"]
    np.testing.assert_array_equal(found["clear"], found["white"])
    exact = torch.from_numpy(grey.astype(np.float32) / 65535).expand(1, 3, 6, 8)
    expected = backbones.load("slim")(exact, ["relu1_1"])["relu1_1"][0]
    np.testing.assert_allclose(found["grey"], expected.numpy(), atol=1e-6)


def test_the_smallest_picture_has_all_layers(call, picture, records):
    picture("a.png", 1, 1)
    (record,) = records(call("st-extract", "a.png")[1])
    assert list(record.tensors) == LAYERS and record.tensors["relu5_1"].shape == (128, 1, 1)


def test_what_cannot_be_meant(call, picture, folder):
    picture("a.png")
    for words, message in [
        (["-l", "relu9_1"], "slim has no layer 'relu9_1'"),
        (["-b", "nope"], "'nope' is not one of"),
        (["--to", "png"], "png cannot hold tensors"),
        (["-o", "x.jpg"], "jpeg cannot hold tensors"),
        (["--device", "gpu"], "unknown device"),
        (["--size", "0"], "--size"),
    ]:
        status, out, err = call("st-extract", *words, "a.png")
        assert (status, out) == (2, b"") and message in err, words


def test_tensors_are_no_pictures(call, picture):
    picture("a.png")
    _, features, _ = call("st-extract", "-l", "relu1_1", "a.png")
    status, out, err = call("st-extract", stdin=features)
    assert (status, out) == (65, b"") and "holds tensors, not a picture" in err


def test_weights_that_are_not_there_are_told_once(call, picture, monkeypatch):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", "")
    picture("a.png")
    picture("b.png")
    status, _, err = call("st-extract", "-b", "vgg16", "a.png", "b.png")
    assert status == 69 and err.count("\n") == 1 and "vgg16" in err


def test_weights_that_stop_early(call, picture, records, weights, monkeypatch):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(weights))
    picture("a.png", 32, 32)
    status, out, err = call("st-extract", "-v", "-b", "vgg19", "a.png")
    assert status == 0 and list(records(out)[0].tensors) == LAYERS[:4]
    assert "stop at relu4_1" in err
    status, _, err = call("st-extract", "-b", "vgg19", "-l", "relu5_1", "a.png")
    assert status == 69 and "relu5_1" in err and err.count("\n") == 1
