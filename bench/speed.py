"""Time of commands as programs: starting, one picture, a stream of frames. JSON lines, ratios first.

    python bench/speed.py [--style great-wave] [--frames 40] [--size 512]

The yardsticks run in between, on the same machine: `python -c pass`, `import torch, torchvision`, and the bare copy of
the same frames by st-cat. Every figure is the best of several runs, in seconds of wall time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

BIN = Path(__file__).parents[1] / "bin"


def best(words, repeat, stdin=None):
    """Run a program `repeat` times; return the shortest wall time and the largest memory (MB) of its kind so far."""
    import resource

    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        with open(stdin or os.devnull, "rb") as source:
            subprocess.run(words, stdin=source, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return min(times), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


@click.command()
@click.option("--style", default="great-wave", show_default=True)
@click.option("--frames", default=40, show_default=True)
@click.option("--size", default=512, show_default=True)
@click.option("--repeat", default=3, show_default=True)
def main(style, frames, size, repeat):
    """Measure and print."""
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        clip, photo = f"{folder}/clip.ppm", f"{folder}/photo.jpg"
        ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}x{size}"]
        subprocess.run([*ffmpeg, "-frames:v", str(frames), "-f", "image2pipe", "-c:v", "ppm", clip], check=True)
        subprocess.run([*ffmpeg, "-frames:v", "1", photo], check=True)
        frame = f"{folder}/frame.ppm"
        subprocess.run([*ffmpeg, "-frames:v", "1", frame], check=True)
        apply = [str(BIN / "st-apply"), "-s", style]
        bare, _ = best([sys.executable, "-c", "pass"], repeat)
        usage, _ = best([str(BIN / "st-apply"), "--help"], repeat)
        heavy, _ = best([sys.executable, "-c", "import torch, torchvision"], repeat)
        one, memory = best([*apply, photo, "-o", f"{folder}/out.png"], repeat)
        first, _ = best([*apply, "-"], repeat, frame)
        copied, _ = best([str(BIN / "st-cat"), "-"], repeat, clip)
        stream, _ = best([*apply, "-"], repeat, clip)
    rows = [
        {"figure": "st-apply --help over python -c pass", "ratio": usage / bare, "seconds": usage},
        {"figure": "one picture, cold, over import torch+torchvision", "ratio": one / heavy, "seconds": one,
         "mb": memory},
        {"figure": "stream over st-cat of the same frames", "ratio": stream / copied, "seconds": stream},
        {"figure": "warm frames a second", "frames_per_second": (frames - 1) / (stream - first)},
    ]
    for row in rows:
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} | {"size": size}))


if __name__ == "__main__":
    main()
