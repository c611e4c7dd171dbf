"""How fast training images come, and which share of its time a training waits for them. JSON lines.

    python bench/data.py photos/ [--workers 1,2,4,8] [--batch-size 32] [--crop-size 256]
    python bench/data.py photos/ --style paintings/ --method live [--seconds 60] [--threads 1] [-O KEY=VALUE]

The first reads crops as fast as it can. Cold: every image is opened and decoded when it is first drawn, as in the first
steps of a run (its file may be in the memory of the system). Warm: as many are decoded as the cache holds. `ms` is the
processor time of one crop, which other programs on the machine change little.
The second runs the real loop of a method for some time. `waited` is the time blocked in the iterator over the time
that went by from asking for the first batch; `first` is the part of it that the first batch took.
"""

import json
import resource
import tempfile
import time
from pathlib import Path

import click

from styletools import methods
from styletools.cli import st_train
from styletools.engine import data
from styletools.engine import device as devices
from styletools.engine import train as engine


class Timed(data.Batches):
    """Batches that know how long they were waited for."""

    def iterate(self, start, stop):
        """Yield what Batches yields."""
        self.waits, self.began = [], time.monotonic()
        asked = self.began
        for item in super().iterate(start, stop):
            self.waits.append(time.monotonic() - asked)
            yield item
            asked = self.ended = time.monotonic()


def used() -> float:
    """Return the processor seconds of this process so far."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def speed(made, start, stop) -> dict:
    """Make batches; return crops a second, and milliseconds of processor time a crop."""
    began, spent = time.perf_counter(), used()
    count = sum(len(crops) for _, batch in made.iterate(start, stop) for crops in batch.values())
    return {
        "crops_per_second": round(count / (time.perf_counter() - began)),
        "ms": round(1000 * (used() - spent) / count, 3),
    }


def reading(photos, workers, batch_size, size) -> dict:
    """Return the speed of reading one folder, cold and warm."""
    source = data.Source(photos)
    made = data.Batches({"images": data.Crops([source], 0, 0)}, batch_size, [size], workers=workers)
    steps = max(1, len(source.paths) // batch_size)  # so that cold has drawn about as many crops as there are images
    cold = speed(made, 0, steps)
    speed(made, steps, 4 * steps)
    return {"workers": workers, "cold": cold, "warm": speed(made, 4 * steps, 6 * steps)}


def training(photos, style, method, settings, batch_size, size, seconds, device) -> dict:
    """Run a method's loop; return how long it waited."""
    kinds = st_train.DATA[methods.describe(method).trains_on]
    if not style and {"style", "labelled"} & set(kinds):
        raise click.UsageError(f"{method} needs --style")
    labels = st_train._labels([style]) if "labelled" in kinds else {}
    crops = {}
    for kind in kinds:
        specs = {"style": [style], "labelled": labels.values()}.get(kind, [photos])
        of_kind = data.LabelledCrops if kind == "labelled" else data.Crops
        crops[kind] = of_kind([data.Source(spec, 20) for spec in specs], 0, st_train.ROLES[kind])
    made = Timed(crops, batch_size, [size])
    plan = engine.Plan(steps=1_000_000, time_budget=seconds)
    devices.seed_everything(0)
    config = methods.parse_options(method, settings) | ({"labels": ",".join(labels)} if labels else {})
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.safetensors"
        engine.train(method, methods.create(method, config), made, None, output, plan, device=device)
    elapsed = made.ended - made.began
    return {
        "method": method, "workers": made.workers, "steps": len(made.waits),
        "seconds_per_step": round((elapsed - sum(made.waits)) / len(made.waits), 4),
        "waited": round(sum(made.waits) / elapsed, 4), "first": round(made.waits[0] / elapsed, 4),
    }  # fmt: skip


@click.command()
@click.argument("photos")
@click.option("--style", default="", help="Style images, for a method that wants them; of labels, a folder of folders.")
@click.option("--method", default="", help="Run the loop of this method instead of only reading.")
@click.option("-O", "--option", "settings", multiple=True, help="Set an option of the method.")
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--workers", default="1,2,4,8", show_default=True, help="Numbers of threads to read with.")
@click.option("--batch-size", default=0, help="Images of each kind a batch [32; 8 with a method].")
@click.option("--crop-size", default=256, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=int, help="CPU threads to compute with.")
def main(photos, style, method, settings, seconds, workers, batch_size, crop_size, device, threads):
    """Measure and print."""
    if method:
        chosen = devices.choose(device)
        devices.set_threads(threads)
        size = batch_size or 8
        rows = iter([training(photos, style, method, settings, size, crop_size, seconds, chosen)])
    else:
        size = batch_size or 32
        rows = (reading(photos, int(each), size, crop_size) for each in workers.split(","))
    for row in rows:
        print(json.dumps(row | {"batch_size": size, "crop_size": crop_size}), flush=True)


if __name__ == "__main__":
    main()
