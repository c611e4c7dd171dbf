"""st-train: train a method, write a model file."""

import glob
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from styletools import errors, log, methods, modelfile
from styletools.cli import _options
from styletools.cli._command import command, command_line
from styletools.cli._loop import Target

# What a method trains on -> the options that say where it is; batches have the same keys.
DATA = {
    "content": ("content",),
    "content+style": ("content", "style"),
    "content+styles": ("content", "style"),
    "content+labelled": ("content", "labelled"),
    "labelled": ("labelled",),
    "images": ("images",),
    "unpaired": ("a", "b"),
}
# Which random draws a source gets; validation has two of its own.
ROLES = {"content": 0, "images": 0, "style": 1, "labelled": 1, "a": 0, "b": 1}
VALIDATION = 2
# What stands beside X.safetensors -> whether it is a folder.
BESIDE = {".resume.pt": False, ".log.jsonl": False, ".samples": True, ".tensorboard": True}


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
@_data("content", "Photographs: a folder, an image, a tar, 'a*.jpg' or - (a list of these on standard input), with "
       ":SHARE of each batch; may be repeated.")  # fmt: skip
@_data("style", "Style images, likewise.")
@_data("images", "Images of any kind, likewise, for methods that take no others.")
@_data("a", "Pictures of one kind, likewise, for methods that translate between two.")
@_data("b", "Pictures of the other kind, likewise; none need fit one of --a.")
@click.option("--labelled", metavar="DIR|LABEL=SPEC", multiple=True, help="Pictures of several styles: a folder with a "
              "folder (or tar) of each, or LABEL=SPEC for each, likewise without :SHARE.")  # fmt: skip
@click.option("--data", metavar="DIR", type=click.Path(readable=False), help="A folder with trainA/ and trainB/ in "
              "place of --a and --b; testA/ and testB/, if there, are what validates.")  # fmt: skip
@click.option("-o", "--output", metavar="X.safetensors", required=True, help="The model file to write.")
@_options.method_options
@click.option("--steps", metavar="N", type=_options.Count(), default=10_000, show_default=True, help="Steps in all.")
@click.option("--time-budget", metavar="TIME", callback=_seconds,
              help="Stop after this long (90s, 30m, 2h, 1h30m); the schedule ends with it.")  # fmt: skip
@click.option("--batch-size", metavar="N", type=_options.Count(), default=8, show_default=True,
              help="Images of each kind a step, in each process.")  # fmt: skip
@click.option("--crop-size", "sizes", metavar="N,...", default="256", show_default=True, callback=_sizes,
              help="Side of the square crops; of several, each step takes one.")  # fmt: skip
@click.option("--holdout", metavar="N", type=click.IntRange(min=0), default=20, show_default=True,
              help="Keep every N-th image for validation; 0 keeps none and validates not.")  # fmt: skip
@click.option("--validate-every", metavar="N", type=_options.Count(), default=500, show_default=True,
              help="Steps from one validation to the next.")  # fmt: skip
@click.option("--patience", metavar="N", type=_options.Count(), help="End when N validations in a row bring no lower "
              "loss; X.safetensors then holds the weights that validated best, not the last.")  # fmt: skip
@click.option("--sample-every", metavar="N", type=click.IntRange(min=0),
              help="Steps from one sheet of samples, X.samples/step-N.png, to the next; 0: none "
                   "(default: as --validate-every).")  # fmt: skip
@click.option("--save-every", metavar="N", type=_options.Count(), default=500, show_default=True,
              help="Steps from one saving to the next.")  # fmt: skip
@click.option("--warmup", metavar="N", type=click.IntRange(min=0), default=100, show_default=True,
              help="Steps over which the learning rate rises.")  # fmt: skip
@click.option("--schedule", metavar="HOW", type=click.Choice(["constant", "cosine", "trapezoid", "linear"]),
              default="cosine", show_default=True,
              help="Course of the learning rate: constant, cosine, trapezoid or linear.")  # fmt: skip
@click.option("--clip", metavar="X", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Largest norm of the gradient; 0: any.")  # fmt: skip
@click.option("--weight-decay", metavar="X", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="Shrink weights (not biases, scales and shifts) by X times the learning rate each step, decoupled "
                   "from the gradient, with any method.")  # fmt: skip
@click.option("--freeze", metavar="NET", multiple=True,
              help="Leave this network of the method as it is; may be repeated.")  # fmt: skip
@click.option("--ema", metavar="X", type=click.FloatRange(0, 1, max_open=True), default=0.999, show_default=True,
              help="Decay of the averaged weights that are written; 0: no average.")  # fmt: skip
@_options.seed
@_options.device
@click.option("--threads", metavar="N", type=_options.Count(), help="CPU threads to compute with.")
@click.option("--no-amp", is_flag=True, help="Compute in float32 even where bfloat16 is fast.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run with this -o ended.")
@click.option("--overwrite", is_flag=True, help="Begin anew where an earlier run with this -o is in the way.")
@click.option("--init", metavar="MODEL", help="Start from the weights of this model, bundled or a file.")
@click.option("--half", is_flag=True, help="Write 16-bit weights: half the size.")
@click.option("--tensorboard", is_flag=True, help="Write losses and sheets to X.tensorboard/, too.")
@click.option("--trained-on", metavar="TEXT", help="What the model file says of the images (their names and number).")
@click.option("--licence", metavar="TEXT", default="", help="What the model file says of the terms of its use.")
def main(
    method, content, style, images, a, b, labelled, data, output, settings, steps, time_budget, batch_size, sizes,
    holdout, validate_every, patience, sample_every, save_every, warmup, schedule, clip, weight_decay, freeze, ema,
    seed, device, threads, no_amp, resume, overwrite, init, half, tensorboard, trained_on, licence,
):  # fmt: skip
    """Train a method and write a model file.

    st-train live --content photos/ --style paintings/:3 --style own/:1 -o mine.safetensors

    Beside the model file X.safetensors stand X.resume.pt, from which --resume goes on, X.log.jsonl and X.samples/.
    Ctrl-C and SIGTERM save, then end. Under torchrun, several processes or machines train one model.
    """
    if resume and init:
        raise errors.UsageError("--resume goes on with its own weights: --init does not go with it")
    if resume and overwrite:
        raise errors.UsageError("--resume goes on, --overwrite begins anew: only one of them can be meant")
    if patience and not holdout:
        raise errors.UsageError("--patience needs validations: --holdout 0 does not go with it")
    if tensorboard and not importlib.util.find_spec("tensorboard"):
        raise errors.Unavailable("--tensorboard needs one more package: pip install tensorboard")
    labels = _labels(labelled)
    given = {"content": content, "style": style, "images": images, "a": a, "b": b, "labelled": tuple(labels.values())}
    tests = _from_folder(method, data, given) if data else {}
    specs = _check_data(method, given)
    path = _check_output(output, method, resume, overwrite)
    config = _configuration(method, settings, path if resume else None, init)
    if labels:
        config["labels"] = _check_labels(list(labels), settings, config, path if resume else None)

    from styletools.engine import data as pictures
    from styletools.engine import device as devices
    from styletools.engine import ranks
    from styletools.engine import train as engine

    chosen = devices.choose(device)
    own = ranks.join(chosen)
    devices.set_threads(threads)
    # Fixed styles are all trained on, and whole; of other pictures crops are taken.
    fixed = ("style",) if methods.describe(method).trains_on == "content+style" else ()
    every = {name: 0 if name in (*fixed, *tests) else holdout for name in specs}
    sources = {name: [pictures.Source(spec, every[name]) for spec in specs[name]] for name in specs}
    whole = _whole_styles(sources["style"]) if fixed else {}
    if fixed and not resume and not any(word.startswith("styles=") for word in settings):
        config["styles"] = ",".join(whole)
    if own.first:
        _warn_of_single_pictures(sources, list(labels))
    kinds = {name: pictures.LabelledCrops if name == "labelled" else pictures.Crops for name in specs}
    crops = {name: kinds[name](sources[name], seed, ROLES[name]) for name in specs if name not in fixed}
    batches = pictures.Batches(crops, batch_size, sizes, rank=own.rank, world=own.world)
    validation = None
    if holdout:
        held_out = {
            name: pictures.Crops([pictures.Source(tests[name])], seed, VALIDATION + ROLES[name])
            if name in tests
            else kinds[name](sources[name], seed, VALIDATION + ROLES[name], held_out=True)
            for name in crops
        }
        validation = pictures.Batches(held_out, batch_size, [max(sizes)], rank=own.rank, world=own.world)
    plan = engine.Plan(
        steps=steps, time_budget=time_budget, warmup=warmup, schedule=schedule, clip=clip, weight_decay=weight_decay,
        freeze=freeze, ema=ema, validate_every=validate_every, patience=patience or 0,
        sample_every=validate_every if sample_every is None else sample_every, save_every=save_every, seed=seed,
        amp=not no_amp,
    )  # fmt: skip
    devices.seed_everything(seed)
    told = {"created_by": command_line(), "trained_on": trained_on or _summary(sources), "licence": licence}
    if resume:
        # The command that began it is the one that says how the model was made.
        before = modelfile.read_header(path)
        given = {"trained_on": trained_on, "licence": licence}
        told = {key: given.get(key) or before.get(key) or told[key] for key in told}
    made = methods.create(method, config)
    if fixed:
        made.take_styles(list(whole.values()))
    engine.train(
        method, made, batches, validation, path, plan, device=chosen, ranks=own,
        resume=resume, overwrite=overwrite, tensorboard=tensorboard, half=half,
        initial=modelfile.find(init) if init else None, **told,
    )  # fmt: skip
    own.leave()


def _from_folder(method: str, folder: str, given: dict) -> dict[str, str]:
    """Put DIR/trainA and DIR/trainB into what is `given`; return {name: folder} of those of testA and testB that exist.

    Raises UsageError where the method trains on something else or --a or --b is given, too, MissingInput where one is
    missing.
    """
    needed = DATA[methods.describe(method).trains_on]
    if needed != DATA["unpaired"]:
        raise errors.UsageError(f"{method} trains on --{' and --'.join(needed)}, not on --data")
    if given["a"] or given["b"]:
        raise errors.UsageError("--data stands for --a and --b: give either it or them")
    for name in needed:
        path = os.path.join(folder, f"train{name.upper()}")
        if not os.path.isdir(path):
            raise errors.MissingInput(f"{path}: no such folder: --data needs trainA and trainB in it")
        given[name] = (path,)
    tests = {name: os.path.join(folder, f"test{name.upper()}") for name in needed}
    return {name: path for name, path in tests.items() if os.path.isdir(path)}


def _labels(words: Sequence[str]) -> dict[str, str]:
    """Return {label: where its pictures are}, sorted, of --labelled: folders of folders and tars, or LABEL=SPEC.

    Raises UsageError for a label that --style-label could not name or that comes twice, MissingInput where there are no
    labels.
    """
    found: dict[str, str] = {}
    for word in words:
        label, equals, spec = word.partition("=")
        if equals and spec and not os.path.exists(word):
            each = [(label, spec)]
        elif os.path.isdir(word):
            each = _within(word)
            if not each:
                raise errors.MissingInput(f"{word}: no folders in it: --labelled needs one for each style")
        elif equals or os.path.exists(word):
            raise errors.UsageError(f"--labelled {word}: a folder of folders or LABEL=SPEC expected")
        else:
            raise errors.MissingInput(f"{word}: no such folder")
        for label, spec in each:
            # In `--style-label NAME:WEIGHT,...` commas and colons separate names.
            if re.search(r"[,:]", label) or [label] != label.strip().splitlines():
                raise errors.UsageError(
                    f"--labelled {word}: {label!r} is no label: one line without commas, colons or spaces around it is"
                )
            if label in found:
                raise errors.UsageError(f"--labelled {word}: the label {label} comes twice")
            found[label] = spec
    return dict(sorted(found.items()))


def _within(folder: str) -> list[tuple[str, str]]:
    """Return label and path of each folder and each tar in a folder, but for hidden ones."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if entry.name[0] != "."]
            folders = [(entry.name, entry.path) for entry in seen if entry.is_dir()]
            tars = [(entry.name[:-4], entry.path) for entry in seen if entry.name.endswith(".tar") and entry.is_file()]
    except OSError as error:
        raise errors.from_os_error(error, folder) from error
    return folders + tars


def _check_labels(labels: list[str], settings, config: dict, resumed: Path | None) -> str:
    """Return the labels as a Config has them. Raises DoesNotFit for others than those of the run that goes on."""
    joined = ",".join(labels)
    if resumed and config.get("labels") != joined:
        raise errors.DoesNotFit(f"{resumed}: its labels are {config.get('labels')}, not {joined}")
    if any(word.startswith("labels=") for word in settings):
        raise errors.UsageError("-O labels: they are those of --labelled")
    return joined


def _warn_of_single_pictures(sources: dict, labels: list[str]) -> None:
    """Say which side of a translation, or which label, has but one picture."""
    crowds = {f"--{name}": sources[name] for name in ("a", "b") if name in sources}
    crowds |= {f"--labelled {label}": [source] for label, source in zip(labels, sources.get("labelled", ()))}
    for name, crowd in crowds.items():
        if sum(len({*source.paths, *source.held_out}) for source in crowd) == 1:
            log.warning(f"{name}: a single picture: little but its colours can be learnt from it")


def _check_data(method: str, given: dict) -> dict:
    """Return the sources of the kinds that a method trains on.

    Raises UsageError for kinds that are missing or too many, MissingInput for sources that are not there.
    """
    needed = DATA[methods.describe(method).trains_on]
    lists = 0
    for name, specs in given.items():
        if specs and name not in needed:
            raise errors.UsageError(f"{method} trains on --{' and --'.join(needed)}, not on --{name}")
        if not specs and name in needed:
            raise errors.UsageError(f"{method} needs --{name}: a folder, a file or a pattern of images")
        for spec in specs:
            path, share = _options.weighted(spec)
            if name == "labelled" and share != 1:
                raise errors.UsageError(f"{spec}: all labels come equally often: no share")
            lists += path == "-"
            if path != "-" and not os.path.exists(path) and not glob.glob(path):
                raise errors.MissingInput(f"{path}: no such file or directory")
    if lists > 1:
        raise errors.UsageError("standard input can be read only once: give - to one option")
    if lists and os.environ.get("WORLD_SIZE", "1") != "1":
        raise errors.UsageError("several processes cannot share standard input: name the images instead of -")
    return {name: given[name] for name in needed}


def _check_output(output: str, method: str, resume: bool, overwrite: bool) -> Path:
    """Return the path of the model file.

    Raises where it or what stands beside it cannot be written, where there is nothing to resume, and UsageError where
    an earlier run would be overwritten unasked.
    """
    path = Path(output)
    if path.suffix != ".safetensors":
        raise errors.UsageError(f"{output}: a model file ends in .safetensors")
    Target(output, None, holds="tensors").check()
    state = path.with_suffix(".resume.pt")
    if resume:
        if not state.exists():
            raise errors.MissingInput(f"{state}: nothing to resume from")
        _check_method(path, method)
    earlier = next((found for found in (path, state) if found.exists()), None)
    if earlier and not (resume or overwrite):
        raise errors.UsageError(f"{earlier}: of an earlier run: --resume goes on, --overwrite begins anew")
    for suffix, is_folder in BESIDE.items():
        beside = path.with_suffix(suffix)
        if beside.exists() and beside.is_dir() != is_folder:
            raise errors.CannotCreate(f"{beside}: is {'not ' * is_folder}a directory")
        if beside.exists() and not os.access(beside, os.W_OK):
            raise errors.NotPermitted(f"{beside}: permission denied")
    if not resume:
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


def _whole_styles(sources) -> dict:
    """Return {name: (1, 3, H, W) RGB in [0, 1]} of all style images, called as their files without the suffix.

    Raises UsageError where two would be called the same.
    """
    from styletools.engine import data, styles

    found = {}
    for image in (image for source in sources for image in source.paths):
        if isinstance(image, data.Member):
            raise errors.UsageError(f"{image}: {image.archive} must be unpacked to train on its images as styles")
        # In `-s NAME:WEIGHT,...` these separate names.
        name = re.sub(r"[,:\s]+", "-", Path(image).stem)
        if name in found:
            raise errors.UsageError(f"two styles are called {name}: rename one of the files")
        found[name] = styles.load_image(image, None)
    return found


def _summary(sources: dict) -> str:
    """Return the sources' names and how many images were taken from each."""
    return ", ".join(
        f"{os.path.basename(os.path.abspath(source.spec))} ({len(source.paths)} images)"
        for of_a_kind in sources.values()
        for source in of_a_kind
    )
