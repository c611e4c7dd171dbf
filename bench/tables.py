"""The table of all models, docs/quality.md. Prints what it runs.

    python bench/tables.py pairs.tsv -m live -m adain=FOLDER --one candy=FILE.pth --few gatys

Each model restyles the pairs (st-eval compare), and VGG-19 judges. The scores lie in runs/quality/, a file a model, and
are not measured again while it is there. --one: a model of one style, STYLE=MODEL, is shown the pairs of that style
(the name of its file). --few: a slow model is shown a few pairs, drawn at random. Both stand beside `live` on the same.
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "runs/quality"
JUDGES = "style,content,cfsd,lpips,ssim,color,sharpness,fd:vgg19,artfid:vgg19,diversity"
BY_PAIR = ("style", "content", "cfsd", "lpips", "ssim", "color")
BESIDE = "live"
FEW = 4

HEAD = """# Models, measured

Made by `make quality` on {date}: {machine}, {torch}.
Photographs and paintings that no bundled model was trained on are scaled and cropped to 512 x 512.

    {command}

Style, content and cfsd are judged by VGG-19, lpips and diversity by SqueezeNet; `man st-eval` says what each metric is,
and what it is blind to. Two rows are no models: *identity* hands in the photograph as it was, *target* the painting.
What one of them wins says little by itself. Seconds are those of the network for one picture, processor time over
threads, the middle of all, in eager PyTorch; MB the most memory that its process held.

"""
MIDDLE = """
## One style, and a few pairs

Networks of one style, as fast_neural_style published them, on the photographs to be painted in it, and methods that
take minutes a picture on {few} pairs drawn at random. Below each stands `live` on the same pairs.

"""


@click.command()
@click.argument("pairs", type=click.Path(exists=True))
@click.option("-m", "models", multiple=True, help="NAME=MODEL, shown all pairs.")
@click.option("--one", "single", multiple=True, help="STYLE=MODEL, shown the pairs of its style.")
@click.option("--few", "slow", multiple=True, help="NAME=MODEL, shown a few pairs.")
@click.option("--threads", default=2, show_default=True)
@click.option("-o", "--output", default=str(ROOT / "docs/quality.md"), show_default=True)
def main(pairs, models, single, slow, threads, output):
    """Score the models and write the tables."""
    KEPT.mkdir(parents=True, exist_ok=True)
    models = dict.fromkeys([BESIDE, *models])
    files = [scored(model, pairs, threads) for model in models]
    few = [scored(model, pairs, threads, "--limit", str(FEW)) for model in slow]
    few += [of_one_style(model, pairs, threads) for model in single]
    machine = f"{_processor()}, threads: {threads}, Python {platform.python_version()}"
    words = ["st-eval", "compare", "-m", "MODEL", "--pairs", "pairs.tsv", "-b", "vgg19", "--size", "512", "--square"]
    told = {"date": time.strftime("%d %B %Y").lstrip("0"), "machine": machine, "torch": _torch(), "few": FEW}
    text = HEAD.format(command=shlex.join([*words, "--metrics", JUDGES]), **told)
    text += run("st-eval", "compare", *(word for file in files for word in ("--with", file)), "--to", "markdown")
    if few:
        text += MIDDLE.format(**told) + small_table(few, files[0])
    Path(output).write_text(text)


def scored(model: str, pairs: str, threads: int, *more: str, name: str = "") -> str:
    """Return the file with the scores of NAME=MODEL, measured now if they are not there."""
    name = name or model.partition("=")[0]
    file = KEPT / f"{name}.jsonl"
    if not file.exists():
        run(
            "st-eval", "compare", "-m", model if "=" in model else f"{name}={model}", "--pairs", pairs, "-b", "vgg19",
            "--metrics", JUDGES, "--size", "512", "--square", "-o", str(file), *more, threads=threads,
        )  # fmt: skip
    return str(file)


def of_one_style(model: str, pairs: str, threads: int) -> str:
    """Return the file with the scores of a model of one style, STYLE=MODEL, on the pairs of that style."""
    style = model.partition("=")[0]
    head, *rows = ([*line.split("\t")] for line in Path(pairs).read_text().splitlines())
    chosen = [row for row in rows if Path(row[head.index("style")]).stem == style]
    table = KEPT / f"{style}.tsv"
    absolute = [[str(Path(pairs).parent.resolve() / name) for name in row] for row in chosen]
    table.write_text("".join("\t".join(row) + "\n" for row in [head, *absolute]))
    return scored(model, str(table), threads, name=f"one-{style}")


def small_table(files: list[str], beside: str) -> str:
    """Return a table of the models in `files`, each above the bundled model on its pairs."""
    other = {names_of(row): row["scores"] for row in rows_of(beside)}
    lines = ["| | " + " | ".join(BY_PAIR) + " | pairs |", "|---" + "|---:" * (len(BY_PAIR) + 1) + "|"]
    for file in files:
        rows = rows_of(file)
        same = [other[names_of(row)] for row in rows]
        name = Path(file).stem.replace("one-", "one style, ")
        for label, scores in ((name, [row["scores"] for row in rows]), (f"{BESIDE}, the same pairs", same)):
            means = [statistics.mean(score[key] for score in scores) for key in BY_PAIR]
            lines.append(f"| {label} | " + " | ".join(f"{mean:.3f}" for mean in means) + f" | {len(scores)} |")
    return "\n".join(lines) + "\n"


def names_of(row: dict) -> tuple[str, str]:
    """Return what a photograph and a painting are called, wherever they lie."""
    return Path(row["content"]).name, Path(row["style"]).name


def rows_of(file: str) -> list[dict]:
    """Return the rows of pairs in a result."""
    return [row for line in Path(file).read_text().splitlines() if "scores" in (row := json.loads(line))]


def run(command: str, *words: str, threads: int | None = None) -> str:
    """Run one of our commands; return what it prints."""
    print(shlex.join([command, *words]), file=sys.stderr, flush=True)
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    program = [ROOT / "bin" / command, *words]
    return subprocess.run(program, check=True, stdout=subprocess.PIPE, env=environment, text=True).stdout


def _processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _torch() -> str:
    from importlib.metadata import version

    return f"torch {version('torch').partition('+')[0]}"


if __name__ == "__main__":
    main()
