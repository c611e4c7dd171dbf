"""Methods as ONNX graphs: what they compute, and that others can read them."""

import json

import numpy as np
import pytest
import torch

from styletools import errors, methods, modelfile, onnxfile, streams
from styletools.engine import export, graph, infer, styles

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SMALL = {
    "live": {"channels": 8, "widths": "8,8"}, "johnson": {"styles": "one,two", "widths": "4,8,12", "blocks": 1},
    "cyclegan": {"width": 4, "blocks": 1}, "cut": {"width": 4, "blocks": 1}, "retention": {"widths": "8,6,4"},
    "microast": {"channels": 2},
}  # fmt: skip
EXPORTED = [name for name in methods.names() if methods.describe(name).has_graphs]


def make(name):
    """Return a small untrained method that depends on its style."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.create(name, SMALL.get(name))
        for key, value in method.nets.state_dict().items():
            if "code.weight" in key or "scale" in key or "shift" in key:
                value.normal_(0, 0.2)
            elif name == "adain" and value.is_floating_point():
                value.mul_(0.7)  # an untrained decoder goes far beyond [0, 1]
    method.nets.eval()
    return method


def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", EXPORTED)
def test_the_same_as_torch(name):
    """Of every part, for any size, in an engine of others."""
    method = make(name)
    data, graphs = export.to_onnx(method, {}), method.graphs()
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    found = session(data)
    for sides in (16, 16), (20, 52), (128, 96):
        size = [-(-side // method.multiple) * method.multiple for side in sides]
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            own = list(graphs.styles.values()) or [{}]
            record = method.encode_style([image], [1.0]) if graphs.encode else own[-1]
            wanted = method.apply(image, style=record).clamp(0, 1)
        given = {key: value.numpy() for key, value in record.items()} | {"image": image.numpy() * 255}
        result = dict(zip([each.name for each in found.get_outputs()], found.run(None, given)))
        assert abs(result["picture"] / 255 - wanted.numpy()).max() <= 1e-3
        assert result["picture"].min() >= 0 and result["picture"].max() <= 255
        for key, value in record.items() if graphs.encode else ():
            assert abs(result[f"style.{key}"] - value.numpy()).max() <= 1e-3 * max(1, value.abs().max())


def test_metadata_tell_how_it_is_used(tmp_path):
    method = make("johnson")
    (tmp_path / "x.onnx").write_bytes(export.to_onnx(method, {"method": "johnson"}))
    metadata = onnxfile.read_metadata(tmp_path / "x.onnx")
    theirs = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert metadata == theirs
    assert metadata["styletools_graph"] == graph.VERSION and metadata["multiple"] == "4"
    assert json.loads(metadata["styles"]) == {"one": {"mixture": [1, 0]}, "two": {"mixture": [0, 1]}}


def test_sixteen_bits_where_they_lose_nothing():
    method = make("live")
    whole = export.to_onnx(method, {})
    method.nets.half().float()
    half = export.to_onnx(method, {})
    assert len(half) < 0.7 * len(whole)


def test_eight_bits_where_a_model_was_stored_in_them(tmp_path):
    method = make("live")
    encoder = method.nets["encoder"]
    for layer in (encoder.gate, encoder.correction, encoder.deeper[1]):
        torch.nn.init.normal_(layer.weight, 0, 0.01)  # at the start they are nothing
    whole = export.to_onnx(method, {})
    modelfile.save(tmp_path / "m.safetensors", "live", method, half=True)
    method = modelfile.load(tmp_path / "m.safetensors")
    data = export.to_onnx(method, {})
    stored = onnx.load_from_string(data).graph.initializer
    coarse = [each for each in stored if each.data_type == onnx.TensorProto.INT8]
    assert sum(len(each.raw_data) for each in coarse) == sum(
        value.numel() for value in encoder.state_dict().values() if value.dim() == 2
    )
    assert len(data) < 0.4 * len(whole)
    image = torch.rand(1, 3, 40, 32)
    code = method.encode_style([image], [1.0])["code"].detach().numpy()
    found = session(data).run(["style.code"], {"image": image.numpy() * 255, "code": code})[0]
    np.testing.assert_allclose(found, code, atol=1e-4)


def test_models_that_hold_no_numbers_are_refused():
    method = make("live")
    method.nets["trunk"].out.weight.data[0] = float("nan")
    with pytest.raises(errors.DoesNotFit, match="not numbers"):
        export.to_onnx(method, {})


def test_steps_that_depend_on_the_size_are_refused():
    method = make("johnson")

    def paint(image, mixture):
        return image * image.shape[2]

    made = method.graphs()
    method.graphs = lambda: methods.Graphs(paint, styles=made.styles)
    with pytest.raises(errors.DoesNotFit, match="size of the picture"):
        export.to_onnx(method, {})


@pytest.mark.parametrize("data", [b"", b"\x08", b"{}", b"\xff" * 20, b"\x72\x05\x0a\x09", b"\x3a\x7f"])
def test_what_is_no_graph(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(errors.DataError) if data else np.errstate():
        assert onnxfile.read_metadata(tmp_path / "x.onnx") == {}


@pytest.mark.parametrize("name", EXPORTED)
def test_kept_in_the_cache(name, tmp_path):
    path = tmp_path / "x.safetensors"
    modelfile.save(path, name, make(name))
    digest = modelfile.digest(path)
    assert graph.find(path, digest) is None
    kept = export.keep(path, digest)
    assert graph.find(path, digest) == kept == graph.cached(digest)
    beside = tmp_path / "x.onnx"
    beside.write_bytes(kept.read_bytes())
    assert graph.find(path, digest) == beside
    assert graph.find(path, "0" * 64) is None, "of another model"


def test_styles_that_a_model_holds_itself(tmp_path):
    """None, one, a mixture; all of it and a part."""
    pytest.importorskip("openvino")
    path = tmp_path / "x.safetensors"
    modelfile.save(path, "johnson", make("johnson"))
    digest = modelfile.digest(path)
    loaded, method = graph.Graph(export.keep(path, digest), precise=True), modelfile.load(path)
    given = streams.Image(np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8))
    made_for = {"size": None, "method_name": "johnson", "model_digest": digest}
    for specs in ([], ["two"], ["one:1,two:3"]):
        chosen = styles.parse_own(specs, method.names, path)
        record = styles.encode(method, chosen, **made_for) if chosen else None
        for alpha in (1.0, 0.3):
            wanted = infer.Restyler(method, record, alpha=alpha)(given).array
            found = graph.Restyler(loaded, graph.encode(loaded, chosen, **made_for), alpha=alpha)(given).array
            assert abs(found.astype(int) - wanted).max() <= 1
