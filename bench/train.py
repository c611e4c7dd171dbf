"""Training as a program: images a second, and the share of the time in which the loop waits for data. JSON lines.

    python bench/train.py FOLDER [--method johnson] [--style IMAGE] [--steps 150] [--batch-size 4] [--crop-size 256]

`st-train METHOD` is run on the images below FOLDER with 1 and with 2 threads, on the CPU. The figures are those of its
journal after the first 50 steps, in which images are first decoded: `wait` is the seconds that the loop was blocked for
the next batch over the seconds that passed. Without --style, the first image of FOLDER is the style.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

BIN = Path(__file__).parents[1] / "bin"
SUFFIXES = (".jpg", ".jpeg", ".png")


def first_image(folder):
    """Return the first image below a folder, by name."""
    found = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"{folder}: no images there")
    return found[0]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--method", default="johnson", show_default=True, help="One that trains on content and style.")
@click.option("--style", help="The style image.")
@click.option("--steps", default=150, show_default=True, help="A multiple of 50, of at least 100.")
@click.option("--batch-size", default=4, show_default=True)
@click.option("--crop-size", default=256, show_default=True)
def main(folder, method, style, steps, batch_size, crop_size):
    """Measure and print."""
    if steps < 100 or steps % 50:
        sys.exit("--steps: a multiple of 50, of at least 100")
    for threads in (1, 2):
        with tempfile.TemporaryDirectory() as work:
            words = ["--content", folder, "--style", style or first_image(folder), "-o", f"{work}/m.safetensors"]
            words += ["--steps", steps, "--batch-size", batch_size, "--crop-size", crop_size, "--holdout", 0]
            words += ["--sample-every", 0, "--device", "cpu", "--threads", threads]
            subprocess.run([str(BIN / "st-train"), method, *map(str, words)], check=True)
            entries = [json.loads(line) for line in Path(f"{work}/m.log.jsonl").read_text().splitlines()]
        first, last, rest = entries[0], entries[-1], entries[1:]
        rate = (last["step"] - first["step"]) * batch_size / (last["seconds"] - first["seconds"])
        row = {"method": method, "threads": threads, "batch_size": batch_size, "crop_size": crop_size,
               "images_per_second": round(rate, 2), "wait": round(sum(e["wait"] for e in rest) / len(rest), 4),
               "wait_first": first["wait"]}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
