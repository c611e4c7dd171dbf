"""st-cat: list, convert, count."""

import json

import numpy as np

from styletools import streams


def test_converts_by_to_and_by_extension(call, folder, picture):
    picture("a.png", 7, 5)
    status, out, _ = call("st-cat", "a.png", "--to", "ppm")
    assert status == 0 and out.startswith(b"P6\n7 5\n255\n")
    assert call("st-cat", "a.png", "-o", "b.pam")[0] == 0
    assert (streams.open_image("b.pam").array == streams.open_image("a.png").array).all()
    assert call("st-cat", "a.png", "-o", "x.png", "--to", "nope")[0] == 2
    assert call("st-cat", "a.png", "-o", "x.nope")[0] == 2


def test_lists_pictures_and_tensors_as_json(call, folder, picture):
    picture("a.png", 7, 5)
    with open("t.safetensors", "wb") as out, streams.writer(out, "safetensors") as writer:
        for name in ("one", "two"):
            writer.write(streams.Tensors({"x": np.zeros((2, 3), np.float16)}, name, meta={"kind": "stats"}))
    status, out, _ = call("st-cat", "-l", "a.png", "t.safetensors")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert lines[0] == {
        "index": 0, "name": "a.png", "kind": "image", "width": 7, "height": 5, "channels": 3, "bits": 8,
        "meta": {"format": "png"},
    }  # fmt: skip
    assert [line["name"] for line in lines[1:]] == ["one", "two"]
    assert lines[2]["tensors"] == {"x": {"shape": [2, 3], "type": "float16"}}


def test_lists_names_that_are_no_text(call, folder, picture):
    picture(b"b\xff.png".decode(errors="surrogateescape"))
    status, out, _ = call("st-cat", "-l", ".")
    assert status == 0
    assert json.loads(out)["name"].encode(errors="surrogateescape") == b"./b\xff.png"


def test_counts(call, folder, picture):
    picture("a.ppm")
    data = (folder / "a.ppm").read_bytes()
    assert call("st-cat", "-c", stdin=3 * data)[:2] == (0, b"3\n")
    status, out, err = call("st-cat", "-c", stdin=3 * data + b"P6 1")
    assert (status, out) == (65, b"3\n") and "<stdin>" in err


def test_options_that_exclude_each_other(call, folder, picture):
    picture("a.png")
    for words in (["-l", "-c"], ["-l", "-o", "x.png"], ["-c", "--to", "png"]):
        assert call("st-cat", *words, "a.png")[0] == 2


def test_quality_and_limits(call, folder, picture):
    picture("a.png", 64, 64)
    small, large = (len(call("st-cat", "a.png", "--to", "jpeg", "--quality", q)[1]) for q in (10, 95))
    assert small < large
    status, _, err = call("st-cat", "a.png", "--max-pixels", "1000")
    assert status == 65 and "over the limit" in err
