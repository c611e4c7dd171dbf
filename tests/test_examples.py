"""The examples do what they say, run as they stand."""

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preloaded import Preloaded

from styletools import files

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
UNITS = sorted(path for path in (EXAMPLES / "systemd").iterdir() if path.suffix in (".service", ".timer"))


@pytest.fixture
def place(tmp_path):
    """A home with photographs and paintings."""
    if not (files.zoo_dir() / "styles.safetensors").exists():
        pytest.skip("the model live and its styles are not bundled: make models")
    for number, name in enumerate(("photos/a", "photos/deep/b", "paintings/wave", "paintings/scream")):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((72, 64), Image.Resampling.BICUBIC).save(path)
    return tmp_path


@pytest.fixture
def environment(place):
    path = os.pathsep.join([str(ROOT / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "HOME": str(place), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(place, environment):
    """Run a program in the home."""

    def start(*words, **variables):
        return subprocess.run(
            list(map(str, words)), cwd=place, env=environment | variables, capture_output=True, text=True, timeout=300
        )

    return start


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("[!.]*.jpg"))


def test_all_examples_are_told():
    text = (EXAMPLES / "README.md").read_text()
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == {
        line.split("[")[1].split("/")[0] for line in text.splitlines() if line.startswith("| [")
    }


@pytest.fixture
def warm(place, environment):
    """Have st-eval started from a process that has loaded torch."""
    with Preloaded(place, environment) as preloaded:
        preloaded.script("st-eval")
        environment["PATH"] = f"{place}{os.pathsep}{environment['PATH']}"
        yield


@pytest.mark.slow
def test_sweep(warm, run, place):
    shutil.copytree(EXAMPLES / "sweep", place, dirs_exist_ok=True)
    (place / "paintings/scream.jpg").unlink()
    words = ["make", "--no-print-directory", "ALPHAS=0.5 1", "METRICS=ssim", "PAINTINGS=paintings"]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    lines = (place / "table.md").read_text().splitlines()
    assert lines[0] == "| style | alpha | ssim |" and len(lines) == 2 + 3
    assert "| wave | 0 (untouched) | 1.000 |" in lines
    half, whole = (float(next(line for line in lines if f"| wave | {a} |" in line).split("|")[3]) for a in ("0.5", "1"))
    assert whole < half < 1
    assert run(*words).stdout == "", "nothing to do"
    (place / "photos/a.jpg").write_bytes((place / "photos/deep/b.jpg").read_bytes())
    done = run(*words, "ALPHAS=1")
    assert done.stdout.count("st-eval") == 1, "at the one strength that was asked for"
    assert len((place / "table.md").read_text().splitlines()) == 2 + 2


def test_cron(run, place):
    script, places = EXAMPLES / "cron/restyle-photos", {"IN": f"{place}/photos", "OUT": f"{place}/restyled"}
    for _ in range(2):
        done = run(script, **places)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert made(place / "restyled") == ["a.jpg", "deep/b.jpg"]
    (place / "photos/deep/b.jpg").unlink()
    (place / "photos/c.jpg").write_bytes(b"no picture")
    done = run(script, **places)
    assert done.returncode == 65 and done.stdout.startswith(f"st-apply: {place}/photos/c.jpg: ")
    assert made(place / "restyled") == ["a.jpg"]
    from styletools.manifest import locked

    with locked(place / "restyled"):
        done = run(script, **places)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run(script).returncode == 2, "no folder"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault(unit):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not complaints and not done.returncode


@pytest.fixture
def service(place):
    """The words that a service runs, in the home of this test."""

    def read(name, key):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str
        unit.read(EXAMPLES / "systemd" / name)
        return shlex.split(unit["Service"][key].replace("%h", str(place)))

    return read


def test_systemd_timer(run, place, service):
    shutil.copytree(place / "photos", place / "Pictures/in")
    for key in ("ExecStartPre", "ExecStart"):
        done = run(*service("restyle.service", key))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert made(place / "Pictures/restyled") == ["a.jpg", "deep/b.jpg"]


def test_systemd_watch(run, place, service, environment):
    assert run(*service("restyle-watch.service", "ExecStartPre")).returncode == 0
    words = service("restyle-watch.service", "ExecStart")
    with subprocess.Popen(words, cwd=place, env=environment, stderr=subprocess.PIPE) as process:
        try:
            shutil.copy(place / "photos/a.jpg", place / "Pictures/in/new.jpg")
            end = time.monotonic() + 60
            while made(place / "Pictures/restyled") != ["new.jpg"]:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.02)
        finally:
            process.terminate()
        assert process.wait(60) == -signal.SIGTERM and process.stderr.read() == b""


def test_slurm(run, place):
    for number in range(1, 4):
        variables = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_CPUS_PER_TASK": "1"}
        done = run(EXAMPLES / "slurm/restyle.sh", "photos", "restyled", **variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert made(place / "restyled") == ["a.jpg", "deep/b.jpg"]
