"""The contract of a method, for every one there is, and what is said of them without importing torch."""

import dataclasses
import importlib
import math
import subprocess
import sys
import typing

import pytest
import torch

from styletools import errors, methods

FULL = {name: methods.describe(name) for name in methods.names()}
QUICK = {"gatys": {"steps": 4}, "distill": {"teacher": "slim", "deep_teacher": ""}}  # settings that make a test short
QUICK |= {"culturegan": {"labels": "ink,oil", "width": 8}}
KEYS = {"images": ("images",), "content": ("content",), "content+style": ("content", "style")}
KEYS |= {"content+styles": ("content", "style"), "unpaired": ("a", "b"), "content+labelled": ("content", "labelled")}
RESTYLING = [name for name, said in FULL.items() if said.applies_to in ("image", "image+style", "image+label")]
TRAINED = [name for name, said in FULL.items() if said.trains_on in KEYS]
JUDGING = [name for name in FULL if methods._class(name).discriminate is not methods.Method.discriminate]


def made(name):
    torch.manual_seed(0)
    return methods.create(name, QUICK.get(name))


def pictures(count, height, width, seed=0):
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def test_the_methods_that_must_be_there():
    assert {"adain", "distill", "gatys", "johnson", "live", "wct"} <= set(methods.names())


@pytest.mark.parametrize("name", methods.names())
def test_description_equals_the_code(name):
    said = FULL[name]
    module = importlib.import_module(f"styletools.methods.{name}")
    assert said.applies_to == module.APPLIES_TO and said.applies_to in methods.APPLIES_TO
    assert said.trains_on == module.TRAINS_ON and said.trains_on in methods.TRAINS_ON
    assert said.directions == getattr(module, "DIRECTIONS", ())
    assert made(name).direction == (said.directions[0] if said.directions else "")
    assert said.title == module.__doc__.partition("\n")[0] and said.title.startswith(name)
    hints = typing.get_type_hints(module.Config, include_extras=True)
    fields = dataclasses.fields(module.Config)
    assert module.Config.__dataclass_params__.frozen
    assert [o.name for o in said.options] == [f.name for f in fields]
    for option, field in zip(said.options, fields):
        kind, text = typing.get_args(hints[field.name])
        assert (option.type, option.default, option.help) == (kind.__name__, field.default, text)
        assert type(option.default) is kind, f"{option.name}: default and type differ"
        assert option.type in methods._READERS and option.help and "\n" not in option.help


@pytest.mark.parametrize("name", methods.names())
def test_every_option_can_be_given_as_a_word(name):
    words = [f"{option.name}={option.default}" for option in FULL[name].options]
    values = methods.parse_options(name, words)
    assert values == {option.name: option.default for option in FULL[name].options}
    assert vars(methods.create(name, values).config) == values


@pytest.mark.parametrize("name", methods.names())
def test_shape_of_a_method(name):
    method = made(name)
    assert isinstance(method, methods.Method)
    assert isinstance(method.nets, torch.nn.ModuleDict)
    assert set(method.keep) <= set(method.nets)
    assert method.multiple >= 1 and isinstance(method.tiling, bool)
    assert isinstance(method.half, bool) and isinstance(method.iterative, bool)
    assert method.to("cpu") is method


@pytest.mark.parametrize("name", RESTYLING)
@pytest.mark.parametrize("size", [(48, 64), (16, 16)])
def test_applying_keeps_shape_and_range(name, size, slim):
    method = made(name)
    method.nets.eval()
    multiple = max(method.multiple, 1)
    height, width = (-(-side // multiple) * multiple for side in size)
    image = pictures(2, height, width)
    before = image.clone()
    style = None
    with torch.no_grad():
        if FULL[name].applies_to == "image+style":
            style = method.encode_style([pictures(1, 40, 56, 1), pictures(1, 33, 35, 2)], [1.0, 2.0])
            assert all(isinstance(k, str) and torch.isfinite(v).all() for k, v in style.items())
            assert not any(v.requires_grad for v in style.values())
        elif FULL[name].applies_to == "image+label":
            style = method.own_style(method.config.labels.partition(",")[0])
        out = method.apply(image, style=style)
        again = method.apply(image, style=style)
        half = method.apply(image, style=style, alpha=0.5)
    for result in (out, half):
        assert result.shape == image.shape and result.dtype == torch.float32
        assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
        assert not result.requires_grad
    assert torch.equal(out, again), "the same input gives the same output"
    assert torch.equal(image, before), "the input is left as it was"


def training_batch(name):
    batch = {key: pictures(2, 64, 64, i) for i, key in enumerate(KEYS[FULL[name].trains_on])}
    return batch | ({"label": torch.tensor([1, 0])} if "labelled" in batch else {})


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step(name, slim):
    method, batch = made(name), training_batch(name)
    before = {key: value.clone() for key, value in method.nets.state_dict().items()}
    optimizers = method.optimizers()
    assert optimizers and all(isinstance(o, torch.optim.Optimizer) for o in optimizers.values())
    losses = method.train_step(batch, optimizers, 0)
    assert "loss" in losses
    assert all(math.isfinite(float(value.detach())) for value in losses.values())
    after = method.nets.state_dict()
    for net in method.nets:
        changed = [k for k in before if k.startswith(f"{net}.") and not torch.equal(before[k], after[k])]
        assert changed or not list(method.nets[net].parameters()), f"{net} does not learn"
    method.nets.eval()
    scores = method.validate(batch)
    assert all(math.isfinite(float(value)) for value in scores.values())


@pytest.mark.parametrize("name", TRAINED)
def test_autocast_loses_no_gradient(name, slim):
    """It remembers weights as they were first met: those met without gradients would stay without."""
    method = made(name)
    optimizers = method.optimizers()
    wanting = {p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]}
    moved = set()

    def update(optimizer, loss):
        methods.Method.update(method, optimizer, loss)
        moved.update(p for p in wanting if p.grad is not None)

    method.update = update
    with torch.autocast("cpu", torch.bfloat16):
        method.train_step(training_batch(name), optimizers, 0)
    assert moved == wanting


@pytest.mark.parametrize("name", JUDGING)
@pytest.mark.parametrize("size", [(1, 1), (8, 30), (48, 64)])
def test_its_discriminator_takes_pictures_of_any_size(name, size, slim):
    """Or says which size it takes."""
    method = made(name)
    method.nets.eval()
    try:
        with torch.no_grad():
            judged = method.discriminate(pictures(2, *size))
    except errors.UsageError as error:
        assert FULL[name].applies_to == "noise" and "\n" not in str(error)
    else:
        assert judged.shape == (2,) and torch.isfinite(judged).all()


def test_looking_costs_no_torch():
    code = (
        "import sys; from styletools import methods as m; [m.describe(n) for n in m.names()];"
        "m.parse_options('live', ['channels=8']); print(any(x in sys.modules for x in ('torch', 'numpy')))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("channels", "'channels' is not KEY=VALUE"),
        ("", "'' is not KEY=VALUE"),
        ("chanels=3", "live has no option 'chanels': it has channels, widths"),
        ("channels=wide", "channels=wide: int expected"),
        ("channels=1.5", "channels=1.5: int expected"),
        ("lr=", "lr=: float expected"),
    ],
)
def test_words_that_are_no_options(word, message):
    with pytest.raises(errors.UsageError, match=message):
        methods.parse_options("live", [word])


def test_words_become_values_of_their_type():
    values = methods.parse_options("live", ["channels=8", "lr=1e-4", "backbone=a=b", "channels=16"])
    assert values == {"channels": 16, "lr": 1e-4, "backbone": "a=b"}
    assert [methods._read_bool(t) for t in ("true", "No", "1", "FALSE")] == [True, False, True, False]


def test_unknown_methods():
    with pytest.raises(errors.UsageError, match="unknown method 'gatis': did you mean gatys"):
        methods.describe("gatis")
    with pytest.raises(errors.UsageError, match="unknown method 'xyzzy': choose from .*gatys, "):
        methods.create("xyzzy")
    with pytest.raises(errors.DoesNotFit, match="live does not know this configuration: .*depth"):
        methods.create("live", {"depth": 3})


def test_methods_of_other_packages(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        '"""theirs: turns pictures upside down."""\n'
        "from dataclasses import dataclass\nfrom typing import Annotated\nimport torch\n"
        "from styletools.methods import Method\n"
        'APPLIES_TO = "image"\nTRAINS_ON = "nothing"\n'
        '@dataclass(frozen=True)\nclass Config:\n    times: Annotated[int, "how often"] = 1\n'
        "class Theirs(Method):\n"
        "    def __init__(self, config):\n        self.config, self.nets = config, torch.nn.ModuleDict()\n"
        "    def apply(self, image, *, style=None, alpha=1.0):\n        return image.flip(-2)\n"
    )
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[styletools.methods]\nflip = theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    methods._sources.cache_clear()
    methods.describe.cache_clear()
    try:
        assert "flip" in methods.names()
        assert methods.describe("flip").options == (methods.Option("times", "int", 1, "how often"),)
        image = torch.rand(1, 3, 4, 4)
        assert torch.equal(methods.create("flip", {"times": 2}).apply(image), image.flip(-2))
    finally:
        methods._sources.cache_clear()
        methods.describe.cache_clear()
