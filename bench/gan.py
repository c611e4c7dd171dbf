"""What adversarial methods learn: FD-slim before and after some minutes of training on a folder. JSON lines.

    python bench/gan.py dcgan --images faces/ --held-out others/ --minutes 5 [--size 64] [--sheet sheet.png]
    python bench/gan.py cyclegan --content photos/ --images paintings/ --held-out others/ --minutes 20

FD-slim is the Fréchet distance on features of slim (metrics/fd.py; 0: the same crowd) between what the model makes and
held-out pictures, which the training never saw. It compares within one run only, for it depends on the size of the
pictures and on how many there are: every line is of --outputs of them (`pictures`), fewer where there are not so many
to train on. `untrained` is the method's network as training finds it; `trained` must come out below it. `floor` are the
pictures trained on: what a model that learnt all of them by heart would get. `diversity` (losses.diversity) shows a
collapse: that of `floor` is the measure.

Methods that translate get every 20th picture of --content to translate, and train on the others. `copied` are these
pictures as they are: what `trained` must come out below, too. --ablate KEY=VALUE trains once more without some part
(`retention --ablate content_weight=0`), as many steps. `content` is what is gone of them (metrics/content.py,
on slim: 0 nothing, 1 as much as in one of the held-out pictures): the price of coming nearer to the others.

Methods of labels take folders of folders for --images and --held-out, and print a line for each label, and of the mean.

Pictures are scaled to --size, and their middle cut out, before all that. The training is st-train's own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageOps

from styletools import losses, methods, modelfile
from styletools.cli import st_train
from styletools.engine import data, sampling
from styletools.metrics import _frechet, _look
from styletools.metrics.content import ContentDistance

BIN = Path(__file__).parents[1] / "bin"


def prepare(paths: list, folder: Path, size: int) -> Path:
    """Write pictures as squares of `size` pixels; return the folder."""
    folder.mkdir(parents=True)
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
            square.save(folder / f"{number:06}.png")
    return folder


def load(folder: Path) -> torch.Tensor:
    """Return the prepared pictures of a folder, (N, 3, H, W) in [0, 1]."""
    arrays = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


class Judge:
    """FD-slim to a set of pictures."""

    def __init__(self, targets: torch.Tensor):
        self._see = _frechet.seeing("slim")
        self._targets = self._statistics(targets)
        self._content, self._others = ContentDistance(), targets

    def _statistics(self, images: torch.Tensor):
        return _frechet.statistics([self._see(_look.Look(image[None])) for image in images])

    def lost(self, images: torch.Tensor, inputs: torch.Tensor) -> float:
        """Return how much of the inputs is gone from the pictures made of them, on average."""
        trios = zip(images, inputs, self._others.repeat(-(-len(images) // len(self._others)), 1, 1, 1))
        found = [self._content.pair(*(_look.Look(image[None]) for image in trio))[""] for trio in trios]
        return round(sum(found) / len(found), 4)

    def row(self, title: str, images: torch.Tensor, inputs: torch.Tensor | None = None, **more) -> dict:
        """Return a line of figures about pictures, with `inputs` those that they were made of, and print it."""
        found = {
            "row": title, "fd_slim": round(_frechet.frechet(*self._statistics(images), *self._targets), 4),
            "diversity": round(float(losses.diversity(images)), 4), "pictures": len(images),
        }  # fmt: skip
        if inputs is not None:
            found["content"] = self.lost(images, inputs)
        print(json.dumps(found | more), flush=True)
        return found


def train(method: str, output: Path, words: list[str]) -> float:
    """Run st-train; return the seconds it took."""
    began = time.monotonic()
    subprocess.run([str(BIN / "st-train"), method, "-o", str(output), *words], check=True, stdout=sys.stderr)
    return time.monotonic() - began


def from_noise(method, count: int) -> torch.Tensor:
    """Return `count` pictures that a method makes."""
    method.nets.eval()
    return torch.stack(list(sampling.generate(method, (sampling.latent(1, i, method.config.z_dim)
                                                       for i in range(count)), 16)))  # fmt: skip


@torch.no_grad()
def translated(method, inputs: torch.Tensor, label: str) -> torch.Tensor:
    """Return what a method makes of pictures, of a label where it has some."""
    method.nets.eval()
    style = method.own_style(label) if label else None
    return torch.cat([method.apply(image[None], style=style).clamp(0, 1) for image in inputs])


NOISE = [name for name in methods.names() if methods.describe(name).applies_to == "noise"]
UNPAIRED = [name for name in methods.names() if methods.describe(name).trains_on == "unpaired"]
LABELLED = [name for name in methods.names() if methods.describe(name).trains_on == "content+labelled"]


@click.command()
@click.argument("method", type=click.Choice([*NOISE, *UNPAIRED, *LABELLED]))
@click.option("--content", help="What is to be translated into --images, by methods that do.")
@click.option("--images", required=True, help="What to train on.")
@click.option("--held-out", required=True, help="What to compare with.")
@click.option("--minutes", default=5.0, show_default=True)
@click.option("--steps", default=1_000_000, help="Stop after so many steps, if that is sooner.")
@click.option("--size", default=64, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--outputs", default=256, show_default=True, help="How many pictures to make.")
@click.option("-O", "settings", multiple=True, help="An option of the method.")
@click.option("--ablate", multiple=True, help="KEY=VALUE: train once more with it, as many steps, for a further row.")
@click.option("--train", "more", multiple=True, help="A further word for st-train.")
@click.option("--sheet", help="Where to write pictures that the trained model makes.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for what st-train writes; else it goes.")
def main(method, content, images, held_out, minutes, steps, size, batch_size, outputs, settings, ablate, more, sheet,
         keep):  # fmt: skip
    """Train METHOD and print a line for the controls, before, and after."""
    if (method not in NOISE) != bool(content):
        raise click.UsageError("--content is for the methods that translate, which need it")
    settings = list(settings) if content else [f"image_size={size}", *settings]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        known, judges = {}, {}
        for label, spec in (st_train._labels([images]) if method in LABELLED else {"": images}).items():
            known[label] = load(prepare(data.Source(spec).paths, folder / "images" / label, size))
            other = os.path.join(held_out, label) if label else held_out
            judges[label] = Judge(load(prepare(data.Source(other).paths, folder / "held-out" / label, size)))

        def rows(title: str, made: dict[str, torch.Tensor], **more) -> None:
            found = [
                judges[label].row(title, pictures[:outputs], inputs, **more | ({"label": label} if label else {}))
                for label, pictures in made.items()
            ]
            if len(found) > 1:
                keys = [key for key in found[0] if key not in ("row", "pictures")]
                means = {key: round(sum(each[key] for each in found) / len(found), 4) for key in keys}
                print(json.dumps({"row": title, "label": "mean"} | means | more), flush=True)

        words, inputs = ["--images", str(folder / "images")], None
        rows("floor", known)
        if content:
            source = data.Source(content, 20)
            inputs = load(prepare(source.held_out, folder / "inputs", size))[:outputs]
            kinds = ("--content", "--labelled") if method in LABELLED else ("--a", "--b")
            words = [kinds[0], str(prepare(source.paths, folder / "content", size)), kinds[1], str(folder / "images")]
            rows("copied", dict.fromkeys(judges, inputs))

        def made_by(model, count: int) -> dict[str, torch.Tensor]:
            return {label: translated(model, inputs, label) if content else from_noise(model, count)
                    for label in judges}  # fmt: skip

        torch.manual_seed(0)  # as st-train does
        config = methods.parse_options(method, settings) | ({"labels": ",".join(judges)} if method in LABELLED else {})
        rows("untrained", made_by(methods.create(method, config), outputs))
        words += ["--crop-size", str(size), "--batch-size", str(batch_size), "--holdout", "0"]
        shown = []
        for label, chosen in [("trained", settings), *([("ablated", [*settings, *ablate])] if ablate else [])]:
            output = (keep or folder) / f"{method}-{label}.safetensors"
            budget = ["--steps", str(steps)]
            if label == "trained":
                budget += ["--time-budget", f"{round(60 * minutes)}s"]
            options = [word for setting in chosen for word in ("-O", setting)]
            seconds = train(method, output, [*words, *budget, *options, *more])
            made = made_by(modelfile.load(output), max(outputs, 64))
            steps = int(modelfile.check(output)["step"])  # an ablation has as many, not as long
            told = {"method": method, "steps": steps, "seconds": round(seconds)}
            rows(label, made, **told | ({"with": ablate} if label == "ablated" else {}))
            shown += made.values()
        if sheet:
            if content:  # each beside what it was made of
                shown = [torch.stack([inputs, *shown], 1).flatten(0, 1)]
            Image.fromarray(sampling.to_image(sampling.sheet(shown[0][:64])).array).save(sheet)


if __name__ == "__main__":
    main()
