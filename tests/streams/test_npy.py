"""npy and npz, against numpy."""

import io
import os
import threading
import zipfile

import numpy as np
import pytest
from stream_samples import decode, encode, until_error

from styletools import errors, streams

ARRAYS = {
    "matrix": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.int32).reshape(2, 3, 4)),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "big-endian": np.arange(5, dtype=">f4"),
    "half": np.arange(5, dtype=np.float16),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "view": np.arange(20)[::3],
}


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_agrees_both_ways(name):
    array = ARRAYS[name]
    (record,) = decode(npy(array))
    (have,) = record.tensors.values()
    assert list(record.tensors) == ["array"] and have.dtype == array.dtype.newbyteorder("=")
    assert have.shape == array.shape and np.array_equal(have, array)
    data, _ = encode("npy", [streams.Tensors({"x": array})])
    assert np.array_equal(np.load(io.BytesIO(data), allow_pickle=False), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_follow_one_another_through_a_pipe(version):
    out = io.BytesIO()
    np.lib.format.write_array(out, np.arange(7), version=version)
    reading, writing = os.pipe()
    data = out.getvalue() * 3
    threading.Thread(target=lambda: (os.write(writing, data), os.close(writing))).start()
    with os.fdopen(reading, "rb") as source:
        assert [record.tensors["array"].sum() for record in decode(source, stream=True)] == [21] * 3


def test_an_npz_is_what_numpy_saves_and_loads():
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **ARRAYS)
        (record,) = decode(out.getvalue(), stream=True)
        assert set(record.tensors) == set(ARRAYS)
        assert all(np.array_equal(record.tensors[name], ARRAYS[name]) for name in ARRAYS)
    data, _ = encode("npz", [record])
    assert data == encode("npz", [streams.Tensors(dict(reversed(record.tensors.items())))])[0]
    with np.load(io.BytesIO(data)) as loaded:
        assert all(np.array_equal(loaded[name], ARRAYS[name]) for name in ARRAYS)
    assert decode(encode("npz", [streams.Tensors({})])[0])[0].tensors == {}


def test_pickles_strings_and_records_are_refused():
    for array in (np.array([{}], object), np.array(["text"]), np.zeros(2, [("a", "f4")]), np.array(["2020"], "M8[D]")):
        assert "npy" in until_error(npy(array, allow_pickle=True))[1]
        out = io.BytesIO()
        np.savez(out, x=array)
        found, message = until_error(out.getvalue())
        assert not found and message
        with pytest.raises(errors.CannotCreate):
            encode("npy", [streams.Tensors({"x": array})])


def archive(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in members.items():
            made.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def test_other_zip_archives_are_refused():
    assert "PyTorch" in until_error(archive(**{"model__data.pkl": b"x", "model__version": b"3"}))[1]
    assert "not an npz" in until_error(archive(**{"word__document.xml": b"x"}))[1]
    assert "after its end" in until_error(archive(**{"x.npy": npy(np.arange(3)) + b"more"}))[1]
    assert "cut off" in until_error(archive(**{"x.npy": npy(np.arange(3))[:-1]}))[1]


def test_a_checkpoint_of_torch_is_named_as_such():
    torch = pytest.importorskip("torch")
    out = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, out)
    assert "PyTorch" in until_error(out.getvalue())[1]


def test_npy_holds_exactly_one():
    for tensors in ({}, {"a": np.zeros(1), "b": np.zeros(1)}):
        with pytest.raises(errors.CannotCreate, match="one array"):
            encode("npy", [streams.Tensors(tensors)])


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        "[]",
        "x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
        "(" * 5000,
        "__import__('os')",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': 'nope', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "{'descr': '|V4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        " " * 20_000,
    ],
)
def test_damaged_headers(header):
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    found, message = until_error(data)
    assert not found and message
