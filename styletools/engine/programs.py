"""Models as programs of PyTorch, TorchScript and torch.export, which run without styletools.

A program takes what a graph takes (`engine.export`): a picture (1, 3, H, W) RGB in [0, 255], sides multiples of what it
says, then the tensors of a style record in the order of their names; it gives the picture restyled.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from styletools import errors
from styletools.methods import Method

STEPS = (4, 6, 5)  # sides of the pictures that it is made with and tried on, in multiples, at least SIDE each
SIDE = 64
TOLERANCE = 1e-3  # of the range of colours: what is off by more, depends on the size of the picture
MOST = 8192  # pixels a side that a program of torch.export is for


class Painter(nn.Module):
    """A method as a function of tensors alone."""

    def __init__(self, method: Method, keys: list[str]):
        super().__init__()
        self.keys, self._method, self.parts = keys, method, nn.ModuleList()

    def gather(self, *example: Tensor) -> None:
        """Make those networks parts of this module that an example goes through; some are not saved with the model."""
        there = [value for value in vars(self._method).values() if isinstance(value, nn.Module)]
        there = [part for each in there for part in (each.values() if isinstance(each, nn.ModuleDict) else [each])]
        met: set[int] = set()
        hooks = [
            inner.register_forward_hook(lambda *_, part=part: met.add(id(part)))
            for part in there for inner in part.modules()
        ]  # fmt: skip
        self(*example)
        for hook in hooks:
            hook.remove()
        self.parts.extend(part for part in there if id(part) in met)

    def forward(self, image: Tensor, *style: Tensor) -> Tensor:
        record = dict(zip(self.keys, style)) if self.keys else None
        return self._method.apply(image / 255, style=record).clamp(0, 1) * 255


def to_program(method: Method, kind: str, metadata: dict[str, str]) -> bytes:
    """Return a method as a file of TorchScript or torch.export, with metadata (`styletools.json` among its files).

    Raises DoesNotFit for a method whose steps depend on the picture.
    """
    record = _example(method)
    keys = sorted(record)
    method.nets.eval().requires_grad_(False)
    painter = Painter(method, keys).eval()
    pictures = [torch.rand(1, 3, *(_side(method, step) for step in (a, b)), generator=torch.Generator().manual_seed(a))
                * 255 for a, b in zip(STEPS, STEPS[1:] + STEPS[:1])]  # fmt: skip
    style = [record[key] for key in keys]
    shapes = {key: list(record[key].shape) for key in keys}
    told = metadata | {"multiple": str(method.multiple), "style": json.dumps(shapes)}
    out = io.BytesIO()
    with _quiet(), torch.no_grad():
        painter.gather(pictures[0], *style)
        try:
            if kind == "TorchScript":
                program = torch.jit.trace(painter, (pictures[0], *style), check_trace=False)
                made = [program(picture, *style) for picture in pictures[1:]]
                torch.jit.save(program, out, _extra_files={"styletools.json": json.dumps(told)})
            else:
                program = _export(painter, pictures[0], style, method.multiple)
                made = [program.module()(picture, *style) for picture in pictures[1:]]
                torch.export.save(program, out, extra_files={"styletools.json": json.dumps(told)})
        except errors.StyletoolsError:
            raise
        except Exception as error:  # tracers raise whatever a step happens to raise
            if errors.is_out_of_memory(error):
                raise
            what = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise errors.DoesNotFit(f"cannot be written as {kind}: {what}") from error
        expected = [painter(picture, *style) for picture in pictures[1:]]
    off = max(float((a - b).abs().max()) if a.shape == b.shape else 255.0 for a, b in zip(made, expected))
    if not off <= 255 * TOLERANCE:
        raise errors.DoesNotFit(f"cannot be written as {kind}: its steps depend on the size of the picture")
    return out.getvalue()


def _example(method: Method) -> dict[str, Tensor]:
    """Return a style record of a method, {} where it takes none, or has but one of its own."""
    if type(method).encode_style is not Method.encode_style:
        side = _side(method, STEPS[0])
        with torch.no_grad():
            return method.encode_style([torch.rand(1, 3, side, side)], [1.0])
    if type(method).own_style is not Method.own_style:
        labels = getattr(method.config, "labels", None)
        names = (getattr(method.config, "styles", "") if labels is None else labels).split(",")
        if labels is not None or len(names) > 1:
            return method.own_style(names[0])
    return {}


def _side(method: Method, step: int) -> int:
    """Return so many multiples as a side, more where these are small."""
    return step * method.multiple * -(-SIDE // (4 * method.multiple))


def _export(painter: Painter, picture: Tensor, style: list[Tensor], multiple: int):
    """Return the program of a painter for pictures whose sides are multiples of `multiple`."""
    most = MOST // multiple
    sides = [multiple * torch.export.Dim(name, min=2, max=most) if multiple > 1
             else torch.export.Dim(name, min=16, max=most) for name in ("height", "width")]  # fmt: skip
    shapes = ({2: sides[0], 3: sides[1]}, *([tuple({} for _ in style)] if style else []))
    return torch.export.export(painter, (picture, *style), dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what tracers warn of to themselves: what comes of it is checked."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
