"""Models as TorchScript and torch.export: loaded by PyTorch alone, they compute the same, at other sizes, too."""

import io
import json

import pytest
import torch

from styletools import errors, methods
from styletools.engine import programs

TINY = {
    "adain": {}, "animegan": {"width": 4}, "culturegan": {"labels": "ink,oil", "width": 8},
    "wct": {"levels": "relu2_1"}, "cut": {"width": 4, "blocks": 1, "upsampling": "antialiased"},
    "cyclegan": {"width": 4, "blocks": 1},
    "johnson": {"widths": "4,4,8", "blocks": 1, "styles": "a,b"}, "live": {"channels": 8, "widths": "8"},
    "microast": {"channels": 4}, "pix2pix": {"width": 4, "levels": 3}, "retention": {},
}  # fmt: skip
ABLE = [name for name in methods.names()
        if methods.describe(name).applies_to.startswith("image") and name not in ("gatys", "onnx")]  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")


def made(name):
    torch.manual_seed(0)
    method = methods.create(name, TINY[name])
    method.nets.eval()
    return method


def example(method):
    """Return a style record of a method, in the order of its keys, {} for none."""
    if isinstance(method, methods._class("culturegan")):
        return method.own_style("oil")
    if isinstance(method, methods._class("johnson")):
        return method.own_style("b")
    if methods.describe(type(method).__module__.rpartition(".")[2]).applies_to == "image+style":
        record = method.encode_style([torch.rand(1, 3, 64, 64)], [1.0])
        return {key: record[key] for key in sorted(record)}
    return {}


def expected(method, picture, record):
    return method.apply(picture / 255, style=record or None) * 255


@pytest.mark.parametrize("name", ABLE)
@torch.no_grad()
def test_torchscript(name, slim):
    method = made(name)
    data, told = programs.to_program(method, "TorchScript", {"method": name}), {"styletools.json": ""}
    program = torch.jit.load(io.BytesIO(data), _extra_files=told)
    record = example(method)
    told = json.loads(told["styletools.json"])
    assert told["method"] == name and list(json.loads(told["style"])) == list(record)
    assert {key: list(value.shape) for key, value in record.items()} == json.loads(told["style"])
    multiple = int(told["multiple"])
    assert multiple == method.multiple
    for height, width in ((72, 104), (176, 80)):
        sides = [-(-side // multiple) * multiple for side in (height, width)]
        picture = 255 * torch.rand(1, 3, *sides)
        torch.testing.assert_close(program(picture, *record.values()), expected(method, picture, record),
                                   rtol=0, atol=0.255)  # fmt: skip


@pytest.mark.slow
@torch.no_grad()
def test_torch_export(slim):
    method = methods.create("johnson", TINY["johnson"] | {"blocks": 0})
    method.nets.eval()
    told = {"styletools.json": ""}
    data = programs.to_program(method, "torch.export", {"method": "johnson"})
    program = torch.export.load(io.BytesIO(data), extra_files=told).module()
    record, picture = example(method), 255 * torch.rand(1, 3, 96, 200)
    assert json.loads(told["styletools.json"])["multiple"] == "4"
    torch.testing.assert_close(program(picture, *record.values()), expected(method, picture, record),
                               rtol=0, atol=0.255)  # fmt: skip


def test_only_what_computes_is_in_it():
    """Of a model that goes two ways one is exported, and no discriminator."""
    size = sum(p.numel() for p in made("cyclegan").nets["a2b"].parameters())
    program = torch.jit.load(io.BytesIO(programs.to_program(made("cyclegan"), "TorchScript", {})))
    assert sum(p.numel() for p in program.parameters()) == size


def test_steps_that_depend_on_the_size_are_refused(monkeypatch):
    method = made("cut")
    monkeypatch.setattr(type(method), "apply", lambda self, image, style=None: image * int(image.shape[-1]))
    with pytest.raises(errors.DoesNotFit, match="cannot be written as TorchScript: its steps depend on the size"):
        programs.to_program(method, "TorchScript", {})
    monkeypatch.setattr(type(method), "apply", lambda self, image, style=None: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        programs.to_program(method, "TorchScript", {})
