"""st-train: from the command line to a model file."""

import json
import os
import signal
import tarfile
import time

import pytest
from PIL import Image

from styletools import errors, methods, modelfile
from styletools.cli import st_train

pytestmark = pytest.mark.usefixtures("slim")

SMALL = ["--batch-size", "2", "--crop-size", "32", "-O", "channels=4", "-O", "widths=4", "--threads", "1"]


def test_trains_and_resumes_bit_for_bit(call, pictures, folder):
    data = ["--content", pictures, "--style", f"{pictures}/[0-3].png:3", "--style", pictures, "--holdout", "4"]
    options = ["-O", "style_weight=2.5", "--validate-every", "2", "--seed", "3", "--licence", "CC0"]
    status, out, err = call("st-train", "live", *data, "-o", "whole.safetensors", *SMALL, *options, "--steps", "4")
    assert (status, out, err) == (0, b"", "")
    header = modelfile.check("whole.safetensors")
    assert header["method"] == "live" and header["step"] == "4" and header["licence"] == "CC0"
    config = json.loads(header["config"])
    assert config["channels"] == 4 and config["style_weight"] == 2.5 and config["backbone"] == "slim"
    assert header["created_by"].startswith(f"st-train live --content {pictures} --style '{pictures}/[0-3].png:3'")
    assert header["trained_on"] == f"{pictures.name} (6 images), [0-3].png (3 images), {pictures.name} (6 images)"
    assert any("validation" in json.loads(line) for line in (folder / "whole.log.jsonl").read_text().splitlines())

    # A part of the schedule, then the rest: the configuration comes from the model file.
    schedule = ["--schedule", "constant", "--seed", "3", "--batch-size", "2", "--crop-size", "32"]
    call("st-train", "live", *data, "-o", "straight.safetensors", *SMALL, *schedule, "--steps", "4")
    half_way = ["--steps", "2", "--trained-on", "mine"]
    call("st-train", "live", *data, "-o", "parts.safetensors", *SMALL, *schedule, *half_way)
    status, _, err = call("st-train", "live", *data, "-o", "parts.safetensors", *schedule, "--steps", "4", "--resume")
    assert (status, err) == (0, "")
    header = modelfile.check("parts.safetensors")
    assert header["step"] == "4" and header["trained_on"] == "mine" and "--resume" not in header["created_by"]
    straight, parts = (modelfile.load(f"{name}.safetensors").nets.state_dict() for name in ("straight", "parts"))
    assert all((straight[key] == parts[key]).all() for key in straight)


def test_init_starts_from_a_model(call, pictures, live_model, folder):
    data = ["--content", pictures, "--style", pictures, "--holdout", "0"]
    words = ["--steps", "1", "--batch-size", "2", "--crop-size", "32", "--init", live_model, "--half", "-O", "lr=0"]
    status, _, err = call("st-train", "live", *data, "-o", "new/x.safetensors", *words)
    assert (status, err) == (0, "")
    before, after = (modelfile.load(path).nets["trunk"].state_dict() for path in (live_model, "new/x.safetensors"))
    assert all((before[key] - after[key]).abs().max() < 1e-2 for key in before)
    assert modelfile.load("new/x.safetensors").config.channels == 8
    assert call("st-train", "distill", "--images", pictures, "-o", "y.safetensors", "--init", live_model)[0] == 78


def test_what_can_be_found_before_the_work(call, pictures, folder, live_model):
    distill = ["distill", "--images", pictures, "-o", "x.safetensors"]
    (folder / "log.log.jsonl").mkdir()
    (folder / "sheets.samples").touch()
    for words, status, message in [
        (["gatys", "-o", "x.safetensors"], 2, "'gatys' is not one of"),
        (["live", "-o", "x.safetensors", "--content", pictures], 2, "live needs --style"),
        (["live", "-o", "x.safetensors", "--images", pictures, "--content", pictures], 2, "needs --style"),
        ([*distill, "--style", pictures], 2, "distill trains on --images, not on --style"),
        (["distill", "--images", "gone/", "-o", "x.safetensors"], 66, "gone/: no such file"),
        (["distill", "--images", "gone/*.png:3", "-o", "x.safetensors"], 66, "gone/*.png: no such file"),
        (["distill", "--images", f"{pictures}:0", "-o", "x.safetensors"], 2, "weight"),
        ([*distill, "-O", "nope=1"], 2, "distill has no option 'nope'"),
        ([*distill, "-O", "lr=much"], 2, "float expected"),
        ([*distill[:-1], "x.pth"], 2, "ends in .safetensors"),
        ([*distill, "--crop-size", "8"], 2, "--crop-size"),
        ([*distill, "--crop-size", "a,b"], 2, "--crop-size"),
        ([*distill, "--time-budget", "soon"], 2, "--time-budget"),
        ([*distill, "--resume"], 66, "nothing to resume from"),
        ([*distill, "--init", "gone.safetensors"], 66, "gone.safetensors"),
        (["distill", "--images", pictures], 2, "'-o'"),
        ([*distill, "--resume", "--overwrite"], 2, "only one of them"),
        ([*distill, "--patience", "2", "--holdout", "0"], 2, "--patience needs validations"),
        ([*distill, "--patience", "0"], 2, "--patience"),
        ([*distill, "--weight-decay", "-1"], 2, "--weight-decay"),
        ([*distill, "--images", "-", "--images", "-:2"], 2, "standard input can be read only once"),
        ([*distill[:-1], "log.safetensors"], 73, "log.log.jsonl: is a directory"),
        ([*distill[:-1], "sheets.safetensors"], 73, "sheets.samples: is not a directory"),
    ]:
        found, out, err = call("st-train", *words)
        assert (found, out) == (status, b"") and message in err and err.count("\n") == 1, (words, err)
    assert [name for name in os.listdir(folder) if name.startswith("x.")] == []
    (folder / "x.resume.pt").touch()
    (folder / "x.safetensors").write_bytes(live_model.read_bytes())
    assert call("st-train", *distill, "--resume")[0] == 78
    assert call("st-train", *distill, "--resume", "--init", live_model)[0] == 2


def test_an_earlier_run_is_not_overwritten_unasked(call, pictures, folder):
    words = ["live", "--content", pictures, "--style", pictures, "--holdout", "0", *SMALL, "--steps", "1"]
    assert call("st-train", *words, "-o", "x.safetensors")[0] == 0
    before = (folder / "x.safetensors").read_bytes()
    for left in (["x.safetensors"], ["x.resume.pt"], ["x.safetensors", "x.resume.pt"]):
        for name in ("x.safetensors", "x.resume.pt"):
            (folder / name).touch() if name in left else (folder / name).unlink(missing_ok=True)
        status, _, err = call("st-train", *words, "-o", "x.safetensors", "--seed", "5")
        assert status == 2 and f"{left[0]}: of an earlier run: --resume goes on, --overwrite begins anew" in err
    (folder / "x.samples/step-000077.png").touch()
    assert call("st-train", *words, "-o", "x.safetensors", "--seed", "5", "--overwrite")[::2] == (0, "")
    assert (folder / "x.safetensors").read_bytes() != before
    assert not (folder / "x.samples/step-000077.png").exists()


def test_sheets_change_nothing(call, pictures, folder):
    for every in (0, 2):
        words = ["live", "--content", pictures, "--style", pictures, "--holdout", "4", *SMALL, "--steps", "4"]
        words += ["-o", f"{every}.safetensors", "--sample-every", every]
        assert call("st-train", *words)[::2] == (0, "")
    with Image.open(folder / "2.samples/step-000004.png") as sheet:
        assert sheet.size == (3 * 32, 2 * 32)
    assert not (folder / "0.samples").exists()
    without, having = (modelfile.load(f"{every}.safetensors").nets.state_dict() for every in (0, 2))
    assert all((without[key] == having[key]).all() for key in without)


def test_freezing_names_of_the_method(call, pictures, folder):
    words = ["live", "--content", pictures, "--style", pictures, *SMALL, "-o", "x.safetensors", "--freeze", "trunc"]
    status, _, err = call("st-train", *words)
    assert status == 2 and "live has no network 'trunc' to freeze: it has trunk, encoder, scales" in err
    assert not (folder / "x.safetensors").exists()


def test_tensorboard_is_asked_for_before_the_work(call, pictures, folder, monkeypatch):
    words = ["distill", "--images", pictures, "-o", "x.safetensors", "--tensorboard"]
    monkeypatch.setattr(st_train.importlib.util, "find_spec", lambda name: None)
    status, _, err = call("st-train", *words)
    assert status == 69 and "pip install tensorboard" in err and err.count("\n") == 1
    assert list(folder.glob("x.*")) == []


def test_sources_of_every_kind(call, pictures, folder):
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(pictures, "pictures")
    paths = "".join(f"{pictures}/{i}.png\n" for i in range(3)).encode()
    words = ["live", "--content", "*.tar", "--content", pictures / "0.png", "--style", "-:2", "--holdout", "0", *SMALL]
    status, _, err = call("st-train", *words, "-o", "x.safetensors", "--steps", "2", stdin=paths)
    assert (status, err) == (0, "")
    assert modelfile.check("x.safetensors")["step"] == "2"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1H5M3S", 3903)]
)
def test_time_budgets(text, seconds):
    assert st_train._seconds(None, None, text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1d", "1.5h", "-3m", "1m1h"])
def test_wrong_time_budgets(text):
    with pytest.raises(errors.UsageError):
        st_train._seconds(None, None, text)


def test_every_method_that_trains_has_its_data_options():
    for name in methods.names():
        trains_on = methods.describe(name).trains_on
        assert trains_on == "nothing" or trains_on in st_train.DATA, name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_signals_save_and_end(start, pictures, folder, number):
    words = ["st-train", "live", "--content", pictures, "--style", pictures, "-o", "x.safetensors", *SMALL]
    process = start(*map(str, words), "--steps", "1000000")
    log = folder / "x.log.jsonl"
    end = time.monotonic() + 90
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == -number
    header = modelfile.check("x.safetensors")
    assert int(header["step"]) >= 50 and (folder / "x.resume.pt").exists()
    assert not list(folder.glob(".*.part"))
    assert f"stopped at step {header['step']}" in process.stderr.read().decode()
