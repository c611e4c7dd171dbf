"""How tests run commands: in this process, or as a shell does, with bin/ in the PATH."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BIN = Path(__file__).parents[2] / "bin"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in; it is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def picture():
    """Make a small picture file: picture(path, width=8, height=6, seed=0)."""

    def make(path, width=8, height=6, seed=0):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment in which commands run as programs."""
    first = f"{BIN}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}"
    return os.environ | {"PATH": first + os.environ["PATH"], "OMP_NUM_THREADS": "1"}


@pytest.fixture
def sh(folder, environment):
    """Run a line of bash; the result has returncode, stdout and stderr (bytes)."""

    def run(line, stdin=b"", timeout=60, **variables):
        return subprocess.run(
            ["bash", "-c", line], input=stdin, capture_output=True, timeout=timeout, cwd=folder,
            env=environment | variables,
        )  # fmt: skip

    return run


@pytest.fixture
def start(folder, environment):
    """Start a command as a program with pipes, unbuffered; it is ended with the test."""
    started = []

    def run(*words, **pipes):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
        process = subprocess.Popen(words, bufsize=0, cwd=folder, env=environment, **options)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def call(folder, capfdbinary, monkeypatch):
    """Run a command in this process: call("st-gram", "a.png") returns (status, stdout, stderr)."""

    def run(name, *words, stdin=b""):
        main = import_module(f"styletools.cli.{name.replace('-', '_')}").main
        (folder / ".stdin").write_bytes(stdin)
        capfdbinary.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with open(folder / ".stdin") as source:
            monkeypatch.setattr(sys, "stdin", source)
            try:
                with pytest.raises(SystemExit) as ended:
                    main.main([str(word) for word in words])
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        out, err = capfdbinary.readouterr()
        return ended.value.code or 0, out, err.decode()

    return run


@pytest.fixture(scope="session")
def live_model(tmp_path_factory) -> Path:
    """A tiny, untrained model file of the method live, whose results differ from style to style."""
    import torch

    from styletools import methods, modelfile

    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        method = methods.create("live", {"channels": 8, "widths": "8"})
        torch.nn.init.normal_(method.nets["encoder"].code.weight, std=0.3)
        modelfile.save(path, "live", method)
    return path


@pytest.fixture
def records():
    """Read all records of a file or of bytes."""
    from io import BytesIO

    from styletools import streams

    def read(source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return list(streams.read(BytesIO(data)))

    return read
