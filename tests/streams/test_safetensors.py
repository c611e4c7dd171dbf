"""safetensors, against its own library."""

import json

import numpy as np
import pytest
from stream_samples import decode, encode, until_error

from styletools import errors, streams

library = pytest.importorskip("safetensors.numpy", reason="needs the safetensors package")

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def tensors():
    rng = np.random.default_rng(0)
    found = {f"of {dtype}": (rng.random((3, 4)) * 100).astype(dtype) for dtype in DTYPES}
    return found | {
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 2)),
        "view": np.arange(20)[::3],
        "ünï": np.ones(1),
    }


def made(header, data=b"", raw=None):
    text = raw if raw is not None else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_the_library_reads_it(tmp_path):
    wanted = streams.Tensors(tensors(), name="mine", meta={"kind": "style", "b": "ü", "a": "1"})
    data, _ = encode("safetensors", [wanted])
    loaded = library.load(data)
    assert set(loaded) == set(wanted.tensors)
    for name, array in wanted.tensors.items():
        assert (
            loaded[name].dtype == array.dtype
            and np.array_equal(loaded[name], array)
            and loaded[name].shape == array.shape
        )
    (tmp_path / "x").write_bytes(data)
    from safetensors import safe_open

    with safe_open(tmp_path / "x", "np") as opened:
        assert opened.metadata() == {"kind": "style", "a": "1", "b": "ü", "name": "mine"}


def test_it_reads_the_library():
    wanted = {name: np.ascontiguousarray(array) for name, array in tensors().items()}
    data = library.save(wanted, metadata={"name": "theirs", "kind": "features"})
    first, second = decode(data * 2, stream=True, name="file")
    assert list(first.tensors) == sorted(wanted) and first.name == "theirs" and second.index == 1
    assert first.meta == {"name": "theirs", "kind": "features"}
    for name, array in wanted.items():
        assert first.tensors[name].dtype == array.dtype and np.array_equal(first.tensors[name], array)
        assert first.tensors[name].flags.writeable or not array.size
    assert decode(library.save({}), name="file")[0].name == "file"


def test_bfloat16_is_widened():
    exact = np.array([1.0, -2.5, 3e38, 0.0078125], np.float32)
    data = (exact.view(np.uint32) >> 16).astype("<u2").tobytes()
    (record,) = decode(made({"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, data))
    assert record.tensors["x"].dtype == np.float32
    assert np.array_equal(record.tensors["x"], (exact.view(np.uint32) & 0xFFFF0000).view(np.float32))


def test_bytes_depend_on_the_record_alone():
    wanted = tensors()
    one = streams.Tensors(wanted, meta={"a": "1", "b": "2"})
    other = streams.Tensors(dict(reversed(wanted.items())), meta={"b": "2", "a": "1"})
    assert encode("safetensors", [one])[0] == encode("safetensors", [other])[0]
    big = streams.Tensors({"x": np.arange(5, dtype=">f4")})
    assert np.array_equal(library.load(encode("safetensors", [big])[0])["x"], np.arange(5))


def test_a_name_in_the_metadata_wins():
    record = streams.Tensors({"x": np.ones(1)}, name="path/of/file", meta={"name": "given"})
    assert decode(encode("safetensors", [record])[0], name="elsewhere")[0].name == "given"


@pytest.mark.parametrize("dtype", ["c16", "U3", "O", "M8[s]"])
def test_types_it_cannot_hold(dtype):
    with pytest.raises(errors.CannotCreate, match="'x'"):
        encode("safetensors", [streams.Tensors({"x": np.zeros(2, dtype)})])


def one(**changes):
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


BROKEN = {
    "gap": made(one(data_offsets=[4, 12]), bytes(12)),
    "overlap": made(one() | {"y": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
    "size": made(one(shape=[3]), bytes(8)),
    "negative": made(one(data_offsets=[8, 0]), bytes(8)),
    "minus": made(one(shape=[-2]), bytes(8)),
    "true": made(one(shape=[True, 2]), bytes(8)),
    "float": made(one(shape=[2.0]), bytes(8)),
    "text": made(one(shape="ab"), bytes(8)),
    "dtype": made(one(dtype="F99"), bytes(8)),
    "no dtype": made({"x": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "list dtype": made(one(dtype=["F32"]), bytes(8)),
    "offsets": made(one(data_offsets=[0, 4, 8]), bytes(8)),
    "entry": made({"x": [1]}, bytes(8)),
    "metadata": made({"__metadata__": {"a": 1}}),
    "metadata list": made({"__metadata__": ["a"]}),
    "json": made(None, raw=b'{"x": '),
    "utf-8": made(None, raw=b'{"\xff": 1}'),
    "deep": made(None, raw=b'{"x":' + b"[" * 100_000),
    "twice": made(None, raw=b"{%s,%s}" % ((b'"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}',) * 2)),
    "huge": made(one(shape=[1 << 62, 1 << 62], data_offsets=[0, 1 << 62]), bytes(8)),
    "many dimensions": made(one(shape=[1] * 70 + [2]), bytes(8)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_headers(name):
    found, message = until_error(BROKEN[name])
    assert not found and message


def test_a_header_of_more_than_100_mb():
    data = (200_000_000).to_bytes(8, "little") + b"{}"
    assert "known format" in until_error(data)[1]
    assert "header of" in until_error(data, format="safetensors")[1]
