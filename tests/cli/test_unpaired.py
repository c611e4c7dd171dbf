"""Translation between two sets of pictures, from st-train to st-apply in both directions."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import methods, modelfile

PLAN = ["--batch-size", "2", "--crop-size", "32", "--threads", "1", "--seed", "3", "--schedule", "constant"]
TINY = {
    "cyclegan": ["-O", "width=4", "-O", "blocks=1", "-O", "discriminator_width=4", "-O", "depth=1", "-O", "pool=3"],
    "cut": ["-O", "width=4", "-O", "blocks=1", "-O", "discriminator_width=4", "-O", "depth=1", "-O", "places=16"],
}


@pytest.fixture
def sets(pictures, folder):
    """Folders as the field has them: of unlike sizes, grey and with alpha among them, more in A than in B."""
    for part, numbers in {"trainA": (0, 1, 2, 3), "trainB": (4, 5), "testA": (6,), "testB": (7,)}.items():
        (folder / "sets" / part).mkdir(parents=True)
        for number in numbers:
            shutil.copy(pictures / f"{number}.png", folder / "sets" / part)
    Image.open(pictures / "0.png").convert("L").resize((40, 90)).save(folder / "sets/trainA/grey.png")
    Image.open(pictures / "1.png").convert("RGBA").resize((20, 20)).save(folder / "sets/trainB/small.png")
    return folder / "sets"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny, untrained model whose directions differ."""
    path = tmp_path_factory.mktemp("models") / "two.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = {"width": 4, "blocks": 1, "discriminator_width": 4, "depth": 1}
        modelfile.save(path, "cyclegan", methods.create("cyclegan", settings))
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("method", TINY)
def test_trains_and_resumes_bit_for_bit(method, call, sets, folder):
    words = [method, "--data", sets, *PLAN, "--validate-every", "2", "--sample-every", "2"]
    assert call("st-train", *words, *TINY[method], "-o", "whole.safetensors", "--steps", "4")[::2] == (0, "")
    # The pool is full by then, and gives out what it holds.
    assert call("st-train", *words, *TINY[method], "-o", "parts.safetensors", "--steps", "3")[::2] == (0, "")
    assert call("st-train", *words, "-o", "parts.safetensors", "--steps", "4", "--resume")[::2] == (0, "")
    states = [torch.load(f"{name}.resume.pt", weights_only=True) for name in ("whole", "parts")]
    for key, value in states[0]["nets"].items():
        assert torch.equal(value, states[1]["nets"][key]), key
    assert torch.equal(states[0]["random"], states[1]["random"])
    assert modelfile.check("whole.safetensors")["trained_on"] == "trainA (5 images), trainB (3 images)"
    told = [json.loads(line) for line in (folder / "whole.log.jsonl").read_text().splitlines()]
    scores = told[0]["validation"]
    assert {"loss", "adversarial", "identity", "discriminator", "accuracy", "diversity"} <= set(scores)
    columns = {"cyclegan": 4, "cut": 3}[method]
    assert pixels("whole.samples/step-000004.png").shape == (2 * 32, columns * 32, 3)


def test_validation_is_of_the_test_folders(call, sets, folder, monkeypatch):
    """Whatever is drawn from them is drawn for validation, and from nowhere else."""
    seen = []

    def validate(self, batch):
        seen.append({name: images.flatten(1).std(1).max() for name, images in batch.items()})
        return {"loss": torch.zeros(())}

    from styletools.methods.cut import CUT

    monkeypatch.setattr(CUT, "validate", validate)
    for name in ("testA", "testB"):
        shutil.rmtree(sets / name)
        (sets / name).mkdir()
        Image.new("RGB", (40, 40), (9, 9, 9)).save(sets / name / "flat.png")
    words = ["cut", "--data", sets, *PLAN, *TINY["cut"], "--steps", "1", "--validate-every", "1"]
    assert call("st-train", *words, "-o", "x.safetensors")[::2] == (0, "")
    assert seen and all(float(spread) < 1e-6 for batch in seen for spread in batch.values())


def test_two_folders_and_a_single_picture(call, pictures, sets, folder):
    words = ["cut", "--a", f"{pictures}/*.png", "--b", sets / "trainB/4.png", *PLAN, *TINY["cut"], "--steps", "1"]
    status, _, err = call("st-train", *words, "-o", "x.safetensors")
    assert status == 0 and "--b: a single picture" in err and err.count("\n") == 1


def test_wrong_data(call, pictures, sets, folder):
    (folder / "half/trainA").mkdir(parents=True)
    (folder / "bare/trainA").mkdir(parents=True)
    (folder / "bare/trainB").mkdir(parents=True)
    cyclegan = ["cyclegan", "-o", "x.safetensors"]
    for words, status, message in [
        (cyclegan, 2, "cyclegan needs --a"),
        ([*cyclegan, "--a", pictures], 2, "cyclegan needs --b"),
        ([*cyclegan, "--a", pictures, "--b", "gone"], 66, "gone: no such file"),
        ([*cyclegan, "--content", pictures], 2, "cyclegan trains on --a and --b, not on --content"),
        ([*cyclegan, "--data", sets, "--a", pictures], 2, "--data stands for --a and --b"),
        ([*cyclegan, "--data", "half"], 66, "half/trainB: no such folder: --data needs trainA and trainB"),
        ([*cyclegan, "--data", "gone"], 66, "gone/trainA: no such folder"),
        ([*cyclegan, "--data", "bare"], 66, "bare/trainA: no images there"),
        (["distill", "-o", "x.safetensors", "--data", sets], 2, "distill trains on --images, not on --data"),
        (["distill", "-o", "x.safetensors", "--images", sets, "--a", sets], 2, "not on --a"),
        ([*cyclegan, "--data", sets, "--crop-size", "34"], 2, "multiples of 4"),
        ([*cyclegan, "--data", sets, "-O", "adversarial=wgan"], 2, "lsgan, vanilla or hinge"),
    ]:
        found, out, err = call("st-train", *words)
        assert (found, out) == (status, b"") and message in err and err.count("\n") == 1, (words, err)


def test_both_directions(call, model, picture, folder):
    photo = picture("a.png", 37, 22)
    for name, words in {"default": [], "there": ["--direction", "a2b"], "back": ["--direction", "b2a"]}.items():
        assert call("st-apply", "-m", model, photo, "-o", f"{name}.png", *words)[::2] == (0, "")
    there, back = pixels("there.png"), pixels("back.png")
    assert there.shape == pixels(photo).shape and (there == pixels("default.png")).all()
    assert (there != back).mean() > 0.5


def test_the_direction_is_part_of_what_makes_a_result(call, model, picture, folder):
    picture("in/a.png", 24, 20)

    def done(*words):
        assert call("st-apply", "-m", model, "in", "-o", "out/", *words)[::2] == (0, "")
        return pixels("out/a.png"), (folder / "out/a.png").stat().st_mtime_ns

    first, when = done()
    assert done("--direction", "a2b")[1] == when, "the default, said aloud"
    second, later = done("--direction", "b2a")
    assert later != when and (first != second).any()


def test_its_discriminator_judges(call, model, picture, folder):
    words = ["--output", picture("a.png", 40, 30), "--metrics", f"adversarial:{model}"]
    status, out, err = call("st-eval", *words)
    assert (status, err) == (0, "")
    loaded = modelfile.load(model)
    image = torch.from_numpy(pixels("a.png") / 255).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = float(loaded.nets["judge_b"](image).mean())
    (found,) = json.loads(out.splitlines()[0])["scores"].values()
    assert found == pytest.approx(expected, abs=1e-4)


def test_wrong_directions(call, model, live_model, picture, folder):
    photo = picture("a.png")
    for words, message in [
        (["-m", model, "--direction", "b2c"], "--direction b2c: cyclegan does not go there: choose from a2b, b2a"),
        (["-m", live_model, "-s", photo, "--direction", "a2b"], "live does not go there: it goes one way only"),
        (["-m", model, "-s", photo], "cyclegan has its style built in"),
        (["-m", "cyclegan"], "cyclegan needs a trained model"),
    ]:
        status, out, err = call("st-apply", *words, photo, "-o", "x.png")
        assert status == 2 and out == b"" and message in err and err.count("\n") == 1, err
