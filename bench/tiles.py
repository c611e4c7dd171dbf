"""What tiles cost: a picture restyled whole and in tiles, time, memory and difference, as JSON lines.

    python bench/tiles.py [--side 2048] [--max-memory 900M] [--models live,johnson,cyclegan,adain] [--giant]

Every run is `st-apply --engine torch` in a process of its own, whose memory is the most that it ever held. For methods
other than live, a model of random weights is made. --giant adds one picture of 16384 x 16384 through live, PNG to PNG,
with --max-memory 2G.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def picture(side: int, path: Path) -> None:
    """Write a PNG with large forms and fine noise; a giant one costs as much memory as it has bytes."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    array = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC))
    noise = rng.integers(0, 8, (256, side, 3), dtype=np.uint8)
    for top in range(0, side, 256):
        rows = array[top : top + 256]
        rows[:] = (rows.astype(np.uint16) * 248 // 256).astype(np.uint8) + noise[: len(rows)]
    Image.fromarray(array).save(path, compress_level=1)


def model(name: str, folder: Path) -> Path:
    """Return the file of a model with random weights."""
    import torch

    from styletools import methods, modelfile

    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    method = methods.create(name)
    for decoder in method.nets.values() if name == "adain" else ():
        decoder.convs["conv1_1"].weight.data *= 0.02  # or every pixel is black or white
    modelfile.save(path, name, method)
    return path


def run(words: list[str]) -> tuple[float, float, float]:
    """Run st-apply; return seconds, seconds of processors, and the most MB it held."""
    start = time.perf_counter()
    process = subprocess.Popen([ROOT / "bin/st-apply", "--engine", "torch", *map(str, words)])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"st-apply failed: {status}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Print one line for each method."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--max-memory", default="900M")
    parser.add_argument("--models", default="live,johnson,cyclegan,adain")
    parser.add_argument("--giant", action="store_true")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        picture(given.side, folder / "in.png")
        for method in given.models.split(","):
            words = [] if method == "live" else ["-m", model(method, folder)]
            if method in ("live", "adain"):
                words += ["-s", "great-wave" if method == "live" else folder / "in.png"]
            whole = run([*words, folder / "in.png", "-o", folder / "whole.png"])
            tiled = run([*words, "--max-memory", given.max_memory, folder / "in.png", "-o", folder / "tiled.png"])
            a, b = (np.asarray(Image.open(folder / f"{kind}.png")).astype(np.int16) for kind in ("whole", "tiled"))
            print(json.dumps({
                "method": method, "side": given.side, "ratio": round(tiled[1] / whole[1], 2),
                "whole_s": round(whole[1], 1), "tiled_s": round(tiled[1], 1), "whole_MB": round(whole[2]),
                "tiled_MB": round(tiled[2]), "levels": int(abs(a - b).max()),
                "differ": round(float((a != b).mean()), 6),
            }), flush=True)  # fmt: skip
        if given.giant:
            picture(16384, folder / "giant.png")
            words = ["-s", "great-wave", "--max-memory", "2G", folder / "giant.png", "-o", folder / "out.png"]
            seconds, used, most = run(words)
            print(json.dumps({
                "method": "live", "side": 16384, "s": round(seconds), "processor_s": round(used), "MB": round(most),
            }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
