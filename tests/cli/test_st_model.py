"""st-model: what there is, and what is in a file."""

import hashlib
import json
import os
import pickle
import warnings

import numpy as np
import pytest

from styletools import files, methods, modelfile, streams


@pytest.fixture
def zoo(folder, live_model, monkeypatch, call, picture, slim):
    """A zoo with one model and two styles."""
    monkeypatch.setattr(files, "zoo_dir", lambda: folder / "zoo")
    (folder / "zoo").mkdir()
    (folder / "zoo/tiny.safetensors").write_bytes(live_model.read_bytes())
    for seed, name in enumerate(("night", "wave")):
        picture(f"{name}.png", 24, 24, seed)
    assert call("st-gram", "--for", "tiny", "--each", "night.png", "wave.png", "-o", "zoo/styles.safetensors")[0] == 0
    return folder / "zoo"


def test_list(call, zoo):
    status, out, err = call("st-model", "list")
    text = out.decode()
    assert (status, err) == (0, "")
    assert all(f"  {name} " in text for name in methods.names())
    assert "models:\n  tiny  live, " in text
    assert "styles:\n  night  " in text and "\n  wave   " in text


def test_list_as_json(call, zoo):
    entries = [json.loads(line) for line in call("st-model", "list", "--json")[1].splitlines()]
    by_kind = {kind: [e for e in entries if e["kind"] == kind] for kind in ("method", "model", "style")}
    assert [entry["name"] for entry in by_kind["method"]] == methods.names()
    assert by_kind["method"][-1]["options"]
    (model,) = by_kind["model"]
    assert model["method"] == "live" and model["size"] == (zoo / "tiny.safetensors").stat().st_size
    assert [entry["name"] for entry in by_kind["style"]] == ["night", "wave"]
    assert all(entry["size"] > 100 for entry in by_kind["style"])


def test_show(call, zoo, live_model):
    for model in (live_model, "tiny"):
        status, out, _ = call("st-model", "show", model)
        lines = out.decode().splitlines()
        assert status == 0 and lines[:2] == ["kind: model", "method: live"]
        assert "  trunk.stem.weight F32 8x48x3x3" in lines
    status, out, _ = call("st-model", "show", "zoo/styles.safetensors")
    assert status == 0 and out.count(b"kind: style") == 2
    lines = call("st-model", "show", "--json", "zoo/styles.safetensors")[1].splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["meta"]["name"] for entry in entries] == ["night", "wave"]
    assert entries[0]["tensors"]["code"]["type"] == "F32"


def test_what_cannot_be_shown(call, folder, picture, live_model, zoo):
    whole = live_model.read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-10])
    (folder / "empty").touch()
    picture("a.png")
    (folder / "odd.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    for name, status in [
        ("gone", 66), ("gone.safetensors", 66), ("a.png", 65), ("empty", 65), ("cut.safetensors", 65),
        ("odd.safetensors", 65), (".", 65),
    ]:  # fmt: skip
        found, _, err = call("st-model", "show", name)
        assert found == status and err.count("\n") == 1 and name in err, name


def test_what_a_file_says_does_not_drive_the_terminal(call, folder):
    text = json.dumps({"__metadata__": {"name": "\x1b[31mred\nkind: fake", "note": "\ud800"}}).encode()
    (folder / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    status, out, err = call("st-model", "show", "odd.safetensors")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == [b"name: ?[31mred kind: fake", b"note: ?"]


def test_json_of_what_is_no_text(sh, folder):
    text = json.dumps({"__metadata__": {"note": "\ud800"}}).encode()
    (folder / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    done = sh("st-model show --json odd.safetensors")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["meta"] == {"note": "\ud800"}


def test_a_pipe_is_no_model_file(sh):
    done = sh("st-model show <(echo)")
    assert done.returncode == 65 and b"is no regular file, not a model file" in done.stderr


def test_sub_commands(call, zoo):
    assert call("st-model")[0] == 2
    assert call("st-model", "nope")[0] == 2
    assert call("st-model", "show")[0] == 2
    status, out, _ = call("st-model", "show", "--help")
    assert status == 0 and b"FILE|DIR|MODEL" in out


# ---- import and export -----------------------------------------------------------------------------------------------


@pytest.fixture
def candy(peers):
    return peers("fns_web/candy_nc8.pth")


@pytest.fixture
def mosaic(peers):
    return peers("fns_web/mosaic_nc8_256x256.onnx")


def difference(first, second):
    first, second = (streams.open_image(name).array.astype(int) for name in (first, second))
    return np.abs(first - second).max()


def test_import_says_where_it_comes_from(call, candy, picture):
    words = ("--licence", "BSD", "--trained-on", "photographs and a painting")
    assert call("st-model", "import", candy, "-o", "mine.safetensors", *words) == (0, b"", "")
    header = modelfile.read_header("mine.safetensors")
    assert header["origin"] == "candy_nc8.pth" and header["layout"] == "fast_neural_style"
    assert header["origin_sha256"] == hashlib.sha256(candy.read_bytes()).hexdigest()
    assert (header["licence"], header["trained_on"]) == ("BSD", "photographs and a painting")
    assert header["created_by"].startswith("st-model import ") and header["method"] == "johnson"
    photo = picture("photo.png", 61, 45)
    for model, out in ((candy, "a.png"), ("mine.safetensors", "b.png")):
        assert call("st-apply", "-m", model, photo, "-o", out, "--engine", "torch") == (0, b"", "")
    assert difference("a.png", "b.png") == 0
    assert call("st-model", "import", candy, "-o", "half.safetensors", "--half")[0] == 0
    sizes = [os.path.getsize(f"{name}.safetensors") for name in ("mine", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    status, _, err = call("st-model", "import", "mine.safetensors", "-o", "again.safetensors")
    assert status == 78 and err == "st-model: mine.safetensors: is a model file of styletools already\n"


def test_import_of_a_folder(call, microast, reference, weights):
    assert call("st-model", "import", next(microast.glob("decoder*")), "-o", "mine.safetensors") == (0, b"", "")
    header = modelfile.read_header("mine.safetensors")
    assert header["origin"].split(", ") == sorted(path.name for path in microast.iterdir())
    assert header["origin_sha256"] == modelfile.digest(microast) and header["layout"] == "MicroAST"
    decoders = reference.parent / "peers/irasin_wct"
    if decoders.is_dir() and any(weights.glob("vgg_normalised*")):
        status, _, err = call("st-model", "import", decoders, "-o", "w.safetensors")
        assert status == 0 and err.count("\n") == 1
        assert "w.safetensors: needs the weights of vgg_normalised, which it does not hold" in err


def test_import_that_cannot_be(call, folder, picture, live_model, candy):
    picture("a.png")
    (folder / "same.safetensors").write_bytes(candy.read_bytes())
    for words, status, message in (
        (("a.png", "-o", "x.safetensors"), 65, "a.png: not a safetensors file"),
        ((candy, "-o", "x.pth"), 2, "x.pth: the name of a model file ends in .safetensors"),
        (("gone.pth", "-o", "x.safetensors"), 66, "gone.pth: no such model"),
        (("same.safetensors", "-o", "./same.safetensors"), 2, "./same.safetensors: is the model itself"),
        ((live_model, "-o", "x.safetensors"), 78, "is a model file of styletools already"),
    ):
        found, out, err = call("st-model", "import", *words)
        assert (found, out) == (status, b"") and message in err and err.count("\n") == 1, words
    assert not (folder / "x.safetensors").exists()


class Evil:
    """Unpickled as code is, it makes a file."""

    def __reduce__(self):
        return open, ("mark", "w")


@pytest.mark.parametrize("command", ["show", "import", "export", "apply"])
def test_no_pickle_is_run(call, folder, picture, command):
    picture("a.png")
    (folder / "evil.pth").write_bytes(pickle.dumps({"model.1.weight": 1, "evil": Evil()}))
    words = {
        "show": ("st-model", "show", "evil.pth"), "import": ("st-model", "import", "evil.pth", "-o", "x.safetensors"),
        "export": ("st-model", "export", "evil.pth", "-o", "x.pt"),
        "apply": ("st-apply", "-m", "evil.pth", "a.png", "-o", "b.png"),
    }[command]  # fmt: skip
    status, out, err = call(*words)
    assert (status, out) == (65, b"") and err.count("\n") == 1 and "evil.pth: damaged, or holds more than" in err
    assert not (folder / "mark").exists()


def test_a_graph_of_others(call, mosaic, picture, folder):
    status, out, err = call("st-model", "show", mosaic)
    lines = out.decode().splitlines()
    assert (status, err) == (0, "") and lines[0] == "kind: graph"
    assert "inputs: input.1 F32 1x3x256x256" in lines and "opset: 9" in lines
    assert "62 tensors, 108771 numbers, 435084 bytes" in lines
    photo = picture("photo.png", 61, 45)
    assert call("st-apply", "-m", mosaic, photo, "-o", "a.png") == (0, b"", "")
    assert streams.open_image("a.png").array.shape == (45, 61, 3)
    assert call("st-model", "import", mosaic, "-o", "mine.safetensors") == (0, b"", "")
    assert call("st-apply", "-m", "mine.safetensors", "-O", "range=255", photo, "-o", "b.png") == (0, b"", "")
    assert difference("a.png", "b.png") == 0
    status, _, err = call("st-apply", "-m", mosaic, "-O", "range=7", photo, "-o", "c.png")
    assert (status, err) == (2, "st-apply: range=7: 255, 1, -1 expected\n")
    status, _, err = call("st-apply", "-m", mosaic, "-O", "size=7", photo, "-o", "c.png")
    assert status == 2 and "that need no training, and of onnx range, multiple" in err
    (folder / "cut.onnx").write_bytes(mosaic.read_bytes()[:-5000])
    assert call("st-model", "show", "cut.onnx")[0] == 65


def test_export_for_other_programs(call, candy):
    import torch

    assert call("st-model", "export", candy, "--layout", "fast_neural_style", "-o", "back.pth") == (0, b"", "")
    theirs, ours = (torch.load(path, weights_only=True) for path in (candy, "back.pth"))
    assert set(ours) == {key for key in theirs if "running" not in key}
    assert call("st-model", "export", candy, "-o", "m.pt") == (0, b"", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is an old format
        program = torch.jit.load("m.pt")
    assert program(torch.zeros(1, 3, 68, 72)).shape == (1, 3, 68, 72)


def test_what_cannot_be_exported(call, folder, live_model, candy):
    for words, status, message in (
        ((live_model, "-o", "x.gif"), 2, "x.gif: .onnx, .pt, .pt2 expected, or --layout with .pth"),
        ((live_model, "-o", "x.pth", "--layout", "x"), 2, "--layout x: choose from pytorch-AdaIN, fast_neural_style"),
        ((candy, "-o", "x.pt", "--layout", "fast_neural_style"), 2, "x.pt: the name of a checkpoint ends in .pth"),
        ((candy, "-o", "x.pth", "--layout", "pytorch-AdaIN"), 78,
         "johnson cannot be written as pytorch-AdaIN; those that can: adain"),
        (("slim", "-o", "x.pt"), 78, "slim: distill cannot be written as TorchScript; those that can: adain, "),
        (("slim", "-o", "x.onnx"), 78, "slim: distill cannot be written as a graph; those that can: "),
    ):
        found, out, err = call("st-model", "export", *words)
        assert (found, out) == (status, b"") and message in err and err.count("\n") == 1, (words, err)
    assert not list(folder.glob("x.*"))


def test_what_is_cached_is_listed(call, mosaic):
    onnx = pytest.importorskip("onnx")
    assert b"\ncached: nothing\n" in call("st-model", "list")[1]
    for name, size in (("weights/vgg19.pth", 2048), ("weights/.part", 1), ("graphs/broken.onnx", 9)):
        (files.cache_dir() / name).parent.mkdir(parents=True, exist_ok=True)
        (files.cache_dir() / name).write_bytes(bytes(size))
    model = onnx.load(mosaic)
    onnx.helper.set_model_props(model, {"method": "johnson", "licence": "MIT", "trained_on": "photographs"})
    onnx.save(model, files.cache_dir() / "graphs/a.onnx")
    entries = [json.loads(line) for line in call("st-model", "list", "--json")[1].splitlines()]
    weights, graph = (entry for entry in entries if entry["kind"] == "cached")
    assert (weights["name"], weights["what"], weights["size"]) == ("vgg19.pth", "weights", 2048)
    assert graph["method"] == "johnson" and graph["path"] == str(files.cache_dir() / "graphs/a.onnx")
    (line,) = (line for line in call("st-model", "list")[1].decode().splitlines() if line.startswith("  a.onnx"))
    assert "graph of a model of johnson, " in line and line.endswith("; licence MIT; trained on photographs")
