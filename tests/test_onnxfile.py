"""The header of ONNX files, against the reader of ONNX itself."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from styletools import errors, onnxfile


@pytest.fixture
def graph(tmp_path):
    """Write a graph: graph(nodes, inputs, outputs, numbers, **metadata) is the path."""
    onnx = pytest.importorskip("onnx")

    def write(inputs, outputs, tensors=(), nodes=(), opset=17, **metadata):
        def values(of):
            return [onnx.helper.make_tensor_value_info(name, *value) for name, value in of.items()]

        made = onnx.helper.make_graph(list(nodes), "g", values(inputs), values(outputs), list(tensors))
        model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", opset)], producer_name="me")
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, tmp_path / "g.onnx")
        return tmp_path / "g.onnx"

    return write


def test_what_is_said(graph):
    onnx = pytest.importorskip("onnx")
    tensors = [
        onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, (2, 3), range(6)),
        onnx.helper.make_tensor("h", onnx.TensorProto.FLOAT16, (4,), b"12345678", raw=True),
    ]
    path = graph(
        {"x": (1, (1, 3, "height", None)), "w": (1, (2, 3))}, {"y": (10, ("n",)), "z": (7, ())}, tensors,
        opset=13, method="köln", empty="",
    )  # fmt: skip
    header = onnxfile.read_header(path)
    assert header.metadata == {"method": "köln", "empty": ""} and (header.opset, header.producer) == (13, "me")
    assert header.inputs == {"x": ("F32", (1, 3, "height", "?"))}, "what is stored is not asked for"
    assert header.outputs == {"y": ("F16", ("n",)), "z": ("I64", ())}
    assert header.tensors == {"w": ("F32", (2, 3)), "h": ("F16", (4,))} and not header.external


def test_a_published_file(peers):
    onnx = pytest.importorskip("onnx")
    path = peers("fns_web/mosaic_nc8_256x256.onnx")
    header, model = onnxfile.read_header(path), onnx.load(path)
    assert header.inputs == {"input.1": ("F32", (1, 3, 256, 256))}
    assert header.tensors == {each.name: ("F32", tuple(each.dims)) for each in model.graph.initializer}
    assert header.opset == model.opset_import[0].version and header.producer == model.producer_name


def test_numbers_in_other_files_are_noticed(graph, tmp_path):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor("w", 1, (300,), bytes(1200), raw=True)
    onnx.save(onnx.load(graph({"x": (1, (1,))}, {"y": (1, (1,))}, [tensor])), tmp_path / "e.onnx",
              save_as_external_data=True, location="w.bin", size_threshold=0)  # fmt: skip
    assert onnxfile.read_header(tmp_path / "e.onnx").external


@pytest.mark.parametrize("where", ["graph", "node"])
def test_sparse_numbers_in_other_files_are_noticed(graph, tmp_path, where):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(graph({"x": (1, (1,))}, {"y": (1, (1,))}))
    sparse = model.graph.sparse_initializer.add() if where == "graph" else None
    if sparse is None:
        sparse = model.graph.node.add(op_type="Constant").attribute.add(name="sparse_value").sparse_tensor
    sparse.indices.name, sparse.values.name = "i", "v"
    onnx.save(model, tmp_path / "s.onnx")
    assert not onnxfile.read_header(tmp_path / "s.onnx").external
    sparse.values.data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "s.onnx").write_bytes(model.SerializeToString())
    assert onnxfile.read_header(tmp_path / "s.onnx").external


def test_a_cut_file(graph):
    whole = graph({"x": (1, (1,))}, {"y": (1, (1,))}, a="b").read_bytes()
    for length in range(len(whole)):
        try:
            onnxfile.parse(io.BytesIO(whole[:length]), length)
        except errors.DataError as error:
            assert "\n" not in str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_header_or_an_error(content):
    try:
        header = onnxfile.parse(io.BytesIO(content), len(content))
    except errors.DataError:
        return
    assert header.inputs and header.outputs
