"""The training loop: resumed bit for bit, stopped in time, and honest about what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
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


class Pair(methods.Method):
    """Two nets, with normalisation, and a number that the method itself keeps; `scores` are its validations in turn."""

    def __init__(self, scores=()):
        self.config = methods.create("gatys").config
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3))
        self.nets = nn.ModuleDict({"first": net, "second": nn.Conv2d(3, 3, 1)})
        self.nets["first"].register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.scores = list(scores)

    def optimizers(self):
        return {key: torch.optim.Adam(net.parameters(), lr=0.01) for key, net in self.nets.items()}

    def train_step(self, batch, optimizers, step):
        self.nets["first"].seen += 1
        loss = (self.nets["second"](self.nets["first"](batch["images"])) - 0.3).square().mean()
        self.update(optimizers["first"], loss)
        again = (self.nets["second"](self.nets["first"](batch["images"])) - 0.3).square().mean()
        self.update(optimizers["second"], again)
        return {"loss": loss, "again": again}

    def validate(self, batch):
        drawn = torch.rand(())  # must not be missed by the training
        return {"loss": self.scores[int(self.nets["first"].seen)] if self.scores else drawn}

    def sample(self, batch):
        return 1 - batch["images"] + 0 * torch.rand(())


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
    half = train.Plan(steps=1000, warmup=0, schedule="linear")
    assert [train.rate(half, s) for s in (0, 500, 750)] == pytest.approx([1, 1, 0.5])
    assert train.rate(train.Plan(warmup=0, schedule="constant"), 9999) == 1


def test_the_rate_of_learning_ends_with_the_time():
    plan = train.Plan(steps=10_000, warmup=0, schedule="cosine", time_budget=60.0)
    assert train.rate(plan, 100, 30.0) == pytest.approx(0.505, rel=0.01), "half of the time is over"
    assert train.rate(plan, 9000, 30.0) == train.rate(train.Plan(steps=10_000, warmup=0), 9000), "steps end first"
    assert train.rate(plan, 100, 70.0) == pytest.approx(0.01)


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


def test_weights_decay_and_biases_do_not(pictures, tmp_path):
    method = Line(losses=[0.0] * 4)
    weight, bias = (p.detach().clone() for p in method.nets["line"].parameters())
    plan = train.Plan(steps=4, warmup=0, schedule="constant", weight_decay=0.5, ema=0)
    run(method, pictures, tmp_path / "m.safetensors", plan)
    torch.testing.assert_close(method.nets["line"].weight.detach(), weight * (1 - 0.1 * 0.5) ** 4)
    assert torch.equal(method.nets["line"].bias.detach(), bias)


def test_what_is_frozen_stays(pictures, tmp_path):
    torch.manual_seed(0)
    method = Pair()
    before = {key: value.clone() for key, value in method.nets.state_dict().items()}
    plan = train.Plan(steps=6, warmup=0, weight_decay=0.5, freeze=("first",), validate_every=3)
    validation = batches(pictures, "images", held_out=True)
    output = tmp_path / "m.safetensors"
    train.train("gatys", method, batches(pictures, "images"), validation, output, plan, device=CPU)
    for after in (method.nets.state_dict(), load_file(output)):
        changed = {key for key in before if not torch.equal(after[key], before[key])}
        assert changed == {"second.weight", "second.bias"}
    state = torch.load(tmp_path / "m.resume.pt", weights_only=True)["optimizers"]
    assert not state["first"]["state"] and state["second"]["state"]


def test_what_cannot_be_frozen(pictures, tmp_path):
    for freeze, message in [
        (("first", "third"), "gatys has no network 'third' to freeze: it has first, second"),
        (("first", "second"), "with first, second frozen, gatys has nothing left to train"),
    ]:
        with pytest.raises(errors.UsageError, match=message):
            run(Pair(), pictures, tmp_path / "m.safetensors", train.Plan(freeze=freeze))
    assert not list(tmp_path.iterdir())


SCORES = [9, 8, 7, 5, 6, float("nan"), 6, 5, 4]  # by the steps done: best at 3, no better in 4 to 7


def patient(pictures, output, **plan):
    torch.manual_seed(0)
    plan = train.Plan(**{"steps": 8, "warmup": 0, "schedule": "constant", "validate_every": 1} | plan)
    method, held_out = Pair(SCORES), batches(pictures, "images", held_out=True)
    resume = output.with_suffix(".resume.pt").exists()
    return train.train(
        "gatys", method, batches(pictures, "images"), held_out, output, plan, device=CPU, resume=resume
    )  # fmt: skip


def test_patience_ends_it_and_keeps_the_best(pictures, tmp_path):
    output = tmp_path / "m.safetensors"
    assert patient(pictures, output, patience=4) == 7
    best = load_file(output)
    assert modelfile.check(output)["step"] == "3"
    assert patient(pictures, tmp_path / "short.safetensors", steps=3) == 3
    assert_equal(best, load_file(tmp_path / "short.safetensors"))
    # With no patience left there is nothing to go on with; with more there is.
    assert patient(pictures, output, patience=4) == 7
    assert patient(pictures, output, patience=5) == 8
    assert modelfile.check(output)["step"] == "8"


def test_patience_is_resumed(pictures, tmp_path):
    output = tmp_path / "m.safetensors"
    for steps in (2, 5, 8):
        done = patient(pictures, output, patience=4, steps=steps)
        assert done == min(steps, 7)
    assert modelfile.check(output)["step"] == "3"


def test_sheets_and_validation_leave_no_trace(pictures, tmp_path):
    saved = []
    for every in (0, 2):
        torch.manual_seed(0)
        output = tmp_path / f"{every}.safetensors"
        plan = train.Plan(steps=5, warmup=0, sample_every=every, validate_every=every or 100, ema=0.9)
        held_out = batches(pictures, "images", held_out=True)
        train.train("gatys", Pair(), batches(pictures, "images"), held_out, output, plan, device=CPU)
        saved.append(torch.load(output.with_suffix(".resume.pt"), weights_only=True))
        saved[-1].pop("spent")
    assert_equal(*saved)
    sheets = sorted((tmp_path / "2.samples").iterdir())
    assert [path.name for path in sheets] == ["step-000002.png", "step-000004.png"]
    first, second = (np.asarray(Image.open(path)) for path in sheets)
    assert first.shape == (2 * 32, 2 * 32, 3) and (first == second).all()
    assert (first[:, :32] == 255 - first[:, 32:]).all(), "the images, and what the method makes of them"
    assert not (tmp_path / "0.samples").exists()


def test_losses_are_read_now_and_then():
    losses = train.Losses(10)
    for step in range(1, 8):
        losses.add(step, {"a": torch.tensor(float(step)), "b": torch.tensor(1.0 if step != 4 else float("nan"))})
    assert losses.means() == {}
    with pytest.raises(errors.DataError, match="loss b became nan at step 4"):
        losses.look()
    losses = train.Losses(1)
    for step in (1, 2, 3):
        losses.add(step, {"a": torch.tensor(float(step))} | ({"odd": torch.tensor(5.0)} if step % 2 else {}))
        losses.look()
    assert losses.means() == {"a": 2, "odd": 5}
    losses.forget()
    losses.look()
    assert losses.means() == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_gradients_are_cleared_without_asking_the_device(bad):
    gradients = [torch.tensor([1.0, bad, -3.0]), torch.tensor([bad, -bad])]
    norm = torch.nn.utils.get_total_norm(gradients)
    train._clear_unless(torch.isfinite(norm), gradients)
    assert all((gradient == 0).all() for gradient in gradients)
    fine = torch.tensor([1.0, -2.0])
    train._clear_unless(torch.tensor(True), [fine])
    assert fine.tolist() == [1, -2]


@pytest.mark.parametrize(("making", "using", "low", "high"), [(0.02, 0.0, 0.6, 1), (0.0, 0.02, 0, 0.4)])
def test_the_share_of_waiting(making, using, low, high):
    def make():
        for i in range(5):
            time.sleep(making)
            yield i

    waiting, seen = train.Waiting(make()), []
    for item in waiting:
        time.sleep(using)
        seen.append(item)
    assert seen == list(range(5)) and low <= waiting.share() <= high
    waiting.restart()
    assert waiting.share() == 0


def test_the_journal_tells_of_waiting(pictures, tmp_path):
    run(Line(), pictures, tmp_path / "m.safetensors", train.Plan(steps=50))
    (entry,) = journal(tmp_path / "m.safetensors")
    assert 0 <= entry["wait"] <= 1 and set(entry) == {"step", "seconds", "lr", "wait", "loss"}
    assert train._note({"a": 0.5}, 0.051) == "a 0.5 wait 5 %" and train._note({"a": 0.5}, 0.05) == "a 0.5"


def test_a_full_disk_ends_no_training_but_for_the_model(pictures, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    plan = train.Plan(steps=100, sample_every=25, save_every=30)
    (tmp_path / "m.samples").mkdir()
    for name in ("m.log.jsonl", "m.samples/step-000050.png"):
        (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(errors.SomeFailed, match=r"m.safetensors is written, but not .*m.log.jsonl: no space left"):
        run(Pair(), pictures, output, plan)
    assert modelfile.check(output)["step"] == "100"
    err = capsys.readouterr().err
    assert err.count("m.log.jsonl: no space left") == 1 and err.count("step-000050.png: no space left") == 1
    assert {path.name for path in (tmp_path / "m.samples").iterdir()} >= {"step-000025.png", "step-000075.png"}

    (tmp_path / "m.log.jsonl").unlink()
    (tmp_path / "m.resume.pt").unlink()
    (tmp_path / "m.resume.pt").symlink_to("/dev/full")
    with pytest.raises(errors.TryAgain, match="m.resume.pt: no space left"):
        run(Pair(), pictures, output, plan)
    assert modelfile.check(output)["step"] == "30"
    assert not list(tmp_path.glob(".*.part"))


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
config = {"live": {"channels": 8, "widths": "8"}, "distill": {"teacher": "slim", "deep_teacher": ""}}[name]
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
        ("live", {"channels": 16, "widths": "8"}, ("content", "style")),
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


def test_a_contest_that_is_over_is_told_once_until_it_goes_on():
    balance = train.Balance()
    fair = {"accuracy": 0.7, "diversity": 0.2}
    assert not any(balance.look(fair) for _ in range(30))
    told = [balance.look(fair | {"accuracy": 1.0}) for _ in range(30)]
    assert [len(each) for each in told] == [0] * 9 + [1] + [0] * 20 and "always right" in told[9][0]
    balance.look(fair)
    told = [what for _ in range(10) for what in balance.look({"accuracy": 0.0, "diversity": 0.015})]
    assert len(told) == 2 and "always wrong" in told[0] and "all alike" in told[1]
    assert not any(balance.look({"style": 1.0}) for _ in range(30))  # of methods that have no discriminator


def test_of_one_picture_a_batch_it_is_told_once_that_a_collapse_will_not_be_seen():
    """Unless the method knows how diverse earlier pictures are."""
    told = [what for _ in range(30) for what in train.Balance(1).look({"accuracy": 0.7, "diversity": 0.2})]
    balance = train.Balance(1)
    assert not told and not balance.look({"style": 1.0})
    told = [balance.look({"accuracy": 0.7, "diversity": 0.0}) for _ in range(30)]
    assert [len(each) for each in told] == [1] + [0] * 29 and "of one picture do not tell" in told[0][0]
    balance, falls = train.Balance(1), [0.2] * 5 + [0.001] * 10
    told = [what for diversity in falls for what in balance.look({"diversity": diversity})]
    assert len(told) == 1 and "all alike" in told[0]


class Alike(Line):
    """Tells of its pictures that they do not differ."""

    def train_step(self, batch, optimizers, step):
        return super().train_step(batch, optimizers, step) | {"diversity": torch.tensor(0.0)}


@pytest.mark.parametrize(("size", "lines"), [(1, 1), (2, 0)])
def test_a_training_warns_of_what_it_cannot_watch(size, lines, pictures, tmp_path, capsys):
    made = data.Batches({"images": data.Crops([data.Source(str(pictures))], 0, 0)}, size, [8], workers=1)
    train.train("gatys", Alike(), made, None, tmp_path / "m.safetensors", train.Plan(steps=150), device=CPU)
    assert capsys.readouterr().err.count("step 50: batches of one picture") == lines
