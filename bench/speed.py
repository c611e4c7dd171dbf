"""Time of commands as programs: starting, one picture, a stream of frames. JSON lines, ratios first.

    python bench/speed.py [--style great-wave] [--frames 100] [--size 512] [--film FILE]

The yardsticks run in between, on the same machine: `python -c pass`, `import torch, torchvision`, and the bare copy of
the same frames by st-cat. Seconds are the best of several runs, of wall time; `cpu` are those of the processor, which
tell more where others use it, too; `mb` is the most memory that the process had. What is kept in the cache is there.
Whether bfloat16 is used depends on style and film: --precise never does. Without --film frames are a test picture.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

BIN = Path(__file__).parents[1] / "bin"


@dataclass(frozen=True)
class Run:
    """What one program took."""

    seconds: float
    cpu: float
    mb: float


def best(words, repeat, stdin=None) -> Run:
    """Run a program `repeat` times; return the shortest times and the largest memory."""
    runs = []
    for _ in range(repeat):
        began = time.perf_counter()
        with open(stdin or os.devnull, "rb") as source:
            process = subprocess.Popen(words, stdin=source, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        runs.append(Run(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)
    return Run(min(r.seconds for r in runs), min(r.cpu for r in runs), max(r.mb for r in runs))


def pipeline(make, words, take) -> float:
    """Return the seconds that frames take from one program through another to a third."""
    began = time.perf_counter()
    first = subprocess.Popen(make, stdout=subprocess.PIPE)
    second = subprocess.Popen(words, stdin=first.stdout, stdout=subprocess.PIPE)
    third = subprocess.Popen(take, stdin=second.stdout)
    first.stdout.close()
    second.stdout.close()
    if any(process.wait() for process in (first, second, third)):
        raise RuntimeError("a part of the pipeline failed")
    return time.perf_counter() - began


@click.command()
@click.option("--style", default="great-wave", show_default=True)
@click.option("--frames", default=100, show_default=True)
@click.option("--size", default=512, show_default=True)
@click.option("--repeat", default=3, show_default=True)
@click.option("--film", "given", type=click.Path(exists=True), help="Take the frames of this film, cut to a square.")
def main(style, frames, size, repeat, given):
    """Measure and print."""
    import imageio_ffmpeg

    def show(figure, **values):
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
        print(json.dumps({"figure": figure} | rounded | {"size": size}), flush=True)

    exe = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    ppm = ["-f", "image2pipe", "-c:v", "ppm"]
    with tempfile.TemporaryDirectory() as folder:
        clip, photo, frame, film = (f"{folder}/{name}" for name in ("clip.ppm", "photo.jpg", "frame.ppm", "film.mp4"))
        source = ["-f", "lavfi", "-i", f"testsrc2=size={size}x{size}:rate=25"]
        if given:
            square = f"scale={size}:{size}:force_original_aspect_ratio=increase,crop={size}:{size}"
            source = ["-i", given, "-vf", square, "-an"]
        subprocess.run([*exe, *source, "-frames:v", str(frames), film], check=True)
        subprocess.run([*exe, "-i", film, *ppm, clip], check=True)
        subprocess.run([*exe, "-i", film, "-frames:v", "1", *ppm, frame], check=True)
        subprocess.run([*exe, "-i", film, "-frames:v", "1", photo], check=True)
        bare = best([sys.executable, "-c", "pass"], repeat)
        usage = best([BIN / "st-apply", "--help"], repeat)
        show("st-apply --help over python -c pass", ratio=usage.seconds / bare.seconds, seconds=usage.seconds)
        apply = [str(BIN / "st-apply"), "-s", style]
        engines = {"default": [], "precise": ["--precise"], "torch": ["--engine", "torch"]}
        for name, words in engines.items():
            best([*apply, *words, photo, "-o", f"{folder}/out.png"], 1)  # what is kept is kept from here on
            heavy = best([sys.executable, "-c", "import torch, torchvision"], repeat)
            one = best([*apply, *words, photo, "-o", f"{folder}/out.png"], repeat)
            show(f"one picture, cold, over import torch+torchvision: {name}", ratio=one.seconds / heavy.seconds,
                 cpu_ratio=one.cpu / heavy.cpu, seconds=one.seconds, cpu=one.cpu, mb=one.mb)  # fmt: skip
        copied = best([BIN / "st-cat", "-"], repeat, clip)
        for name, words in engines.items():
            first, stream = (best([*apply, *words, "-"], repeat, each) for each in (frame, clip))
            show(f"stream over st-cat of the same frames: {name}", ratio=stream.seconds / copied.seconds,
                 frames_per_second=(frames - 1) / (stream.seconds - first.seconds),
                 cpu_a_frame=(stream.cpu - first.cpu) / (frames - 1), mb=stream.mb)  # fmt: skip
        for name, words in engines.items():
            take = [*exe, "-framerate", "25", "-f", "ppm_pipe", "-i", "-", "-pix_fmt", "yuv420p", f"{folder}/out.mp4"]
            times = [
                min(pipeline([*exe, "-i", film, "-frames:v", count, *ppm, "-"], [*apply, *words, "-"], take)
                    for _ in range(repeat))
                for count in ("1", str(frames))
            ]  # fmt: skip
            show(f"ffmpeg | st-apply | ffmpeg: {name}", frames_per_second=(frames - 1) / (times[1] - times[0]))


if __name__ == "__main__":
    main()
