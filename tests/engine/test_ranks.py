"""Several processes train as one with a larger batch would; a process that dies takes no file with it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from styletools import errors, modelfile
from styletools.engine import ranks

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_alone_nothing_is_exchanged(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    alone = ranks.join(torch.device("cpu"))
    assert (alone.rank, alone.world, alone.first) == (0, 1, True)
    tensor = torch.tensor([1.0, 2.0])
    alone.mean_([tensor])
    alone.broadcast_([tensor])
    assert tensor.tolist() == [1, 2]
    assert alone.means({"a": 0.5}) == {"a": 0.5} and alone.largest(3, False) == [3, False]
    assert alone.gather(tensor).tolist() == [[1, 2]]
    alone.leave()


def test_an_environment_that_makes_no_sense(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(errors.UsageError, match="RANK and WORLD_SIZE"):
        ranks.join(torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(errors.Unavailable, match="not on mps"):
        ranks.join(torch.device("mps"))


THREADS = """
import os, sys, torch
from styletools.engine import ranks

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(1)
before = threads()
own = ranks.join(torch.device("cpu"))
torch.optim.Adam([torch.ones(1, requires_grad=True)])
own.mean_([torch.ones(3)])
assert threads() > before
own.leave()
sys.exit(threads() != before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_no_thread_outlives_the_group(tmp_path):
    (tmp_path / "threads.py").write_text(THREADS)
    done = subprocess.run([*TORCHRUN, tmp_path / "threads.py"], env={**os.environ, "OMP_NUM_THREADS": "1",
                          "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from styletools import methods
from styletools.engine import data, ranks, train

torch.set_num_threads(1)
what, pictures, folder = sys.argv[1:]


class Both(methods.Method):
    '''A network whose losses are means over the batch; `noisy`: with random numbers of each process.'''

    def __init__(self, noisy):
        self.config, self.noisy = methods.create("gatys").config, noisy
        self.nets = nn.ModuleDict({"net": nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3))})
        self.nets["net"].register_buffer("mean", torch.zeros(3))

    def initialize(self, batch):
        self.nets["net"].mean.copy_(batch["images"].mean((0, 2, 3)))

    def optimizers(self):
        return {"net": torch.optim.Adam(self.nets.parameters(), lr=0.01)}

    def train_step(self, batch, optimizers, step):
        images = batch["images"] - self.nets["net"].mean.view(1, 3, 1, 1)
        if self.noisy:
            images = images + 0.1 * torch.rand(images.shape)
        loss = (self.nets["net"](images) - images[..., 2:-2, 2:-2].flip(-1)).square().mean()
        self.update(optimizers["net"], loss)
        if what == "die" and step == 12 and own.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": loss}

    def validate(self, batch):
        return {"loss": (self.nets["net"](batch["images"])).square().mean()}


own = ranks.join(torch.device("cpu"))


def run(name, steps, resume=False, noisy=False, size=3):
    def batches(held_out):
        crops = {"images": data.Crops([data.Source(pictures, holdout=4)], 0, 2 * held_out, held_out)}
        return data.Batches(crops, size, [16, 24], rank=own.rank, world=own.world)

    torch.manual_seed(0 if own.first else 1)  # the first process tells the others how to start
    plan = train.Plan(steps=steps, warmup=0, schedule="constant", validate_every=20, save_every=5, ema=0.9, amp=False)
    output = Path(folder) / f"{name}.safetensors"
    done = train.train("gatys", Both(noisy), batches(False), batches(True), output, plan,
                       device=torch.device("cpu"), ranks=own, resume=resume)
    os.write(1, f"{own.rank} {name} {done}\\n".encode())  # at once: two processes share the pipe


if what == "die":
    run("die", 100)
elif own.world == 1:
    run("one", 100, size=6)
else:
    run("two", 100)
    run("straight", 16, noisy=True)
    run("parts", 10, noisy=True)
    run("parts", 16, noisy=True, resume=True)
own.leave()
"""


def launch(words, script, *arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    return subprocess.run(
        [*words, script, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=400, **options
    )  # fmt: skip


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def journal(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(script, pictures, tmp_path):
    for words, expected in [
        ([sys.executable], {"0 one 100"}),
        (TORCHRUN, {f"{rank} {run}" for rank in (0, 1) for run in ("two 100", "straight 16", "parts 10", "parts 16")}),
    ]:
        done = launch(words, script, "compare", pictures, tmp_path)
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.splitlines()) == expected

    one, two = (journal(tmp_path / f"{name}.log.jsonl") for name in ("one", "two"))
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two] == [20, 40, 50, 60, 80, 100, 100]
    for a, b in zip(one, two):
        a, b = a.get("validation", a), b.get("validation", b)
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=2e-6)
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    for key in first:
        torch.testing.assert_close(second[key], first[key], rtol=1e-4, atol=1e-5)

    # Random numbers differ between the processes, and each goes on with its own.
    straight, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("straight", "parts"))
    assert all(torch.equal(straight[key], parts[key]) for key in straight)
    random = torch.load(tmp_path / "parts.resume.pt", weights_only=True)["random"]
    assert len(random) == 2 and not torch.equal(random[0], random[1])


@pytest.mark.slow
def test_a_process_that_dies_leaves_whole_files(script, pictures, tmp_path):
    done = launch(TORCHRUN, script, "die", pictures, tmp_path)
    assert done.returncode != 0
    assert modelfile.check(tmp_path / "die.safetensors")["step"] == "10"
    assert torch.load(tmp_path / "die.resume.pt", weights_only=True)["step"] == 10
    load_file(tmp_path / "die.safetensors")
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.slow
def test_the_command_under_torchrun(slim, pictures, tmp_path):
    words = [*TORCHRUN, "--no-python", ROOT / "bin/st-train", "live", "--content", pictures, "--style", pictures]
    words += ["-o", tmp_path / "x.safetensors", "--batch-size", "2", "--crop-size", "32", "-O", "channels=4"]
    words += ["-O", "widths=8", "--device", "cpu", "--holdout", "4", "--sample-every", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*map(str, words), "--steps", "1000000"], env=environment, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    log = tmp_path / "x.log.jsonl"
    end = time.monotonic() + 300
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    step = int(modelfile.check(tmp_path / "x.safetensors")["step"])
    assert step >= 50 and err.count(f"stopped at step {step}; --resume goes on") == 1
    words[-1:] = ["0", "--steps", str(step + 3), "--resume"]
    done = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert modelfile.check(tmp_path / "x.safetensors")["step"] == str(step + 3)
    assert not list(tmp_path.glob(".*.part"))
