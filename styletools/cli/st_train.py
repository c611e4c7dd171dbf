"""st-train: train a method, write a model file."""

import glob
import json
import os
import re
from pathlib import Path

import click

from styletools import errors, methods, modelfile
from styletools.cli import _options
from styletools.cli._command import command, command_line
from styletools.cli._loop import Target

# What a method trains on -> the options that say where it is.
DATA = {
    "content": ("content",),
    "content+style": ("content", "style"),
    "content+styles": ("content", "style"),
    "images": ("images",),
}
ROLES = {"content": 0, "images": 0, "style": 1}  # which random draws a source gets; validation has two of its own
VALIDATION = 2


def _trainable() -> list[str]:
    return [name for name in methods.names() if methods.describe(name).trains_on in DATA]


def _seconds(context, parameter, value) -> float | None:
    """Return 90s, 30m, 2h, 1h30m or a bare number as seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", value.strip().lower())
    if not found or not any(found.groups()):
        raise errors.UsageError(f"--time-budget {value}: 90s, 30m, 2h or 1h30m expected")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


def _sizes(context, parameter, value) -> list[int]:
    """Return 192 or 192,256 as numbers."""
    words = value.split(",")
    if not all(word.strip().isdecimal() and int(word) >= 16 for word in words):
        raise errors.UsageError(f"--crop-size {value}: whole numbers of at least 16 expected, as 192 or 192,256")
    return [int(word) for word in words]


def _data(name: str, text: str):
    return click.option(f"--{name}", metavar="SPEC", multiple=True, help=text)


@command("st-train")
@click.argument("method", metavar="METHOD", type=click.Choice(_trainable()))
@_data("content", "Photographs: a folder, a file or 'a*.jpg', with :SHARE of each batch; may be repeated.")
@_data("style", "Style images, likewise.")
@_data("images", "Images of any kind, likewise, for methods that take no others.")
@click.option("-o", "--output", metavar="X.safetensors", required=True, help="The model file to write.")
@_options.method_options
@click.option("--steps", metavar="N", type=_options.Count(), default=10_000, show_default=True, help="Steps in all.")
@click.option("--time-budget", metavar="TIME", callback=_seconds, help="Stop after this long: 90s, 30m, 2h, 1h30m.")
@click.option("--batch-size", metavar="N", type=_options.Count(), default=8, show_default=True,
              help="Images of each kind a step.")  # fmt: skip
@click.option("--crop-size", "sizes", metavar="N,...", default="256", show_default=True, callback=_sizes,
              help="Side of the square crops; of several, each step takes one.")  # fmt: skip
@click.option("--holdout", metavar="N", type=click.IntRange(min=0), default=20, show_default=True,
              help="Keep every N-th image for validation; 0 keeps none and validates not.")  # fmt: skip
@click.option("--validate-every", metavar="N", type=_options.Count(), default=500, show_default=True,
              help="Steps from one validation to the next.")  # fmt: skip
@click.option("--save-every", metavar="N", type=_options.Count(), default=500, show_default=True,
              help="Steps from one saving to the next.")  # fmt: skip
@click.option("--warmup", metavar="N", type=click.IntRange(min=0), default=100, show_default=True,
              help="Steps over which the learning rate rises.")  # fmt: skip
@click.option("--schedule", metavar="HOW", type=click.Choice(["constant", "cosine", "trapezoid"]), default="cosine",
              show_default=True, help="Course of the learning rate: constant, cosine or trapezoid.")  # fmt: skip
@click.option("--clip", metavar="X", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Largest norm of the gradient; 0: any.")  # fmt: skip
@click.option("--ema", metavar="X", type=click.FloatRange(0, 1, max_open=True), default=0.999, show_default=True,
              help="Decay of the averaged weights that are written; 0: no average.")  # fmt: skip
@_options.seed
@_options.device
@click.option("--threads", metavar="N", type=_options.Count(), help="CPU threads to compute with.")
@click.option("--no-amp", is_flag=True, help="Compute in float32 even where bfloat16 is fast.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run with this -o ended.")
@click.option("--init", metavar="MODEL", help="Start from the weights of this model, bundled or a file.")
@click.option("--half", is_flag=True, help="Write 16-bit weights: half the size.")
@click.option("--trained-on", metavar="TEXT", help="What the model file says of the images (their names and number).")
@click.option("--licence", metavar="TEXT", default="", help="What the model file says of the terms of its use.")
def main(
    method, content, style, images, output, settings, steps, time_budget, batch_size, sizes, holdout, validate_every,
    save_every, warmup, schedule, clip, ema, seed, device, threads, no_amp, resume, init, half, trained_on, licence,
):  # fmt: skip
    """Train a method and write a model file.

    st-train live --content photos/ --style paintings/:3 --style own/:1 -o mine.safetensors

    Beside the model file X.safetensors stand X.resume.pt, from which --resume goes on, and X.log.jsonl. Ctrl-C
    and SIGTERM save, then end.
    """
    if resume and init:
        raise errors.UsageError("--resume goes on with its own weights: --init does not go with it")
    given = {"content": content, "style": style, "images": images}
    specs = _check_data(method, given)
    path = _check_output(output, method, resume)
    config = _configuration(method, settings, path if resume else None, init)

    from styletools.engine import data
    from styletools.engine import device as devices
    from styletools.engine import train as engine

    chosen = devices.choose(device)
    devices.set_threads(threads)
    sources = {name: [data.Source(spec, holdout) for spec in specs[name]] for name in specs}
    crops = {name: data.Crops(sources[name], seed, ROLES[name]) for name in specs}
    batches = data.Batches(crops, batch_size, sizes)
    validation = None
    if holdout:
        held_out = {n: data.Crops(sources[n], seed, VALIDATION + ROLES[n], held_out=True) for n in specs}
        validation = data.Batches(held_out, batch_size, [max(sizes)])
    plan = engine.Plan(
        steps=steps, time_budget=time_budget, warmup=warmup, schedule=schedule, clip=clip, ema=ema,
        validate_every=validate_every, save_every=save_every, seed=seed, amp=not no_amp,
    )  # fmt: skip
    devices.seed_everything(seed)
    told = {"created_by": command_line(), "trained_on": trained_on or _summary(sources), "licence": licence}
    if resume:
        # The command that began it is the one that says how the model was made.
        before = modelfile.read_header(path)
        given = {"trained_on": trained_on, "licence": licence}
        told = {key: given.get(key) or before.get(key) or told[key] for key in told}
    engine.train(
        method, methods.create(method, config), batches, validation, path, plan, device=chosen, resume=resume,
        half=half, initial=modelfile.find(init) if init else None, **told,
    )  # fmt: skip


def _check_data(method: str, given: dict) -> dict:
    """Return the sources of the kinds that a method trains on.

    Raises UsageError for kinds that are missing or too many, MissingInput for sources that are not there.
    """
    needed = DATA[methods.describe(method).trains_on]
    for name, specs in given.items():
        if specs and name not in needed:
            raise errors.UsageError(f"{method} trains on --{' and --'.join(needed)}, not on --{name}")
        if not specs and name in needed:
            raise errors.UsageError(f"{method} needs --{name}: a folder, a file or a pattern of images")
        for spec in specs:
            path, _ = _options.weighted(spec)
            if not os.path.exists(path) and not glob.glob(path):
                raise errors.MissingInput(f"{path}: no such file or directory")
    return {name: given[name] for name in needed}


def _check_output(output: str, method: str, resume: bool) -> Path:
    """Return the path of the model file. Raises where it cannot be written or there is nothing to resume."""
    path = Path(output)
    if path.suffix != ".safetensors":
        raise errors.UsageError(f"{output}: a model file ends in .safetensors")
    Target(output, None, holds="tensors").check()
    if resume:
        beside = path.with_suffix(".resume.pt")
        if not beside.exists():
            raise errors.MissingInput(f"{beside}: nothing to resume from")
        _check_method(path, method)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _check_method(path: Path, method: str) -> dict:
    """Return the header of a model file. Raises DoesNotFit where it is of another method."""
    header = modelfile.check(path)
    if header["method"] != method:
        raise errors.DoesNotFit(f"{path}: a model of {header['method']}, not of {method}")
    return header


def _configuration(method: str, settings, resumed: Path | None, init: str | None) -> dict:
    """Return the values of the method's Config: of the model that training starts from, changed by -O."""
    config = methods.parse_options(method, settings)
    start = resumed or (modelfile.find(init) if init else None)
    if start:
        try:
            config = json.loads(_check_method(start, method).get("config", "{}")) | config
        except (ValueError, TypeError) as error:
            raise errors.DataError(f"{start}: damaged model file: {error}") from error
    return config


def _summary(sources: dict) -> str:
    """Return the sources' names and how many images were taken from each."""
    return ", ".join(
        f"{os.path.basename(os.path.abspath(source.spec))} ({len(source.paths)} images)"
        for of_a_kind in sources.values()
        for source in of_a_kind
    )
