"""Models that others have published, in every command that takes a model."""

import json
import shutil

from styletools import modelfile, streams


def test_a_folder_and_any_file_of_it_are_one_model(call, microast, picture):
    photo, style = picture("photo.png", 61, 45), picture("style.png", 40, 37, 1)
    exactly = ("--engine", "torch")  # as st-gram computes
    one_of_them = next(microast.glob("decoder*"))
    for model, out in ((microast, "a.png"), (one_of_them, "b.png")):
        words = ("-m", model, "-s", style, photo, "-o", out, "--style-size", 40)
        assert call("st-apply", *words, *exactly) == (0, b"", "")
    made = call("st-gram", "--for", microast, style, "--size", 40, "-o", "style.safetensors")
    assert made == (0, b"", "")
    header = modelfile.read_header("style.safetensors")
    assert (header["method"], header["model_sha256"]) == ("microast", modelfile.digest(microast))
    words = ("-m", one_of_them, "-s", "style.safetensors", photo, "-o", "c.png")
    assert call("st-apply", *words, *exactly) == (0, b"", "")
    pictures = [streams.open_image(name).array for name in ("a.png", "b.png", "c.png")]
    assert pictures[0].shape == (45, 61, 3)
    assert (pictures[0] == pictures[1]).all() and (pictures[0] == pictures[2]).all()


def test_a_folder_of_results_knows_the_model(call, microast, picture, folder):
    picture("photos/one.png", 16, 16)
    picture("style.png", 24, 24, 1)
    shutil.copytree(microast, folder / "model")
    words = ("st-apply", "-m", "model", "-s", "style.png", "photos/", "-o", "out/", "-n")
    assert call("st-apply", *words[1:-1])[0] == 0
    assert call(*words) == (0, b"", "")
    with open(next((folder / "model").glob("decoder*")), "ab") as file:
        file.write(b" ")  # after the end, where nothing reads it
    assert call(*words)[1].count(b"\n") == 1


def test_shown_as_the_model_that_it_is(call, microast):
    status, out, err = call("st-model", "show", microast)
    lines = out.decode().splitlines()
    assert (status, err) == (0, "")
    assert lines[:5] == [
        "kind: model", "method: microast", 'config: {"channels": 16}', "layout: MicroAST",
        "origin: published checkpoint",
    ]  # fmt: skip
    assert lines[5] == "62 tensors, 471987 numbers, 1887948 bytes"
    assert "  content_encoder.shallow.0.weight F32 16x3x9x9" in lines
    (line,) = call("st-model", "show", "--json", next(microast.glob("style*")))[1].splitlines()
    assert json.loads(line)["meta"]["method"] == "microast"


def test_what_is_said_of_others(call, microast, picture, folder):
    picture("a.png", 16, 16)
    shutil.copy(next(microast.glob("decoder*")), "lonely.pth")
    (folder / "cut.pth").write_bytes((folder / "lonely.pth").read_bytes()[:-1000])
    (folder / "empty").mkdir()
    for model, status, message in (
        ("lonely.pth", 78, "lonely.pth: tensors of no method that is known here: dec1.conv1.conv_layer.weight, "),
        ("cut.pth", 65, "cut.pth: damaged, or holds more than tensors"),
        ("empty", 65, "empty: is a directory that holds no published checkpoints, not a model file"),
        ("microast", 2, "microast needs a published model: give its file or folder"),
    ):
        for words in (("st-apply", "-m", model, "-s", "a.png", "a.png", "-o", "b.png"), ("st-gram", "--for", model)):
            found, out, err = call(*words, *(["a.png", "-o", "b.safetensors"] if words[0] == "st-gram" else []))
            assert (found, out) == (status, b""), (model, words, err)
            assert err.count("\n") == 1 and err.startswith(f"{words[0]}: {message}"), err
    assert not (folder / "b.png").exists()
    found, _, err = call("st-apply", "-m", microast, "-O", "channels=8", "-s", "a.png", "a.png", "-o", "b.png")
    assert found == 2 and "-O sets options of methods that need no training" in err
    found, _, err = call("st-apply", "-m", microast, "a.png", "-o", "b.png")
    assert found == 2 and "microast needs a style" in err


def test_training_goes_on_from_a_published_model(call, peers, picture, slim):
    published = peers("fns_web/candy_nc8.pth")
    for number in range(3):
        picture(f"photos/{number}.png", 40, 40, number)
    style = picture("style.png", 40, 37, 9)
    words = ("johnson", "--init", published, "--content", "photos", "--style", style, "-o", "mine.safetensors")
    short = ("--steps", 1, "--batch-size", 1, "--crop-size", 32, "--holdout", 0, "--warmup", 1000, "--ema", 0)
    assert call("st-train", *words, *short)[0] == 0
    theirs, ours = modelfile.read(published), modelfile.read("mine.safetensors")
    assert ours[1]["widths"] == theirs[1]["widths"]
    for key, tensor in theirs[2].items():
        assert (ours[2][key] - tensor).abs().max() < 1e-3, "one step at a thousandth of the rate changes little"
