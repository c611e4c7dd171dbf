"""onnx: graphs of others, by what they compute, and what is found out about their colours and sizes."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from styletools import errors, log, methods, modelfile
from styletools.engine import export

SIDES = (1, 3, "h", "w")


@pytest.fixture
def graph(tmp_path):
    """Write a graph of a few nodes: graph(nodes, shape, tensors) is the path."""
    onnx = pytest.importorskip("onnx")

    def write(nodes, shape=SIDES, numbers=None, out=SIDES, kind=1, more=(), **metadata):
        helper = onnx.helper
        made = helper.make_graph(
            [helper.make_node(node[0], node[1].split(), [node[2]], **(node[3] if len(node) > 3 else {}))
             for node in nodes],
            "g",
            [helper.make_tensor_value_info("x", kind, shape), *(helper.make_tensor_value_info(*each) for each in more)],
            [helper.make_tensor_value_info("y", kind, out)],
            [helper.make_tensor(name, 1, (len(values),), np.array(values, np.float32).tobytes(), raw=True)
             for name, values in (numbers or {}).items()],
        )  # fmt: skip
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata)
        onnx.save(model, tmp_path / "g.onnx")
        return tmp_path / "g.onnx"

    return write


def image(height=48, width=64):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def contrast(factor):
    """Nodes that bring a picture to mean 0 and deviation `factor`, whatever its range, as networks with norms do."""
    return [("MeanVarianceNormalization", "x", "n", {"axes": [2, 3]}), ("Mul", "n f", "m")], {"f": [factor]}


def shown(x):
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, unbiased=False).sqrt() + 1e-9)


@pytest.mark.parametrize("kind", ["255", "1", "-1"])
@torch.no_grad()
def test_the_range_is_found_out(graph, kind):
    nodes, numbers = contrast(40.0 if kind == "255" else 1.0)
    last = {"255": ("Add", "m a", "y"), "1": ("Sigmoid", "m", "y"), "-1": ("Tanh", "m", "y")}[kind]
    path = graph([*nodes, last], numbers=numbers | {"a": [128.0]})
    expected = {
        "255": lambda x: (40 * shown(x) + 128) / 255, "1": lambda x: shown(x).sigmoid(),
        "-1": lambda x: (shown(x).tanh() + 1) / 2,
    }[kind](image())  # fmt: skip
    for model in (modelfile.load(path), modelfile.load(path, settings={"range": kind})):
        torch.testing.assert_close(model.apply(image()), expected.clamp(0, 1), rtol=0, atol=2e-3)
        assert model.multiple == 1
    other = modelfile.load(path, settings={"range": "1" if kind != "1" else "255"})
    assert not torch.allclose(other.apply(image()), expected.clamp(0, 1), atol=0.05), "an option rules"
    half = modelfile.load(path).apply(image(), alpha=0.5)
    torch.testing.assert_close(half, (expected.clamp(0, 1) + image()) / 2, rtol=0, atol=2e-3)


@torch.no_grad()
def test_the_multiple_is_found_out(graph):
    nodes = [("AveragePool", "x", "a", {"kernel_shape": [4, 4], "strides": [4, 4]}),
             ("Resize", "a  s", "y", {"mode": "nearest"})]  # fmt: skip
    onnx = pytest.importorskip("onnx")
    path = graph(nodes, numbers={"s": [1, 1, 4, 4]})
    model = onnx.load(path)
    del model.graph.node[1].input[:]
    model.graph.node[1].input.extend(["a", "", "s"])
    onnx.save(model, path)
    loaded = modelfile.load(path)
    assert loaded.multiple == 4
    expected = F.interpolate(F.avg_pool2d(image(), 4), scale_factor=4, mode="nearest")
    torch.testing.assert_close(loaded.apply(image()), expected, rtol=0, atol=1e-5)
    assert modelfile.load(path, settings={"multiple": 8}).multiple == 8


@torch.no_grad()
def test_rows_of_pixels_and_halves(graph):
    path = graph([("Sub", "o x", "y")], ("n", "h", "w", 3), {"o": [1.0]}, ("n", "h", "w", 3))
    torch.testing.assert_close(modelfile.load(path).apply(image()), 1 - image(), rtol=0, atol=1e-6)
    path = graph([("Identity", "x", "y")], kind=10)
    torch.testing.assert_close(modelfile.load(path).apply(image()), image(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"shape": (8, 3, "h", "w")}, "its graph takes 8 pictures at a time, not one"),
        ({"shape": (1, 1, "h", "w")}, "its graph takes 1x1xhxw of F32, not pictures of 1x3xHxW"),
        ({"shape": (1, 3, 64, "w")}, "its graph takes pictures of wx64: one side is free, one is not"),
        ({"shape": (1, 30)}, "its graph takes 1x30 of F32, not pictures"),
        ({"kind": 7}, "its graph takes 1x3xhxw of I64, not pictures"),
        ({"more": [("z", 1, (1,))]}, r"its graph takes 2 inputs \(x, z\), not one picture"),
        ({"nodes": [("AveragePool", "x", "y", {"kernel_shape": [2, 2], "strides": [2, 2]})]},
         "its graph gives pictures of another size or depth than it takes"),
        ({"nodes": [("Magic", "x", "y", {"domain": "com.example"})]}, "OpenVINO cannot run its graph: "),
        ({"styletools_graph": "1", "styles": "{}", "more": [("code", 1, (1,))]}, "its graph takes a style, too"),
    ],
)  # fmt: skip
def test_what_is_no_graph_of_pictures(graph, how, message):
    how = {"nodes": [("Identity", "x", "y")]} | how
    path = graph(how.pop("nodes"), **how)
    with pytest.raises(errors.DoesNotFit, match=f"g.onnx: {message}") as caught:
        modelfile.load(path)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_sides_of_minus_one_are_free(graph):
    path = graph([("Identity", "x", "y")], (1, 3, -1, -1), out=(1, 3, -1, -1))
    torch.testing.assert_close(modelfile.load(path).apply(image()), image(), rtol=0, atol=1e-6)


def test_numbers_in_other_files_are_not_read(graph, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(graph([("Add", "x w", "y")], numbers={"w": [1.0]}))
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(errors.DoesNotFit, match="e.onnx: its graph keeps numbers in other files"):
        modelfile.load(tmp_path / "e.onnx")


# ---- a published graph of one size, beside the checkpoint that it was made of ----------------------------------------


@pytest.fixture(scope="module")
def mosaic(peers):
    return peers("fns_web/mosaic_nc8_256x256.onnx").parent


def plain(state, x):
    """fast_neural_style, as its authors wrote it, on (1, 3, H, W) in [0, 255]."""
    def conv(x, key, norm, stride=1, up=1):
        weight, bias = (state[f"{key}.conv2d.{kind}"] for kind in ("weight", "bias"))
        x = F.interpolate(x, scale_factor=up, mode="nearest") if up > 1 else x
        x = F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4, mode="reflect"), weight, bias, stride=stride)
        return F.instance_norm(x, weight=state[f"{norm}.weight"], bias=state[f"{norm}.bias"]) if norm else x

    for i, stride in ((1, 1), (2, 2), (3, 2)):
        x = conv(x, f"conv{i}", f"in{i}", stride).relu()
    for i in range(1, 6):
        x = x + conv(conv(x, f"res{i}.conv1", f"res{i}.in1").relu(), f"res{i}.conv2", f"res{i}.in2")
    for i in (1, 2):
        x = conv(x, f"deconv{i}", f"in{i + 3}", up=2).relu()
    return conv(x, "deconv3", None)


@torch.no_grad()
def test_a_graph_of_one_size(mosaic, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(log, "warning", said.append)
    state = torch.load(mosaic / "mosaic_nc8.pth", weights_only=True)
    model = modelfile.load(mosaic / "mosaic_nc8_256x256.onnx")
    assert (model.multiple, model._runner.scale) == (1, 255.0)
    whole = image(256, 256)
    expected = (plain(state, 255 * whole) / 255).clamp(0, 1)
    torch.testing.assert_close(model.apply(whole), expected, rtol=0, atol=1e-3)
    # Smaller ones are mirrored at their edges up to it, which the wider picture shows.
    small = image(200, 120)
    rows, columns = ([min(i % (2 * side - 2), -i % (2 * side - 2)) for i in range(256)] for side in (200, 120))
    mirrored = small[:, :, rows][..., columns]
    torch.testing.assert_close(
        model.apply(small), (plain(state, 255 * mirrored) / 255).clamp(0, 1)[..., :200, :120], rtol=0, atol=1e-3
    )
    assert not said
    # Larger ones are scaled, once with a word on it.
    large = [model.apply(image(300, 512)) for _ in range(2)]
    assert large[0].shape == (1, 3, 300, 512) and len(said) == 1 and "takes 256x256 pixels" in said[0]
    reduced = F.interpolate(image(300, 512), (150, 256), mode="bicubic", antialias=True).clamp(0, 1)
    back = F.interpolate(model.apply(reduced), (300, 512), mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(large[0], back, rtol=0, atol=1e-3)
    # Kept as a model file of ours, it is the same.
    modelfile.save(tmp_path / "m.safetensors", "onnx", model)
    assert torch.equal(modelfile.load(tmp_path / "m.safetensors").apply(whole), model.apply(whole))


@torch.no_grad()
def test_graphs_of_ours_are_models_too(tmp_path):
    torch.manual_seed(0)
    method = methods.create("johnson", {"widths": "4,4,8", "blocks": 1})
    method.nets.eval()
    (tmp_path / "g.onnx").write_bytes(export.to_onnx(method, {"method": "johnson", "config": json.dumps({})}))
    model = modelfile.load(tmp_path / "g.onnx")
    assert model.multiple == 4
    torch.testing.assert_close(model.apply(image()), method.apply(image()), rtol=0, atol=1e-4)
