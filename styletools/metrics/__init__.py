"""Metrics: measures of restyled pictures, one file each. This module finds them and reads what they say of themselves.

Importing this package costs no torch: what has to be known of a metric beforehand is written in its module as
literals, which are read from its source:

    NEEDS      what it compares the output with: a tuple of "content", "style"
    SCOPE      "pair" (a score for each output; the set's is their mean), "set" (one score for all outputs together)
               or "sequence" (as pair, but of frames in their order: each is compared with the one before)
    BETTER     "lower", "higher" or "neither"
    RANGE      the values it takes, in words
    NETWORK    the network that it judges by unless another is named; "" where there is none
    NETWORKS   where it is not any backbone: the networks that it can judge by, a tuple or dict; () where it takes none;
               "model" where it judges by a model file, which has to be named

and, after these, exactly one subclass of `Metric`. What two metrics share stands in modules that begin with `_`.

A metric is written NAME or NAME:NETWORK (`lpips:vgg16`), and its scores are called so: `style`, and its parts
`style.relu1_1`. Metrics whose value means nothing without the network's name (SCOPE "set") always carry it, unless
there is but one.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from styletools import backbones, errors, modelfile

if TYPE_CHECKING:
    from styletools.metrics._look import Look


MODEL = "model"


class Metric:
    """One measure. An instance sees the pairs of one set, one after another."""

    def __init__(self, network: str = "", *, device="cpu"):
        """Load what judges. Raises Unavailable where weights or a package are missing."""
        self.network, self.device = network, device

    def pair(self, output: Look, content: Look | None, style: Look | None) -> dict[str, float]:
        """Return the scores of one output: "" is the metric's own value, other keys are its parts.

        Content and style are given where NEEDS asks for them. Content has the output's size. Metrics of
        sets take notes and return nothing; metrics of sequences return nothing for the first frame.
        """
        raise NotImplementedError

    def restart(self) -> None:
        """Forget the frame before, for metrics of sequences: the next one does not follow it."""

    def total(self) -> dict[str, float]:
        """Return the scores of the whole set, for metrics of sets."""
        return {}


@dataclass(frozen=True)
class Description:
    """What a metric says of itself, read from its source."""

    name: str
    title: str
    needs: tuple[str, ...]
    scope: str
    better: str
    range: str
    network: str
    networks: tuple[str, ...] | str  # MODEL: a model file


@dataclass(frozen=True)
class Spec:
    """A metric as asked for: `key` is what its scores are called, `network` what it judges by ("" for none)."""

    name: str
    network: str
    key: str


def names() -> list[str]:
    """Return the names of all metrics: those whose file is there."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


@functools.cache
def describe(name: str) -> Description:
    """Return what metric `name` says of itself, without importing it. Raises UsageError for an unknown name."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names())}"
        raise errors.UsageError(f"unknown metric {name!r}: {hint}")
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    told = {"NEEDS": (), "SCOPE": "pair", "BETTER": "", "RANGE": "", "NETWORK": "", "NETWORKS": None}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in told:
            told[node.targets[0].id] = ast.literal_eval(node.value)
    title = (ast.get_docstring(tree) or name).partition("\n")[0].removeprefix(f"{name}: ").rstrip(".")
    networks = told.pop("NETWORKS")
    if networks is None:
        networks = backbones.names() if told["NETWORK"] else ()
    return Description(name, title, *told.values(), networks if networks == MODEL else tuple(networks))


def parse(words: str, backbone: str = "") -> list[Spec]:
    """Return the metrics that `style,lpips:vgg16,...` names, each once. Imports no torch.

    `backbone` judges where a metric would by the default one and none is named. Raises UsageError for what is unknown,
    MissingInput for a model file that is not there.
    """
    found: dict[str, Spec] = {}
    for word in filter(None, (word.strip() for word in words.split(","))):
        name, colon, network = word.partition(":")
        told = describe(name)
        if told.networks == MODEL:
            if not network:
                raise errors.UsageError(f"{name} judges by a model: write {name}:MODELFILE")
            network = str(modelfile.find(network))
            alone = name not in found or found[name].network == network
            key = name if alone else f"{name}:{network}"
            found[key] = Spec(name, network, key)
            continue
        if not colon:
            network = backbone if backbone and told.network == backbones.DEFAULT else told.network
        elif not told.network and not told.networks:
            raise errors.UsageError(f"{word}: {name} judges by no network")
        if told.networks and network not in told.networks:
            raise errors.UsageError(f"{word}: {name} judges by {', '.join(told.networks)}")
        says = len(told.networks) > 1 and (colon or told.scope == "set")
        key = f"{name}:{network}" if says else name
        found[key] = Spec(name, network, key)
    if not found:
        raise errors.UsageError("no metric is named")
    return list(found.values())


def create(spec: Spec, *, device="cpu") -> Metric:
    """Import a metric and return it, ready for the pairs of one set. Raises Unavailable where something is missing."""
    values = vars(importlib.import_module(f"styletools.metrics.{spec.name}")).values()
    kinds = [kind for kind in values if isinstance(kind, type) and issubclass(kind, Metric) and kind is not Metric]
    if len(kinds) != 1:
        raise errors.StyletoolsError(f"metrics/{spec.name}.py holds {len(kinds)} metrics instead of one")
    return kinds[0](spec.network, device=device)
