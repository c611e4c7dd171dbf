"""st-apply --ray: a folder spread over a cluster of this machine, from which a worker is taken away."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from styletools.manifest import LOCK, NAME

CLUSTER = """
import sys, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[1],
         object_store_memory=100_000_000)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cluster(monkeypatch, tmp_path_factory):
    """The address of a cluster with two slots that nobody else may use, and the process that it belongs to."""
    pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = Path("/tmp", f"st-{secrets.token_hex(4)}")  # the names of sockets must be short
    words = [sys.executable, "-c", CLUSTER, str(folder)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.address = process.stdout.readline().decode().strip()
    assert process.address, process.stderr.read().decode()
    yield process
    process.stdin.close()
    process.wait(60)
    process.stdout.close()
    process.stderr.close()
    subprocess.run(["rm", "-rf", folder], check=True)


def workers(process) -> list[int]:
    """Return the processes of a cluster that hold a model."""
    parents, named = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if (entry / "cmdline").read_bytes().startswith(b"ray::Worker"):
                named.append(int(entry.name))
        except (OSError, ValueError):
            continue

    def is_below(pid):
        return pid == process.pid or pid in parents and is_below(parents[pid])

    return [pid for pid in named if is_below(pid)]


@pytest.mark.slow
def test_a_folder_on_a_cluster_that_loses_a_worker(cluster, call, start, picture, live_model, folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as workers of one CPU have
    for number in range(24):
        picture(f"in/{'deep/' * (number % 2)}{number:02}.png", 200, 150, seed=number)
    picture("s.png", 40, 36, seed=99)
    (folder / "in/two.ppm").write_bytes(2 * picture("one.ppm").read_bytes())
    (folder / "in/bad.png").write_bytes(b"no picture")
    command = ["-m", live_model, "-s", "s.png", "in", "--engine", "graph"]
    assert call("st-apply", *command, "-o", "here/")[0] == 1

    def start_and_wait():
        process, end = start("st-apply", *command, "-o", "out/", "--ray", cluster.address), time.monotonic() + 120
        there = len(list(Path("out").rglob("*.png")))
        while len(list(Path("out").rglob("*.png"))) < there + 2:
            assert time.monotonic() < end and process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        return process

    process = start_and_wait()
    process.terminate()
    assert (process.wait(60), process.stderr.read()) == (-signal.SIGTERM, b"")
    first = {path: path.stat().st_ino for path in Path("out").rglob("[!.]*.p*")}
    assert len((Path("out") / NAME).read_text().splitlines()) == len(first)
    process = start_and_wait()
    killed = workers(cluster)[0]
    os.kill(killed, signal.SIGKILL)
    assert process.wait(120) == 1
    assert process.stderr.read() == b"st-apply: in/bad.png: neither a picture nor tensors of a known format\n"

    def made(place):
        found = {str(path.relative_to(place)): path for path in Path(place).rglob("*") if path.is_file()}
        assert LOCK not in found
        return {name: path.read_bytes() for name, path in found.items() if name != NAME}

    assert made("out") == made("here") and "two-000002.ppm" in made("out")
    noted = Counter(json.loads(line)["output"] for line in (Path("out") / NAME).read_text().splitlines())
    for path, number in first.items():
        # It is noted again when its input, which was fresh before, has been read again.
        assert path.stat().st_ino == number and noted.pop(str(path.relative_to("out"))) <= 2, "made again"
    assert len(noted) + len(first) == 25 and set(noted.values()) == {1}, "each exactly once"
    status, out, err = call("st-apply", *command, "-o", "out/", "-n")
    assert (status, out, err) == (0, b"in/bad.png\tout/bad.png\n", "")
    assert killed not in workers(cluster)


def test_without_ray_or_a_cluster(call, picture, live_model, monkeypatch, folder):
    picture("in/a.png")
    picture("s.png", 40, 36)
    command = ["-m", live_model, "-s", "s.png", "in", "-o", "out/", "--ray"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        status, _, err = call("st-apply", *command, "auto")
    assert (status, err) == (69, "st-apply: --ray needs Ray: pip install 'styletools[ray]'\n")
    assert not (folder / "out").exists()
    pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")
    status, _, err = call("st-apply", *command, "127.0.0.1:1")
    assert status == 69 and err.startswith("st-apply: --ray 127.0.0.1:1: no Ray cluster there (")
    assert call("st-apply", "-m", live_model, "-s", "s.png", "in/a.png", "-o", "b.png", "--ray", "auto")[0] == 2
