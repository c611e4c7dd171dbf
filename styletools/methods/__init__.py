"""Methods of neural style: one file each. This module finds them, reads what they say of themselves, loads them.

Importing this package costs no torch: a method's `Config`, `APPLIES_TO`, `TRAINS_ON`, `NEEDS_MODEL`, `DIRECTIONS`,
`LAYOUTS` and `ADJUSTABLE` are literals that are read from its source. Third parties add methods through the
entry-point group `styletools.methods`.

A method's file holds, in this order: the constants, `class Config` (a frozen dataclass of literals, each
field `name: Annotated[type, "what it is"] = default`), and exactly one subclass of `Method`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styletools import errors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

APPLIES_TO = ("image", "image+style", "image+label", "label-map", "noise", "nothing")
TRAINS_ON = (
    "nothing", "content", "content+style", "content+styles", "content+labelled", "pairs", "unpaired", "labelled",
    "images",
)  # fmt: skip

TEXTURE = 192  # of fewer pixels a side, an encoder of styles sees more of the edges than of the picture


@dataclass(frozen=True)
class Graphs:
    """What a method computes, as steps that are the same for every picture, of any size: they can be written down.

    paint: (image, tensors of the style record by name) to the picture; encode: image to its style record, for methods
    that take any. Images are (1, 3, H, W) RGB in [0, 255]. styles: the records of the styles that the model holds
    itself, the first for where none is asked for. alpha: what it mixes, "picture" (the picture with the photograph),
    "style" (the style with that of the photograph), or "" where it is neither: then there is no graph for parts of it.
    """

    paint: Callable[..., Tensor]
    encode: Callable[[Tensor], dict[str, Tensor]] | None = None
    styles: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    alpha: str = "picture"


class Method:
    """One way to make or move style: the mathematics only. The engine owns loops, devices, sizes and files.

    A subclass's `__init__(config)` builds `self.nets` (a ModuleDict); tensors are saved as `<net>.<key>`.
    """

    keep: tuple[str, ...] = ()  # the nets that applying needs; empty: all
    multiple = 1  # height and width are padded to a multiple of this before `apply`, and cropped after
    # Large pictures may be worked on in tiles: what depends on the whole of one goes through the statistics of nn.norm
    # and stats alone, and nothing on where a pixel is. How far one reaches, engine.tiles finds out.
    tiling = False
    half = True  # may run in bfloat16
    coarse: tuple[str, ...] = ()  # the nets whose matrices lose nothing that matters in eight bits
    iterative = False  # `apply` optimises: it reports progress and needs gradients
    needs_backbone = False  # applying takes the Config's `backbone`, whose weights the model file does not hold
    direction = ""  # the way that `apply` goes, one of the module's DIRECTIONS, where it has some

    config: Any
    nets: torch.nn.ModuleDict
    progress: Callable[[int, int, dict[str, float]], None] | None = None  # step, steps, losses

    def initialize(self, batch: dict[str, Tensor]) -> None:
        """Start from what a first, larger batch tells, if that helps; not called when a run is resumed."""

    def adopt(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a model (of this Config) that training starts from, as they fit this one."""
        return tensors

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers of training, named."""
        raise NotImplementedError

    def train_step(self, batch: dict[str, Tensor], optimizers: dict, step: int) -> dict[str, Tensor]:
        """Do one step of training on a batch of (N, 3, H, W) RGB in [0, 1]; return the losses, named.

        Of labelled pictures the batch also holds `label`, (N,) int64: places in the Config's `labels`.
        Calls `self.update(optimizer, loss)` for every optimizer that it steps.
        """
        raise NotImplementedError

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses on held-out images, without gradients; early stopping goes by `loss`, else by their sum."""
        return {}

    def sample(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return what to show of a batch while training: as many pictures as it has, of their size and range.

        None lets the engine apply the method to them, which does for all that restyle images, or generate pictures of
        the same noise every time.
        """
        return None

    def take_styles(self, images: Sequence[Tensor]) -> None:
        """Be given the whole style images (1, 3, H, W) before training, for methods that train on content+style.

        There are as many as the Config's `styles` names; without them, the crops of each batch tell the style.
        """

    def own_style(self, name: str) -> dict[str, Tensor]:
        """Return the style record of one of the styles that the model holds itself (Config's `styles` or `labels`)."""
        raise errors.UsageError("this method holds no styles of its own")

    def encode_style(self, images: Sequence[Tensor], weights: Sequence[float]) -> dict[str, Tensor]:
        """Return the style record of style images (1, 3, H, W), weighted: what `apply` takes as `style`."""
        raise errors.UsageError("this method takes no style")

    def refine(
        self,
        record: dict[str, Tensor],
        images: Sequence[Tensor],
        weights: Sequence[float],
        photographs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Return a record that does better on photographs (1, 3, H, W) than `record`, which the style images gave.

        Takes steps along gradients: not for `torch.no_grad`.
        """
        raise NotImplementedError

    def apply(self, image: Tensor, *, style: dict[str, Tensor] | None = None, alpha: float = 1.0) -> Tensor:
        """Restyle (N, 3, H, W) RGB in [0, 1]; the same shape and range come back."""
        raise NotImplementedError

    def graphs(self) -> Graphs | None:
        """Return the same as `apply` and `encode_style` in a form that can be written as a graph; None: it has none."""
        return None

    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return pictures (N, 3, H, W) RGB in [0, 1] made from noise (N, Config's `z_dim`), of N(0, 1).

        label: the classes of the pictures, (N,), for methods that know some.
        """
        raise errors.UsageError("this method makes no pictures from noise")

    def discriminate(self, images: Tensor) -> Tensor:
        """Return how real the discriminator takes pictures (N, 3, H, W) in [0, 1] to be, (N,): higher is more real."""
        raise errors.UsageError("this method has no discriminator")

    @staticmethod
    def detect(state_dict: Mapping[str, Tensor]) -> str:
        """Return in which of LAYOUTS these tensors are somebody else's published model of this method, or "".

        Of a model made of several files the keys are `<file without suffix>/<key>`, and there may be others among them.
        """
        return ""

    @staticmethod
    def convert(state_dict: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """Return the Config and the tensors, called `<net>.<key>`, of what `detect` knows."""
        raise NotImplementedError

    def publish(self, layout: str) -> dict[str, Tensor]:
        """Return the tensors as the others of one of LAYOUTS have them: the reverse of `convert`, for one file.

        Raises DoesNotFit for a model that has something which that layout has not.
        """
        raise errors.DoesNotFit(f"cannot be written in the layout of {layout}")

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Step one optimizer on one loss. The engine replaces this to clip gradients and guard against NaN."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def to(self, device) -> Method:
        """Move the networks to a device; returns itself."""
        self.device = device
        self.nets.to(device)
        return self

    device: Any = "cpu"


@dataclass(frozen=True)
class Option:
    """One field of a method's Config."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True)
class Description:
    """What a method says of itself, read from its source."""

    name: str
    title: str
    applies_to: str
    trains_on: str
    needs_model: bool  # trains on nothing, and is of no use without a model published elsewhere
    knows_published: bool  # has a `detect` for other people's checkpoints
    options: tuple[Option, ...] = field(default=())
    directions: tuple[str, ...] = ()  # the ways that a model goes; the first is the default
    has_graphs: bool = False  # it can be written as a graph
    layouts: tuple[str, ...] = ()  # other people's checkpoints that it knows, by name
    publishes: bool = False  # it can be written in (some of) these layouts, too
    adjustable: tuple[str, ...] = ()  # options that may be set for a model that is there already
    refines: bool = False  # its style records can be fitted to photographs


def names() -> list[str]:
    """Return the names of all methods, ours and those of installed packages."""
    return sorted(_sources())


@functools.cache
def _ours() -> dict[str, Path]:
    """Map each of our methods to its source file."""
    return {path.stem: path for path in Path(__file__).parent.glob("[!_]*.py")}


@functools.cache
def _sources() -> dict[str, Path]:
    """Map each method to its source file."""
    found = dict(_ours())
    for entry in _entry_points():
        spec = importlib.util.find_spec(entry.module)
        if spec and spec.origin:
            found.setdefault(entry.name, Path(spec.origin))
    return found


def _entry_points():
    """Return what installed packages call their methods by."""
    from importlib import metadata  # takes as long as all else that starting a command takes

    return metadata.entry_points(group="styletools.methods")


@functools.cache
def describe(name: str) -> Description:
    """Return what method `name` says of itself, without importing it. Raises UsageError for an unknown name."""
    source = _ours().get(name) or _sources().get(name)
    if source is None:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names())}"
        raise errors.UsageError(f"unknown method {name!r}: {hint}")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    constants = {"APPLIES_TO": "image", "TRAINS_ON": "nothing", "NEEDS_MODEL": False, "DIRECTIONS": (),
                 "LAYOUTS": (), "ADJUSTABLE": ()}  # fmt: skip
    options, functions = [], set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in constants:
            constants[node.targets[0].id] = ast.literal_eval(node.value)
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            options = [_option(item) for item in node.body if isinstance(item, ast.AnnAssign)]
        elif isinstance(node, ast.ClassDef):
            functions |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    directions, layouts, adjustable = (constants.pop(name) for name in ("DIRECTIONS", "LAYOUTS", "ADJUSTABLE"))
    title = (ast.get_docstring(tree) or name).partition("\n")[0]
    return Description(
        name, title, *constants.values(), "detect" in functions, tuple(options), directions, "graphs" in functions,
        layouts, "publish" in functions, adjustable, "refine" in functions,
    )  # fmt: skip


def _option(node: ast.AnnAssign) -> Option:
    kind, text = node.annotation.slice.elts  # Annotated[type, "help"]
    return Option(node.target.id, ast.unparse(kind), ast.literal_eval(node.value), ast.literal_eval(text))


def parse_options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Turn KEY=VALUE words into values for the Config of method `name`, typed as its fields are.

    Raises UsageError that names the valid keys, or the type that was expected.
    """
    known = {option.name: option for option in describe(name).options}
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise errors.UsageError(f"{setting!r} is not KEY=VALUE")
        if key not in known:
            raise errors.UsageError(f"{name} has no option {key!r}: it has {', '.join(known) or 'none'}")
        try:
            values[key] = _READERS[known[key].type](text)
        except (ValueError, KeyError) as error:
            raise errors.UsageError(f"{key}={text}: {known[key].type} expected") from error
    return values


def read_widths(text: str, example: str, count: int | None = None) -> list[int]:
    """Return the numbers of `16,32,64`: so many channels each. Raises UsageError for other texts, or another count."""
    words = text.split(",") if text else []
    if not all(word.strip().isdecimal() and int(word) for word in words) or count not in (None, len(words)):
        raise errors.UsageError(f"widths={text}: {'' if count is None else f'{count} '}numbers expected, as {example}")
    return [int(word) for word in words]


def _read_bool(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


_READERS: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float, "bool": _read_bool}


def create(name: str, config: dict[str, Any] | None = None) -> Method:
    """Import method `name` and return it with fresh networks; `config` overrides the defaults of its Config.

    Raises UsageError for an unknown name, DoesNotFit for a config that this version does not know.
    """
    describe(name)
    module = _module(name)
    try:
        settings = module.Config(**(config or {}))
    except TypeError as error:
        raise errors.DoesNotFit(f"{name} does not know this configuration: {error}") from error
    return _class(name)(settings)


def detect(state_dict: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first method that knows these tensors for a published model of its kind, or None."""
    candidates = (name for name in names() if describe(name).knows_published)
    return next((name for name in candidates if _class(name).detect(state_dict)), None)


def layout(name: str, state_dict: Mapping[str, Tensor]) -> str:
    """Return in which layout these tensors are a published model of method `name`; "" where they are none."""
    return _class(name).detect(state_dict)


def convert(name: str, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors, by `<net>.<key>`, of a published model that method `name` has detected."""
    config, tensors = _class(name).convert(state_dict)
    return asdict(config), tensors


def _module(name: str):
    """Import the module of a method."""
    if name in _ours():
        return importlib.import_module(f"styletools.methods.{name}")
    entry = next(e for e in _entry_points() if e.name == name)
    return importlib.import_module(entry.module)


def _class(name: str) -> type[Method]:
    """Import a method and return its one subclass of Method."""
    found = vars(_module(name)).values()
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Method) and kind is not Method]
    if len(kinds) != 1:
        raise errors.StyletoolsError(f"{_sources()[name]}: holds {len(kinds)} methods instead of one")
    return kinds[0]
