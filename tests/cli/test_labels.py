"""Models of labels, from a folder of folders to st-apply --style-label."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import methods, modelfile

pytestmark = pytest.mark.usefixtures("slim")

PLAN = ["--batch-size", "3", "--crop-size", "32", "--threads", "1", "--seed", "3", "--schedule", "constant"]
TINY = ["-O", "width=4", "-O", "blocks=1", "-O", "embedding=6", "-O", "discriminator_width=4"]
FAST = ["--warmup", "0", "--ema", "0", "-O", "lr_g=0.01"]


@pytest.fixture
def cultures(pictures, folder):
    """A folder of labels: pictures of unlike sizes, grey and with alpha among them, one alone in its folder."""
    for label, numbers in {"oil painting": (0, 1, 2), "ink": (3, 4), "ukiyo-e": (5,), ".hidden": (6,)}.items():
        (folder / "cultures" / label).mkdir(parents=True)
        for number in numbers:
            shutil.copy(pictures / f"{number}.png", folder / "cultures" / label)
    Image.open(pictures / "0.png").convert("L").resize((40, 90)).save(folder / "cultures/ink/grey.png")
    Image.open(pictures / "1.png").convert("RGBA").resize((20, 20)).save(folder / "cultures/ink/small.png")
    (folder / "cultures/notes.txt").write_text("no label")
    return folder / "cultures"


@pytest.fixture(scope="module")
def model(tmp_path_factory, random_slim):
    """An untrained model of three labels that paints in each of them visibly otherwise."""
    path = tmp_path_factory.mktemp("models") / "cultures.safetensors"
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLETOOLS_WEIGHTS", str(random_slim))
        torch.manual_seed(1)
        settings = {"labels": "ink,oil painting,ukiyo-e", "width": 4, "blocks": 1, "embedding": 6}
        method = methods.create("culturegan", settings | {"discriminator_width": 4})
        torch.nn.init.normal_(method.nets["decoder"].out.weight, 0, 0.1)
        modelfile.save(path, "culturegan", method)
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def config(path):
    return json.loads(modelfile.check(path)["config"])


def test_trains_and_resumes_bit_for_bit(call, pictures, cultures, folder):
    data = ["culturegan", "--content", pictures, "--labelled", cultures, "--holdout", "3"]
    words = [*data, *PLAN, "--validate-every", "2", "--sample-every", "2"]
    alone = "st-train: warning: --labelled ukiyo-e: a single picture: little but its colours can be learnt from it\n"
    for name, steps in [("whole", 4), ("parts", 3)]:
        assert call("st-train", *words, *TINY, "-o", f"{name}.safetensors", "--steps", steps)[::2] == (0, alone)
    assert call("st-train", *words, "-o", "parts.safetensors", "--steps", "4", "--resume")[::2] == (0, alone)
    states = [torch.load(f"{name}.resume.pt", weights_only=True) for name in ("whole", "parts")]
    for key, value in states[0]["nets"].items():
        assert torch.equal(value, states[1]["nets"][key]), key
    assert torch.equal(states[0]["random"], states[1]["random"])
    header = modelfile.check("whole.safetensors")
    assert json.loads(header["config"])["labels"] == "ink,oil painting,ukiyo-e"
    assert header["trained_on"].endswith("(5 images), ink (2 images), oil painting (2 images), ukiyo-e (1 images)")
    told = [json.loads(line) for line in (folder / "whole.log.jsonl").read_text().splitlines()]
    assert {"loss", "content", "style", "label_accuracy", "diversity"} <= set(told[0]["validation"])
    # A row: the photograph, a picture of some label, the photograph in each of three.
    assert pixels("whole.samples/step-000004.png").shape == (3 * 32, 5 * 32, 3)


def test_going_on_with_other_pictures_and_other_labels(call, pictures, cultures, folder):
    begin = ["culturegan", "--content", pictures, *PLAN, "--holdout", "0"]
    assert call("st-train", *begin, "--labelled", cultures, *TINY, "-o", "x.safetensors", "--steps", "1")[0] == 0
    on = [*begin, "-o", "x.safetensors", "--resume", "--steps", "2"]
    three = ["--labelled", f"ink={pictures}/[0-3].png", "--labelled", f"ukiyo-e={pictures}/[4-5].png"]
    status, _, err = call("st-train", *on, *three)
    assert status == 78 and "x.safetensors: its labels are ink,oil painting,ukiyo-e, not ink,ukiyo-e" in err
    assert call("st-train", *on, *three, "--labelled", f"oil painting={pictures}")[::2] == (0, "")
    assert modelfile.check("x.safetensors")["step"] == "2"

    # From the model: what it knows of a label goes with the name.
    more = [*begin, "--labelled", f"new={pictures}", "--labelled", f"ukiyo-e={pictures}", "-O", "lr_g=0"]
    words = ["-o", "y.safetensors", "--steps", "1", "--ema", "0", "--init", "x.safetensors"]
    assert call("st-train", *more, *words)[::2] == (0, "")
    assert config("y.safetensors")["labels"] == "new,ukiyo-e" and config("y.safetensors")["width"] == 4
    old, new = (modelfile.load(f"{name}.safetensors").nets["styles"].weight.detach() for name in "xy")
    assert torch.equal(new[1], old[2]) and not any(torch.equal(new[0], row) for row in old)
    for setting in ("embedding=9", "discriminator_width=8", "style_layers=relu1_1"):
        status, _, err = call("st-train", *more, "-o", "z.safetensors", "--init", "x.safetensors", "-O", setting)
        assert status == 78 and "x.safetensors: its tensors do not fit" in err and err.count("\n") == 1, err


def test_labels_in_archives_and_behind_links(call, pictures, cultures, folder):
    with tarfile.open(cultures / "gouache v1.2.tar", "w") as tar:
        tar.add(pictures, "any")
    (cultures / "link").symlink_to(pictures)
    words = ["culturegan", "--content", pictures, "--labelled", cultures, *PLAN, *TINY, "-q"]
    assert call("st-train", *words, "-o", "x.safetensors", "--steps", "1")[::2] == (0, "")
    assert config("x.safetensors")["labels"] == "gouache v1.2,ink,link,oil painting,ukiyo-e"
    assert "gouache v1.2.tar (7 images)" in modelfile.check("x.safetensors")["trained_on"]


def test_freezing_for_fine_tuning(call, pictures, cultures, folder, model):
    for net in ("encoder", "decoder", "discriminator"):
        words = ["culturegan", "--content", pictures, "--labelled", cultures, *PLAN, *FAST, "--init", model, "-q"]
        words += ["--freeze", net, "--weight-decay", "0.1", "-o", f"{net}.safetensors", "--steps", "1"]
        assert call("st-train", *words)[::2] == (0, "")
        before, after = (modelfile.load(path).nets for path in (model, f"{net}.safetensors"))
        same = {
            name
            for name in before
            if all(torch.equal(a, b) for a, b in zip(before[name].parameters(), after[name].parameters()))
        }
        assert same == {net}


def test_wrong_data(call, pictures, cultures, folder):
    (folder / "bare/ink").mkdir(parents=True)
    (folder / "odd/a,b").mkdir(parents=True)
    (folder / "flat").mkdir()
    (folder / "twice/ink").mkdir(parents=True)
    (folder / "twice/ink.tar").touch()
    for number, name in enumerate([" ink", "two\nlines"]):
        shutil.copytree(pictures, folder / f"odd{number}" / name)
    begin = ["culturegan", "-o", "x.safetensors", "--steps", "1"]
    start = [*begin, "--content", pictures]
    for words, status, message in [
        (begin, 2, "culturegan needs --content"),
        (start, 2, "culturegan needs --labelled"),
        ([*start, "--labelled", "gone"], 66, "gone: no such folder"),
        ([*start, "--labelled", "gone/"], 66, "gone/: no such folder"),
        ([*start, "--labelled", "ink=gone"], 66, "gone: no such file"),
        ([*start, "--labelled", "flat"], 66, "flat: no folders in it: --labelled needs one for each style"),
        ([*start, "--labelled", pictures], 66, "no folders in it"),
        ([*start, "--labelled", pictures / "0.png"], 2, "a folder of folders or LABEL=SPEC expected"),
        ([*start, "--labelled", "bare"], 66, "bare/ink: no images there"),
        ([*start, "--labelled", "odd"], 2, "'a,b' is no label"),
        ([*start, "--labelled", f"a:b={pictures}"], 2, "'a:b' is no label"),
        ([*start, "--labelled", f"={pictures}"], 2, "'' is no label"),
        ([*start, "--labelled", "odd0"], 2, "' ink' is no label"),
        ([*start, "--labelled", "odd1"], 2, "'two\\nlines' is no label"),
        ([*start, "--labelled", "ink="], 2, "a folder of folders or LABEL=SPEC expected"),
        ([*start, "--labelled", cultures, "--labelled", f"ink={pictures}"], 2, "the label ink comes twice"),
        ([*start, "--labelled", "twice"], 2, "the label ink comes twice"),
        ([*start, "--labelled", f"ink={pictures}:2"], 2, "all labels come equally often"),
        ([*start, "--labelled", cultures, "-O", "labels=a"], 2, "-O labels: they are those of --labelled"),
        ([*start, "--style", pictures], 2, "culturegan trains on --content and --labelled, not on --style"),
        (["cut", *start[1:3], "--a", pictures, "--b", pictures, "--labelled", cultures], 2, "not on --labelled"),
        ([*start, "--labelled", cultures, "--crop-size", "34"], 2, "multiples of 4"),
    ]:
        found, out, err = call("st-train", *words, "-q")
        assert (found, out) == (status, b"") and message in err and err.count("\n") == 1, (words, err)


def test_labels_and_mixtures(call, model, picture, folder):
    photo = picture("a.png", 37, 22)
    painting = picture("b.png", 40, 30, seed=5)
    for name, words in {
        "ink": ["--style-label", "ink"],
        "oil": ["--style-label", "oil painting"],
        "mixed": ["--style-label", "ink:0.6,oil painting:0.4"],
        "again": ["--style-label", "oil painting:2", "--style-label", "ink:3"],
        "picture": ["-s", painting],
        "both": ["-s", painting, "--style-label", "ink"],
        "label alone": ["-s", f"{painting}:0", "--style-label", "ink"],
        "picture alone": ["-s", painting, "--style-label", "ink:0"],
        "masked": ["--style-label", "ink", "--mask", photo, "--outside", painting],
    }.items():
        assert call("st-apply", "-m", model, photo, "-o", f"{name}.png", *words)[::2] == (0, ""), name
    found = {name: pixels(f"{name}.png") for name in ("ink", "oil", "mixed", "picture", "both", "masked")}
    assert all(made.shape == (22, 37, 3) for made in found.values())
    assert len({made.tobytes() for made in found.values()}) == len(found)
    assert (pixels("again.png") == found["mixed"]).all()
    assert (pixels("label alone.png") == found["ink"]).all()
    assert (pixels("picture alone.png") == found["picture"]).all()


def test_a_style_record_of_pictures(call, model, picture, folder):
    photo, painting = picture("a.png", 37, 22), picture("b.png", 40, 30, seed=5)
    status, record, err = call("st-gram", "--for", model, painting)
    assert (status, err) == (0, "")
    (folder / "style.safetensors").write_bytes(record)
    assert call("st-apply", "-m", model, "-s", "style.safetensors", photo, "-o", "x.png")[::2] == (0, "")
    assert call("st-apply", "-m", model, "-s", painting, photo, "-o", "y.png")[::2] == (0, "")
    assert (pixels("x.png") == pixels("y.png")).all()


def test_models_of_labels_are_compared_by_their_painting(call, model, picture, folder):
    photo, painting = picture("a.png", 40, 32), picture("b.png", 40, 32, seed=5)
    words = ["compare", "-m", f"cultures={model}", "--content", photo, "--style", painting, "--metrics", "content"]
    status, out, err = call("st-eval", *words, "--size", "32")
    assert status == 0 and b"cultures" in out, err


def test_the_label_is_part_of_what_makes_a_result(call, model, picture, folder):
    picture("in/a.png", 24, 20)

    def done(*words):
        assert call("st-apply", "-m", model, "in", "-o", "out/", *words)[::2] == (0, "")
        return pixels("out/a.png"), (folder / "out/a.png").stat().st_mtime_ns

    first, when = done("--style-label", "ink")
    assert done("--style-label", "ink:5")[1] == when, "the same, by another weight"
    second, later = done("--style-label", "ukiyo-e")
    assert later != when and (first != second).any()
    assert done("--style-label", "ukiyo-e,ink")[1] != later


def test_its_discriminator_judges(call, model, picture, folder):
    words = ["--output", picture("a.png", 40, 30), "--metrics", f"adversarial:{model}"]
    status, out, err = call("st-eval", *words)
    assert (status, err) == (0, "") and len(json.loads(out.splitlines()[0])["scores"]) == 1


def test_wrong_labels(call, model, live_model, picture, folder):
    photo = picture("a.png")
    for words, status, message in [
        ([], 2, "this model has several labels: --style-label LABEL, of ink, oil painting, ukiyo-e"),
        (["--style-label", "inc"], 2, "has no label 'inc': it has ink, oil painting, ukiyo-e; did you mean ink?"),
        (["--style-label", "xyzzy"], 2, "has no label 'xyzzy': it has ink, oil painting, ukiyo-e\n"),
        (["--style-label", "ink:-1"], 2, "the weight of a label must be 0 or more"),
        (["--style-label", "ink:0"], 2, "the weights of the styles must sum to more than 0"),
        (["--style-label", ""], 2, "an empty label"),
        (["--style-label", "ink:0", "-s", f"{photo}:0"], 2, "the weights of the styles must sum to more than 0"),
        (["-s", "gone.jpg"], 66, "gone.jpg: no such file"),
        (["-s", "ink"], 66, "ink: no such file, but a label: --style-label ink\n"),
        (["-s", "oil painting:0.5,ink"], 66, "but a label: --style-label 'oil painting'\n"),
        (["-s", "great-wave,ink"], 66, "but a label: --style-label ink\n"),
        (["-m", live_model, "-s", photo, "--style-label", "ink"], 2, "live has no labels: --style-label does not go"),
    ]:
        found, out, err = call("st-apply", "-m", model, *words, photo, "-o", "x.png")
        assert (found, out) == (status, b"") and message in err and err.count("\n") == 1, (words, err)


def test_a_single_label_needs_no_name(call, pictures, picture, folder):
    words = ["culturegan", "--content", pictures, "--labelled", f"ink={pictures}", *PLAN, *TINY, "--steps", "1"]
    assert call("st-train", *words, "-o", "x.safetensors")[::2] == (0, "")
    photo = picture("photo.png", 20, 20)
    assert call("st-apply", "-m", "x.safetensors", photo, "-o", "a.png")[::2] == (0, "")
    assert call("st-apply", "-m", "x.safetensors", "--style-label", "ink", photo, "-o", "b.png")[::2] == (0, "")
    assert (pixels("a.png") == pixels("b.png")).all()
