"""Styles as users name them: parsing, checking, mixing."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from styletools import errors, methods, streams
from styletools.engine import styles

SHA = "0" * 64


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def painting():
    """Make a small picture file: painting(path, seed)."""

    def make(path, seed=0, size=(20, 24)):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        return path

    return make


@pytest.fixture(scope="module")
def live():
    """A tiny, untrained live."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.create("live", {"channels": 8, "widths": "8"})
        torch.nn.init.normal_(method.nets["encoder"].code.weight)  # so that styles differ
    return method


@pytest.fixture
def zoo(folder, monkeypatch):
    """A zoo of our own, with two named styles."""
    code = {"code": np.zeros(48, np.float32)}
    made = [streams.Tensors(code | {}, name, meta={"kind": "style", "method": "live", "model_sha256": SHA})
            for name in ("great-wave", "starry-night")]  # fmt: skip
    (folder / "zoo").mkdir()
    write(folder / "zoo/styles.safetensors", *made)
    monkeypatch.setattr("styletools.files.zoo_dir", lambda: folder / "zoo")
    styles.bundled.cache_clear()
    yield folder / "zoo"
    styles.bundled.cache_clear()


def write(path, *records):
    with open(path, "wb") as out, streams.writer(out, "safetensors") as writer:
        for record in records:
            writer.write(record)
    return Path(path)


def parsed(*specs):
    return [(style.name, style.weight, style.kind) for style in styles.parse(specs)]


# ---- names and weights -----------------------------------------------------------------------------------


def test_weights_and_several_styles(painting, zoo):
    painting("a.jpg")
    painting("b.jpg")
    assert parsed("a.jpg") == [("a.jpg", 1, "image")]
    assert parsed("a.jpg:2,b.jpg:.5") == [("a.jpg", 2, "image"), ("b.jpg", 0.5, "image")]
    assert parsed("a.jpg:0", "b.jpg") == [("a.jpg", 0, "image"), ("b.jpg", 1, "image")]
    assert parsed("great-wave:3,b.jpg") == [("great-wave", 3, "bundled"), ("b.jpg", 1, "image")]
    assert parsed("a.jpg,,b.jpg,") == [("a.jpg", 1, "image"), ("b.jpg", 1, "image")]
    assert parsed(str(write("r.safetensors", streams.Tensors({"x": np.zeros(1)})))) == [("r.safetensors", 1, "record")]


def test_commas_and_colons_in_names_of_files(painting):
    for name in ("a,b.png", "c:2.png", "d:3", "e,f,g.png", "plain.png"):
        with open(name, "wb") as out:
            Image.new("RGB", (4, 4)).save(out, "PNG")
    assert parsed("a,b.png") == [("a,b.png", 1, "image")]
    assert parsed("a,b.png:2") == [("a,b.png", 2, "image")]
    assert parsed("c:2.png,d:3") == [("c:2.png", 1, "image"), ("d:3", 1, "image")]
    assert parsed("c:2.png:5") == [("c:2.png", 5, "image")]
    assert parsed("plain.png:2,e,f,g.png:3,a,b.png") == [
        ("plain.png", 2, "image"), ("e,f,g.png", 3, "image"), ("a,b.png", 1, "image"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("", errors.UsageError, "empty"),
        (",", errors.UsageError, "empty"),
        ("a.png:-1", errors.UsageError, "0 or more"),
        ("a.png:nan", errors.UsageError, "0 or more"),
        ("a.png:inf", errors.UsageError, "0 or more"),
        ("a.png:0", errors.UsageError, "sum to more than 0"),
        ("gone.png", errors.MissingInput, "gone.png: no such file"),
        ("x/gone", errors.MissingInput, "x/gone: no such file"),
        ("a.png,gone.png:2", errors.MissingInput, "gone.png: no such file"),
        ("graet-wave", errors.MissingInput, "did you mean great-wave"),
        ("zzz", errors.MissingInput, "st-model list"),
        ("zzz:2", errors.MissingInput, "zzz: neither a file nor a bundled style"),
        ("zoo", errors.DataError, "is a directory"),
        ("/dev/null", errors.DataError, "a file or a pipe"),
    ],
)
def test_what_is_no_style(painting, zoo, spec, error, message):
    painting("a.png")
    with pytest.raises(error, match=message):
        styles.check_weights(styles.parse([spec]))


def test_styles_come_through_pipes(painting, zoo):
    painting("a.png")
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path("a.png").read_bytes()), daemon=True)
    writer.start()
    (found,) = styles.parse(["pipe:2"])
    writer.join(10)
    assert (found.name, found.weight, found.kind) == ("pipe", 2, "image")
    assert found.path.read_bytes() == found.path.read_bytes() == Path("a.png").read_bytes()


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("a,:.12-/\0"), max_size=12))
def test_any_text_is_a_style_or_an_error_of_ours(spec):
    try:
        found = styles.parse([spec])
    except (errors.StyletoolsError, ValueError) as error:
        # No file has a NUL in its name, and no command line has one.
        assert isinstance(error, errors.StyletoolsError) or "\0" in spec
    else:
        assert found


# ---- checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "method", "digest", "backbone", "message"),
    [
        ({"kind": "style", "method": "live", "model_sha256": SHA}, "live", SHA, "", None),
        ({"kind": "style", "method": "live", "model_sha256": SHA}, "live", "1" * 64, "", "another model of live"),
        ({"kind": "style", "method": "adain", "model_sha256": SHA}, "live", SHA, "", "for adain, not for live"),
        ({"kind": "stats", "backbone": "slim"}, "gatys", "", "slim", None),
        ({"kind": "stats", "backbone": "vgg19"}, "gatys", "", "slim", "statistics of vgg19, but gatys uses slim"),
        ({"kind": "stats", "backbone": "slim"}, "live", SHA, "", "record of kind 'stats'"),
        ({"kind": "features"}, "gatys", "", "slim", "record of kind 'features'"),
        ({}, "live", SHA, "", "no record of ours"),
        ({"kind": "model", "method": "live"}, "live", SHA, "", "record of kind 'model'"),
    ],
)
def test_records_must_be_for_the_method(meta, method, digest, backbone, message):
    path = write("r.safetensors", streams.Tensors({"x": np.zeros(1)}, "r", meta=meta))
    chosen = styles.parse([str(path)])
    if message is None:
        styles.check(chosen, method, digest, backbone)
        return
    with pytest.raises(errors.DoesNotFit, match=message) as raised:
        styles.check(chosen, method, digest, backbone)
    assert "r.safetensors: " in str(raised.value)


def test_damaged_records_are_data_errors(folder):
    (folder / "cut.safetensors").write_bytes(b"\x20" + bytes(7) + b'{"__metadata__')
    with pytest.raises(errors.DataError):
        styles.check(styles.parse(["cut.safetensors"]), "live", SHA)


# ---- encoding --------------------------------------------------------------------------------------------


def encode(method, *specs, size=16, digest=SHA):
    return styles.encode(method, styles.parse(specs), size=size, method_name="live", model_digest=digest)["code"]


def test_mixtures_do_not_depend_on_order_or_scale(live, painting):
    painting("a.png", 1)
    painting("b.png", 2)
    a, b = encode(live, "a.png"), encode(live, "b.png")
    assert not torch.allclose(a, b)
    mixed = encode(live, "a.png:2,b.png:1")
    torch.testing.assert_close(mixed, (2 * a + b) / 3)
    for same in (("b.png:1,a.png:2",), ("a.png:4", "b.png:2"), ("a.png", "b.png", "a.png")):
        torch.testing.assert_close(encode(live, *same), mixed)
    assert torch.equal(encode(live, "a.png:0,b.png"), b)


def test_size_of_style_pictures_matters(live, painting):
    painting("a.png", 1, (64, 64))
    assert not torch.allclose(encode(live, "a.png", size=16), encode(live, "a.png", size=64))


def test_records_and_pictures_mix(live, painting):
    painting("a.png", 1)
    painting("b.png", 2)
    a, b = encode(live, "a.png"), encode(live, "b.png")
    made = styles.to_record({"code": a}, name="a", method_name="live", model_digest=SHA)
    write("a.safetensors", made)
    torch.testing.assert_close(encode(live, "a.safetensors"), a)
    torch.testing.assert_close(encode(live, "a.safetensors:3,b.png"), (3 * a + b) / 4)
    torch.testing.assert_close(encode(live, "a.safetensors", "b.png:0"), a)
    half = styles.to_record({"code": a}, name="a", method_name="live", model_digest=SHA, half=True)
    write("half.safetensors", half)
    torch.testing.assert_close(encode(live, "half.safetensors"), a, rtol=1e-2, atol=1e-2)
    assert encode(live, "half.safetensors").dtype == torch.float32


def test_bundled_styles_are_found_by_name(live, zoo):
    found = encode(live, "starry-night")
    assert found.tolist() == [0] * 48
    Path("starry-night").mkdir()
    assert parsed("starry-night:2") == [("starry-night", 2, "bundled")], "a folder is no style"
    assert sorted(styles.bundled()) == ["great-wave", "starry-night"]


def test_records_of_other_shapes_do_not_fit(live):
    for tensors in ({"code": np.zeros(7, np.float32)}, {"other": np.zeros(48, np.float32)}):
        made = streams.Tensors(tensors, "x", meta={"kind": "style", "method": "live", "model_sha256": SHA})
        write("x.safetensors", made)
        with pytest.raises(errors.DoesNotFit, match=r"^x.safetensors: has .*live needs"):
            encode(live, "x.safetensors")


def test_statistics_with_too_much_or_too_little(slim, painting):
    painting("a.png", 1)
    method = methods.create("gatys", {"style_layers": "relu1_1,relu2_1"})
    own = styles.encode(method, styles.parse(["a.png"]), size=20, method_name="gatys")
    arrays = {key: tensor.numpy() for key, tensor in own.items()}
    meta = {"kind": "stats", "backbone": "slim"}
    write("more.safetensors", streams.Tensors(arrays | {"relu3_1.mean": np.zeros(64, np.float32)}, "m", meta=meta))
    write("less.safetensors", streams.Tensors({"relu1_1.mean": arrays["relu1_1.mean"]}, "l", meta=meta))
    found = styles.encode(method, styles.parse(["more.safetensors:2,a.png"]), size=20, method_name="gatys")
    assert found.keys() == own.keys()
    for key in own:
        torch.testing.assert_close(found[key], own[key])
    with pytest.raises(errors.DoesNotFit, match="less.safetensors: has no relu"):
        styles.encode(method, styles.parse(["less.safetensors"]), method_name="gatys")


def test_a_style_file_that_is_no_picture(live, folder):
    (folder / "a.png").write_bytes(b"not a picture")
    with pytest.raises(errors.DataError, match="a.png: "):
        encode(live, "a.png")


def test_transparent_parts_of_a_style_lie_over_white(live):
    array = np.zeros((20, 20, 4), np.uint8)
    Image.fromarray(array).save("clear.png")
    assert torch.equal(styles.load_image("clear.png", None), torch.ones(1, 3, 20, 20))


def test_mix_refuses_records_that_differ(live):
    with pytest.raises(errors.DoesNotFit, match="cannot be mixed"):
        styles.mix(live, [], [({"a": torch.zeros(1)}, 1), ({"b": torch.zeros(1)}, 1)])
