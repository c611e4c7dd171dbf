"""flo: bytes as the format's description says, unknown motion, and what is refused."""

import struct

import numpy as np
import pytest
from stream_samples import decode, encode, until_error

from styletools import errors, streams


def flo(width, height, values):
    return struct.pack("<fii", 202021.25, width, height) + struct.pack(f"<{len(values)}f", *values)


def test_bytes_are_the_description():
    data = flo(3, 2, range(12))
    (record,) = decode(data)
    assert list(record.tensors) == ["flow"] and record.meta == {"kind": "flow"}
    flow = record.tensors["flow"]
    assert flow.shape == (2, 3, 2) and flow.dtype == np.float32 and flow.flags.writeable
    # u and v of a pixel stand together, row by row.
    assert flow[0, 1].tolist() == [2, 3] and flow[1, 0].tolist() == [6, 7]
    assert encode("flo", [record])[0] == data


def test_unknown_motion_is_nan():
    (record,) = decode(flo(5, 1, [1, 2, 2e9, 0, 0, -1e10, float("nan"), 0, float("inf"), 1]))
    flow = record.tensors["flow"]
    assert flow[0, 0].tolist() == [1, 2] and np.isnan(flow[0, 1:]).all()
    data, _ = encode("flo", [record])
    assert data == flo(5, 1, [1, 2, *[1e10] * 8])
    assert np.array_equal(decode(data)[0].tensors["flow"], flow, equal_nan=True)


def test_other_tensor_formats_go_to_and_fro():
    wanted = np.linspace(-40, 40, 24).reshape(3, 4, 2)
    (flow,) = decode(encode("flo", [streams.Tensors({"array": wanted})])[0])
    for name in ("npy", "npz", "safetensors"):
        (between,) = decode(encode(name, [flow])[0])
        (back,) = decode(encode("flo", [between])[0])
        assert np.array_equal(back.tensors["flow"], wanted.astype(np.float32))
    assert decode(encode("safetensors", [flow])[0])[0].meta["kind"] == "flow"


def test_what_is_no_flow_cannot_be_written():
    fits = np.zeros((2, 2, 2), np.float32)
    for tensors in ({}, {"a": fits, "b": fits}, {"a": fits[0]}, {"a": np.zeros((2, 2, 3), np.float32)}):
        with pytest.raises(errors.CannotCreate, match="flo holds"):
            encode("flo", [streams.Tensors(tensors)])
    for array in (fits.astype(np.int32), fits[:0]):
        with pytest.raises(errors.CannotCreate, match="flo holds"):
            encode("flo", [streams.Tensors({"a": array})])


@pytest.mark.parametrize(
    "data, message",
    [
        (flo(0, 2, []), "0x2"),
        (flo(-3, 2, []), "-3x2"),
        (flo(100_000, 100_000, []), "limit"),
        (flo(3, 2, range(11)), "cut off"),
        (flo(3, 2, range(12))[:9], "cut off"),
        (flo(1, 1, [1, 2]) + b"PIEX", "not flo"),
    ],
)
def test_damaged(data, message):
    found, told = until_error(data)
    assert message in told
    assert len(found) == (1 if "not flo" in message else 0)


def test_published_ground_truth(reference):
    folder = reference.parent / "video/flow_gt"
    if not folder.is_dir():
        pytest.skip("the reference data have no ground-truth flow")
    path = folder / "chairs_1_flow.flo"
    data = path.read_bytes()
    (record,) = decode(data)
    assert record.tensors["flow"].shape == (384, 512, 2) and 0.1 < np.abs(record.tensors["flow"]).mean() < 50
    assert encode("flo", [record])[0] == data
