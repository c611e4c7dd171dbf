"""A folder of photographs: making all of it, and finding that nothing is to do. JSON lines, ratios first.

    python bench/folders.py photos/ [--count 1000] [--style great-wave] [--repeat 3] [-j 2]

The sum of the parts, to which the time of the command is compared, has the processor's seconds for reading and for
writing every picture in one thread, divided among the cores, plus the wall time that the network alone takes on all of
them. It counts in the command's disfavour: the start of the process, digests, the disk and the notes are in no part.
`packed` compares to what nothing can beat, if the work is the same: all processor time of the parts, divided among the
cores without a gap. `serial` compares to the parts one after another. Parts and command take turns, and the median of
the ratios counts. `busy` is how much of the cores the command had; `cpu_ratio`, its processor time over that of the
parts, tells more where others use them.
"""

import contextlib
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

BIN = Path(__file__).parents[1] / "bin"
HEAVY = ("torch", "numpy", "PIL", "openvino", "ray")


@dataclass
class Spent:
    """Seconds of wall time and of the processor."""

    wall: float = 0.0
    cpu: float = 0.0


@contextlib.contextmanager
def added(spent: Spent):
    """Add what the block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent.wall += time.perf_counter() - wall
    spent.cpu += time.process_time() - cpu


def run(words) -> Spent:
    """Run a program; return what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(words)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Spent(time.perf_counter() - began, used.ru_utime + used.ru_stime)


def parts(restyler, paths) -> dict[str, Spent]:
    """Read, restyle and write pictures one after another; return what each of these took."""
    from styletools import streams

    spent = {"read": Spent(), "network": Spent(), "write": Spent()}
    for path in paths:
        with added(spent["read"]), open(path, "rb", buffering=0) as source:
            (image,) = streams.read(source)
        with added(spent["network"]):
            result = restyler(image)
        with added(spent["write"]), streams.writer(io.BytesIO(), image.meta["format"]) as writer:
            writer.write(result)
    return spent


def set_up(style):
    """Return what restyles a picture, as st-apply sets it up for folders."""
    from styletools import modelfile
    from styletools.engine import graph, styles

    path = modelfile.find("live")
    digest = modelfile.digest(path)
    loaded = graph.Graph(graph.find(path, digest))
    loaded.adapts = False
    record = graph.encode(loaded, styles.parse([style]), size=512, method_name="live", model_digest=digest)
    return graph.Restyler(loaded, record)


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False))
@click.option("--count", default=1000, show_default=True)
@click.option("--style", default="great-wave", show_default=True)
@click.option("--repeat", default=3, show_default=True)
@click.option("-j", "--jobs", default=2, show_default=True)
def main(photos, count, style, repeat, jobs):
    """Measure and print."""
    sys.path.insert(0, str(BIN.parent))
    cores = len(os.sched_getaffinity(0))
    found = sorted(path for path in Path(photos).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))

    def show(figure, **values):
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
        print(json.dumps({"figure": figure} | rounded | {"photos": count, "cores": cores}), flush=True)

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "in").mkdir()
        for number, path in zip(range(count), itertools.cycle(found)):
            shutil.copy(path, f"{place}/in/{number:05}{path.suffix}")
        paths = sorted(Path(place, "in").iterdir())
        command = [str(BIN / "st-apply"), "-s", style, "--engine", "graph", "-j", str(jobs), f"{place}/in"]
        run([*command, "-o", f"{place}/first/", "--shard", f"1/{count}"])  # what is kept is kept from here on
        restyler = set_up(style)
        parts(restyler, paths[:5])
        rounds = []
        for number in range(repeat):
            spent = parts(restyler, paths)
            ideal = (spent["read"].cpu + spent["write"].cpu) / cores + spent["network"].wall
            whole = run([*command, "-o", f"{place}/out{number}/"])
            cpu, wall = (sum(getattr(each, what) for each in spent.values()) for what in ("cpu", "wall"))
            rounds.append((whole.wall / ideal, whole.wall * cores / cpu, whole.wall / wall, whole.cpu / cpu,
                           whole.cpu / whole.wall / cores, whole, spent))  # fmt: skip
        ratio, packed, serial, cpu_ratio, busy = (statistics.median(column) for column in list(zip(*rounds))[:5])
        whole, spent = min(rounds, key=lambda each: abs(each[0] - ratio))[5:]
        show("all of a folder over the sum of its parts", ratio=ratio, packed=packed, serial=serial,
             cpu_ratio=cpu_ratio, busy=busy, ratios=[round(each[0], 3) for each in rounds], seconds=whole.wall,
             cpu=whole.cpu, jobs=jobs, **{name: round(each.cpu, 3) for name, each in spent.items()})  # fmt: skip
        again = [run([*command, "-o", f"{place}/out0/"]) for _ in range(max(repeat, 3))]
        for path in paths:
            path.touch()
        touched = run([*command, "-o", f"{place}/out0/", "-n"])
        probe = f"""
import sys
from styletools.cli.st_apply import main
try:
    main.main({[*command[1:], "-o", f"{place}/out0/"]!r})
finally:
    print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
        environment = os.environ | {"PYTHONPATH": str(BIN.parent)}
        loaded = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True).stdout
        bare = min(run([sys.executable, "-c", "pass"]).wall for _ in range(3))
        show("nothing to do over python -c pass", ratio=min(each.wall for each in again) / bare,
             seconds=statistics.median(each.wall for each in again), cpu=min(each.cpu for each in again),
             seconds_touched=touched.wall, loads=loaded.strip())  # fmt: skip


if __name__ == "__main__":
    main()
