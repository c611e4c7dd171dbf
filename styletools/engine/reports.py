"""What a training tells while it runs: progress, X.log.jsonl, X.samples/ and X.tensorboard/."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from styletools import errors, files, log
from styletools.engine import infer, sampling
from styletools.methods import Method

ROWS = 6  # of a sheet
SAMPLED = ("image", "image+style", "noise")  # what a method applies to, of which the engine makes sheets by itself


class Reports:
    """The files beside the model X.safetensors, and the line on the terminal.

    What cannot be written before the first step raises; from then on it is warned of once, kept in `lost`, and tried
    again: no report is worth the hours of a training.
    """

    def __init__(
        self, output: Path, steps: int, *, begun: int, resume: bool, overwrite: bool, sheets: bool, tensorboard: bool
    ):
        """begun: the steps that an earlier run did. overwrite: what that run reported goes."""
        self.journal, self.samples = output.with_suffix(".log.jsonl"), output.with_suffix(".samples")
        self.scalars = output.with_suffix(".tensorboard")
        self.lost: dict[Path, str] = {}
        self.progress = log.Progress(steps, "step", begun=begun)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                for old in [*self.samples.glob("step-*.png"), *self.scalars.glob("events.out.tfevents.*")]:
                    old.unlink()
            if sheets:
                self.samples.mkdir(exist_ok=True)
            if resume and self.journal.is_file():
                _cut(self.journal, begun)
            with open(self.journal, "a" if resume else "w"):
                pass
            self.board = None
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(self.scalars), purge_step=begun + 1 if resume else None)
        except OSError as error:
            raise errors.from_os_error(error, output=True) from error

    def entry(self, step: int, fields: dict) -> None:
        """Write one line of the journal, and its numbers to TensorBoard (those of a dict as NAME/KEY)."""
        line = json.dumps({"step": step} | fields) + "\n"

        def write() -> None:
            with open(self.journal, "a", encoding="utf-8") as out:
                out.write(line)

        def add() -> None:
            for name, value in fields.items():
                for tag, number in _tags(name, value):
                    self.board.add_scalar(tag, number, step)
            self.board.flush()

        self._try(self.journal, write)
        if self.board:
            self._try(self.scalars, add)

    def sheet(self, step: int, pixels: Tensor) -> None:
        """Write a sheet, (H, W, 3) uint8."""

        def write() -> None:
            with files.atomic(self.samples / f"step-{step:06}.png") as out:
                Image.fromarray(pixels.numpy()).save(out, "PNG")

        self._try(self.samples, write)
        if self.board:
            self._try(self.scalars, lambda: self.board.add_image("samples", pixels, step, dataformats="HWC"))

    def _try(self, path: Path, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, errors.StyletoolsError) as error:
            told = error if isinstance(error, errors.StyletoolsError) else errors.from_os_error(error, str(path))
            if path not in self.lost:
                log.warning(f"{told}: not all is reported there; the training goes on")
            self.lost[path] = str(told)

    def close(self) -> None:
        self.progress.close()
        if self.board:
            self._try(self.scalars, self.board.close)


def _tags(name: str, value) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [(f"{name}/{key}", number) for key, number in value.items()]
    return [(name, value)]


def _cut(journal: Path, step: int) -> None:
    """Drop what a journal tells of steps after `step`, which will be done again, and a last line cut short."""
    kept = []
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    with files.atomic(journal) as out:
        out.writelines(kept)


def can_sample(applies_to: str, method: Method) -> bool:
    """Tell whether there can be sheets: of what applies to images or noise, and what has a `sample` of its own."""
    return applies_to in SAMPLED or type(method).sample is not Method.sample


@torch.no_grad()
def sheet(applies_to: str, method: Method, batch: dict[str, Tensor]) -> Tensor:
    """Return a sheet of what a method makes of a batch of (N, 3, H, W) RGB in [0, 1] (and labels), as (H, W, 3) uint8.

    Its rows are content, style and result of the first few images; of methods that make pictures from noise it shows
    sixteen, always of the same noise. The networks must be in eval mode.
    """
    batch = {name: images[:ROWS] for name, images in batch.items()}
    result = method.sample(batch)
    if applies_to == "noise":
        device = next(iter(batch.values())).device
        return infer.to_levels(sampling.example(method, device) if result is None else sampling.sheet(result))
    if result is None:
        if applies_to == "image+style":
            content = next(iter(batch.values()))
            batch.setdefault("style", content.roll(1, 0))
        result = _applied(method, batch, applies_to)
    shown = [images for images in batch.values() if images.ndim == 4]  # and no labels
    rows = [torch.cat(row, -1) for row in zip(*shown, result)]
    return infer.to_levels(torch.cat(rows, -2))


def _applied(method: Method, batch: dict[str, Tensor], applies_to: str) -> Tensor:
    """Apply a method to each content of a batch, with the style beside it."""
    results = []
    for i, content in enumerate(next(iter(batch.values())).split(1)):
        style = method.encode_style([batch["style"][i : i + 1]], [1.0]) if applies_to == "image+style" else None
        height, width = content.shape[-2:]
        padded = infer.pad(content, method.multiple)
        results.append(method.apply(padded, style=style)[..., :height, :width])
    return torch.cat(results)
