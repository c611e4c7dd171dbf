"""st-model: what there is, and what is in a file."""

import json

import pytest

from styletools import files, methods


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
