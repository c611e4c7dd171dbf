"""The training loop: resumed bit for bit, stopped in time, and honest about what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from styletools import errors, methods, modelfile
from styletools.engine import data, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def handlers():
    """Give back what the loop does to signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Line(methods.Method):
    """Fits one number; `losses` are given out in turn."""

    def __init__(self, losses=(), pause=0.0):
        self.config = methods.create("gatys").config
        self.nets = nn.ModuleDict({"line": nn.Linear(1, 1)})
        self.losses, self.pause, self.steps = losses, pause, []

    def optimizers(self):
        return {"line": torch.optim.SGD(self.nets["line"].parameters(), lr=0.1)}

    def train_step(self, batch, optimizers, step):
        time.sleep(self.pause)
        self.steps.append(step)
        loss = (self.nets["line"](torch.ones(1, 1)) - 3).square().mean()
        if step < len(self.losses):
            loss = loss * self.losses[step]
        self.update(optimizers["line"], loss)
        return {"loss": loss}


def batches(pictures, *names, held_out=False, size=32):
    source = data.Source(str(pictures), holdout=4)
    return data.Batches({n: data.Crops([source], 0, i, held_out) for i, n in enumerate(names)}, 2, [size])


def run(method, pictures, output, plan, **kwargs):
    return train.train("gatys", method, batches(pictures, "images", size=8), None, output, plan, device=CPU, **kwargs)


def journal(output):
    return [json.loads(line) for line in output.with_suffix(".log.jsonl").read_text().splitlines()]


def test_the_rate_of_learning():
    plan = train.Plan(steps=1000, warmup=10, schedule="cosine")
    assert train.rate(plan, 0) == pytest.approx(0.1, rel=0.01)
    assert train.rate(plan, 10) == pytest.approx(1, rel=0.01)
    assert train.rate(plan, 500) == pytest.approx(0.505, rel=0.01)
    assert train.rate(plan, 1000) == pytest.approx(0.01)
    flat = train.Plan(steps=1000, warmup=0, schedule="trapezoid")
    assert [train.rate(flat, s) for s in (0, 700, 850)] == pytest.approx([1, 1, 0.5])
    assert 0 < train.rate(flat, 1000) < 0.02
    assert train.rate(train.Plan(warmup=0, schedule="constant"), 9999) == 1


def test_it_learns_saves_and_writes_a_journal(pictures, tmp_path):
    output = tmp_path / "m.safetensors"
    torch.manual_seed(0)
    method = Line()
    assert run(method, pictures, output, train.Plan(steps=120, ema=0, warmup=0), trained_on="eight pictures") == 120
    assert method.steps == list(range(120))
    assert float(method.nets["line"](torch.ones(1, 1)).detach()) == pytest.approx(3, abs=1e-2)
    header = modelfile.check(output)
    assert header["step"] == "120" and header["trained_on"] == "eight pictures"
    entries = journal(output)
    assert [entry["step"] for entry in entries] == [50, 100]
    assert entries[0]["loss"] > entries[1]["loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.log.jsonl", "m.resume.pt", "m.safetensors"]


def test_averaged_weights_are_what_is_saved(pictures, tmp_path):
    method = Line()
    run(method, pictures, tmp_path / "m.safetensors", train.Plan(steps=30, ema=0.9, warmup=0))
    saved = load_file(tmp_path / "m.safetensors")["line.weight"]
    assert not torch.equal(saved, method.nets["line"].weight.detach())
    torch.testing.assert_close(saved, method.nets["line"].weight.detach(), rtol=0.3, atol=0.3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_model(pictures, tmp_path, bad):
    output = tmp_path / "m.safetensors"
    method = Line(losses=[1] * 25 + [bad])
    with pytest.raises(errors.DataError, match="loss loss became (nan|inf) at step 26"):
        run(method, pictures, output, train.Plan(steps=100, save_every=10, warmup=0))
    assert modelfile.check(output)["step"] == "20"
    assert all(torch.isfinite(p).all() for p in method.nets.parameters()), "no step was made on it"
    again = Line()
    assert run(again, pictures, output, train.Plan(steps=40, warmup=0), resume=True) == 40
    assert again.steps == list(range(20, 40))


def test_the_time_budget(pictures, tmp_path):
    output = tmp_path / "m.safetensors"
    began = time.monotonic()
    plan = train.Plan(steps=100_000, time_budget=0.5)
    done = run(Line(pause=0.02), pictures, output, plan)
    assert 1 <= done <= 40 and time.monotonic() - began < 20
    assert modelfile.check(output)["step"] == str(done)
    # What is spent is spent: a resumed run does not get the time again.
    assert run(Line(pause=0.02), pictures, output, plan, resume=True) <= done + 2


def test_clipped_gradients(pictures, tmp_path):
    method = Line(losses=[1e6] * 3)
    before = method.nets["line"].weight.detach().clone()
    run(method, pictures, tmp_path / "m.safetensors", train.Plan(steps=1, clip=1.0, warmup=0))
    assert (method.nets["line"].weight.detach() - before).abs().max() <= 0.1 + 1e-6


def test_a_broken_image_does_not_stop_it(pictures, tmp_path, capsys):
    for path in pictures.iterdir():
        os.link(path, tmp_path / path.name)
    (tmp_path / "2b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(Line(), tmp_path, tmp_path / "out" / "m.safetensors", train.Plan(steps=40)) == 40
    assert capsys.readouterr().err.count("2b.png: skipped") == 1


def test_what_cannot_be_resumed(pictures, tmp_path):
    output = tmp_path / "m.safetensors"
    with pytest.raises(errors.MissingInput, match="m.resume.pt: nothing to resume from"):
        run(Line(), pictures, output, train.Plan(steps=2), resume=True)
    run(Line(), pictures, output, train.Plan(steps=2))
    other = Line()
    other.nets = nn.ModuleDict({"line": nn.Linear(2, 1)})
    with pytest.raises(errors.DoesNotFit, match="made by another method or configuration"):
        run(other, pictures, output, train.Plan(steps=2), resume=True)
    (tmp_path / "m.resume.pt").write_bytes(b"nothing")
    with pytest.raises(errors.DataError, match="m.resume.pt: cannot be resumed from"):
        run(Line(), pictures, output, train.Plan(steps=2), resume=True)


SCRIPT = """
import sys
from pathlib import Path
import torch
from styletools import methods
from styletools.engine import data, train

torch.set_num_threads(1)
name, pictures, output, resume = sys.argv[1:]
config = {"live": {"channels": 8, "blocks": 1}, "distill": {"teacher": "slim", "deep_teacher": ""}}[name]
keys = {"live": ("content", "style"), "distill": ("images",)}[name]
source = data.Source(pictures, holdout=4)
make = lambda held_out: data.Batches({k: data.Crops([source], 0, i, held_out) for i, k in enumerate(keys)}, 2, [16, 24])
torch.manual_seed(0)
method = methods.create(name, config)
plan = train.Plan(steps=24, warmup=5, validate_every=10, save_every=7, ema=0.9, seed=3)
step = method.train_step
def told(batch, optimizers, n):
    print(n, flush=True)
    return step(batch, optimizers, n)
method.train_step = told
train.train(name, method, make(False), make(True), Path(output), plan, device=torch.device("cpu"),
            resume=resume == "yes")
"""


def start(name, pictures, output, resume):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name, str(pictures), str(output), "yes" if resume else "no"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return [int(line) for line in out.split()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("live", signal.SIGTERM), ("distill", signal.SIGINT)])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, number, slim, pictures, tmp_path):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert finish(start(name, pictures, whole, False)) == list(range(24))

    seen = []
    stop_at = int.from_bytes(os.urandom(1), "big") % 20 + 1  # any moment must do
    process = start(name, pictures, parts, False)
    for line in process.stdout:
        seen.append(int(line))
        if seen[-1] == stop_at:
            process.send_signal(number)
            break
    rest, err = process.communicate(timeout=300)
    seen += [int(line) for line in rest.split()]
    assert process.returncode == -number, err
    assert "--resume goes on from here" in err and "Traceback" not in err
    seen += finish(start(name, pictures, parts, True))
    assert seen == list(range(24)), "no step was lost or made twice"

    assert modelfile.read_header(parts) == modelfile.read_header(whole)
    assert_equal(load_file(parts), load_file(whole))
    states = [torch.load(path.with_suffix(".resume.pt"), weights_only=True) for path in (whole, parts)]
    for state in states:
        state.pop("spent")
    assert_equal(*states)


def assert_equal(a, b, where="state"):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.slow
def test_killed_at_any_moment_the_saved_files_are_whole(slim, pictures, tmp_path):
    output = tmp_path / "m.safetensors"
    process = start("live", pictures, output, False)
    for line in process.stdout:
        if int(line) == 16:
            process.kill()
            break
    process.communicate(timeout=60)
    assert modelfile.load(output).config.channels == 8
    assert finish(start("live", pictures, output, True))[0] in (14, 21)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "keys"),
    [
        ("live", {"channels": 16, "blocks": 1}, ("content", "style")),
        ("distill", {"teacher": "slim", "deep_teacher": ""}, ("images",)),
    ],
)
def test_losses_fall(name, config, keys, slim, pictures, tmp_path):
    torch.manual_seed(0)
    method = methods.create(name, config)
    if hasattr(method, "initialize"):
        method.initialize({key: value.float() / 255 for key, value in batches(pictures, *keys).make(0).items()})
    made, step = batches(pictures, *keys), method.train_step
    seen = []

    def noted(*args):
        losses = step(*args)
        seen.append(float(losses["loss"].detach()))
        return losses

    method.train_step = noted
    plan = train.Plan(steps=25, warmup=0, schedule="constant", ema=0, amp=False)
    train.train(name, method, made, None, tmp_path / "m.safetensors", plan, device=CPU)
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5]), seen
