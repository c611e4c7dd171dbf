"""What commands that restyle share: the options that say which model and style, and how a Restyler is made of them."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from styletools import errors, files, methods, modelfile, streams
from styletools.cli import _models, _options
from styletools.engine import styles

COLOR = ("luminance", "coral", "histogram")

_OPTIONS = [
    click.option("-m", "--model", metavar="MODEL", default="live", show_default=True,
                 help="A bundled model, a model file, a published checkpoint, or a method (gatys)."),
    click.option("-s", "--style", "specs", metavar="STYLE[:WEIGHT],...", multiple=True,
                 help="An image, a bundled name or a style record; several are mixed by weight."),
    click.option("--style-label", "label_specs", metavar="LABEL[:WEIGHT],...", multiple=True,
                 help="A label that the model has learnt; several, and styles of -s, are mixed by weight."),
    click.option("--alpha", metavar="A", type=click.FloatRange(0, 1), default=1.0, show_default=True,
                 help="How much style: 0 exactly the photograph, 1 all of it."),
    click.option("--direction", metavar="WAY",
                 help="Which way a model of cyclegan translates: a2b (the default) or b2a."),
    click.option("--preserve-color", metavar="HOW", type=click.Choice(COLOR),
                 help="Keep the photograph's colours: luminance, coral or histogram."),
    click.option("--mask", metavar="FILE", type=click.Path(readable=False),
                 help="Style where this picture is white, photograph where black."),
    click.option("--outside", "outside_specs", metavar="STYLE[:WEIGHT],...", multiple=True,
                 help="With --mask: the style where it is black, instead of the photograph."),
    click.option("--style-size", metavar="N", type=_options.Count(), default=styles.DEFAULT_SIZE, show_default=True,
                 help="Scale style images so that their short side has N pixels."),
    _options.size,
    _options.method_options,
    _options.seed,
]  # fmt: skip


def options(function):
    """Add the options that `choose` takes."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), function)


@dataclass(frozen=True)
class Choice:
    """A model and styles that go together, found and checked, but not loaded.

    `keys` are the styles over time, [(seconds, styles)]: one key where they stay the same.
    """

    method: str
    path: Path | None
    config: dict[str, Any] | None
    digest: str
    keys: list[tuple[float, list[styles.Style]]]
    outside: list[styles.Style]
    direction: str
    mask: str | None
    alpha: float
    preserve_color: str | None
    style_size: int
    size: int | None
    seed: int

    @property
    def styles(self) -> list[styles.Style]:
        """All styles, of any time, and those outside of the mask."""
        return [style for _, mixture in self.keys for style in mixture] + self.outside

    def recipe(self) -> dict[str, Any]:
        """Return what the result depends on, beside the picture: another recipe makes another picture."""
        told = {
            "method": self.method, "model": self.digest, "config": self.config, "alpha": self.alpha,
            "preserve_color": self.preserve_color, "styles": _identity(self.keys[0][1]),
            "outside": _identity(self.outside), "mask": self.mask and modelfile.digest(self.mask),
            "style_size": self.style_size if any(style.kind == "image" for style in self.styles) else None,
            "size": self.size, "seed": self.seed,
        }  # fmt: skip
        if len(self.keys) > 1:
            told["course"] = [[float(time), _identity(mixture)] for time, mixture in self.keys]
        if self.direction:  # so that results of models that have none stay current
            told["direction"] = self.direction
        return told

    def files(self) -> list[str]:
        """Return the files that the result depends on, beside the picture; those that a pipe was read into are none."""
        named = [self.path, *(style.path for style in self.styles if style.path != self.path), self.mask]
        told = [os.fspath(path) for path in named if path]
        return [path for path in dict.fromkeys(told) if not files.is_temporary(path)]

    def anywhere(self) -> "Choice":
        """Return the same for processes in other folders: its files by their absolute names."""

        def absolute(mixture):
            return [dataclasses.replace(style, path=style.path.absolute()) for style in mixture]

        return dataclasses.replace(
            self, path=self.path and self.path.absolute(), mask=self.mask and os.path.abspath(self.mask),
            keys=[(time, absolute(mixture)) for time, mixture in self.keys], outside=absolute(self.outside),
        )  # fmt: skip

    def check_same(self, recipe: dict[str, Any]) -> None:
        """Raise DoesNotFit where the files here are others than those that a `recipe` was made of elsewhere."""
        there = modelfile.digest(self.path) if self.path else ""
        if there != self.digest or self.recipe() != recipe:
            raise errors.DoesNotFit(f"{os.uname().nodename}: has another model, style or mask of that name")

    @property
    def _made_for(self) -> dict[str, Any]:
        """What style records must fit."""
        return {"size": self.style_size, "method_name": self.method, "model_digest": self.digest}

    def set_up(self, device: str, limits: streams.Limits, memory: int = 0):
        """Load all that restyling needs; from here on torch is in memory. memory: as a Restyler takes it.

        Return an infer.Restyler, and the style records over time as [(seconds, record)], empty without any style.
        """
        picture = streams.open_image(self.mask) if self.mask else None  # before torch: it may be no picture
        from styletools.engine import device as devices
        from styletools.engine import infer

        chosen = devices.choose(device)
        devices.seed_everything(self.seed)
        if self.path:
            method = modelfile.load(self.path, device=chosen, settings=self.config)
        else:
            config = self.config
            if any(option.name == "seed" for option in methods.describe(self.method).options):
                config = {"seed": self.seed} | (config or {})
            method = methods.create(self.method, config).to(chosen)
        method.direction = self.direction
        course = [(float(time), styles.encode(method, each, **self._made_for)) for time, each in self.keys if each]
        restyler = infer.Restyler(
            method,
            course[0][1] if course else None,
            alpha=self.alpha,
            size=self.size,
            preserve_color=self.preserve_color or "",
            mask=infer.to_plane(picture) if picture else None,
            outside=styles.encode(method, self.outside, **self._made_for) if self.outside else None,
            limits=limits,
            memory=memory,
        )
        return restyler, course

    def set_up_graph(self, device: str, limits: streams.Limits, *, precise: bool = False):
        """Load the graph of the model and the styles, without torch; return a graph.Restyler.

        The graph of a model that has none yet is made and kept, which does take torch. Raises graph.NotPossible, which
        says why, for what only torch can do.
        """
        from styletools.engine import graph

        why = graph.obstacle(device, self.preserve_color or "")
        described = methods.describe(self.method)
        if not why and not (self.path and described.has_graphs):
            why = f"{self.method} has no graph"
        if not why and self.direction != (described.directions or ("",))[0]:
            why = f"--direction {self.direction} takes torch"
        if not why and self.config:
            why = "-O takes torch"
        if why:
            raise graph.NotPossible(why)
        picture = streams.open_image(self.mask) if self.mask else None
        found = graph.find(self.path, self.digest)
        if not found:
            from styletools.engine import export

            found = export.keep(self.path, self.digest)
        loaded = graph.Graph(found, precise=precise)
        return graph.Restyler(
            loaded,
            graph.encode(loaded, self.keys[0][1], **self._made_for),
            alpha=self.alpha,
            size=self.size,
            preserve_color=self.preserve_color or "",
            mask=graph.to_plane(picture) if picture else None,
            outside=graph.encode(loaded, self.outside, **self._made_for) if self.outside else None,
            limits=limits,
        )


def choose(
    *, model, settings, specs, label_specs, outside_specs, alpha, direction, preserve_color, mask, style_size, size,
    seed, course: Callable[[Sequence[str]], list[tuple[Any, Sequence[str]]]] = lambda specs: [(0, specs)],
) -> Choice:  # fmt: skip
    """Return what the options of `options` say. Raises before anything heavy is loaded where it does not fit together.

    course: what splits the words of -s by the times at which they hold.
    """
    if alpha != alpha:
        raise errors.UsageError("--alpha nan: a number from 0 to 1 expected")
    name, path, config = _models.resolve(model, settings)
    described = methods.describe(name)
    held = _own_styles(path, "styles") if described.applies_to == "image" else []
    labels = _own_styles(path, "labels") if described.applies_to == "image+label" else []
    if label_specs and not labels:
        raise errors.UsageError(f"{name} has no labels: --style-label does not go with it")

    def parse(words):
        return styles.parse_own(words, held, path) if held else styles.parse(words, labels)

    keys = [(time, parse(words)) for time, words in course(specs)]
    if label_specs and len(keys) > 1:
        raise errors.UsageError("--style-label holds for all of the time: it does not go with styles that have times")
    if label_specs:
        keys[0][1].extend(styles.parse_own(label_specs, labels, path, "label"))
    outside = parse(outside_specs)
    for mixture in [*(mixture for _, mixture in keys), outside]:
        styles.check_weights(mixture)
    _check_use(described, keys[0][1], outside, mask, held, labels)
    direction = _direction(described, direction)
    digest = modelfile.digest(path) if path else ""
    choice = Choice(name, path, config, digest, keys, outside, direction, mask, alpha, preserve_color, style_size, size,
                    seed)  # fmt: skip
    defaults = {option.name: option.default for option in described.options} | (config or {})
    styles.check(choice.styles, name, digest, "" if path else defaults.get("backbone", ""))
    return choice


def _own_styles(path, key: str) -> list[str]:
    """Return the names of the styles that a model file holds itself, under `key` in its configuration."""
    config = modelfile.check(path).get("config", "{}") if path else "{}"
    with contextlib.suppress(ValueError, AttributeError):
        return [name for name in json.loads(config).get(key, "").split(",") if name]
    return []


def _check_use(described, chosen, outside, mask, held, labels) -> None:
    """Raise UsageError where style, mask and method do not go together."""
    if described.applies_to not in ("image", "image+style", "image+label"):
        raise errors.UsageError(f"{described.name} does not restyle pictures: it applies to {described.applies_to}")
    if described.applies_to == "image+style" and not chosen:
        known = ", ".join(list(styles.bundled())[:3])
        by_name = f", or by name: {known}, ..." if known else ""
        raise errors.UsageError(f"{described.name} needs a style: -s IMAGE{by_name}")
    if len(held) > 1 and not chosen:
        raise errors.UsageError(f"this model holds several styles: -s NAME, of {', '.join(held)}")
    if len(labels) > 1 and not chosen:
        raise errors.UsageError(f"this model has several labels: --style-label LABEL, of {', '.join(labels)}")
    if described.applies_to == "image" and not held and (chosen or outside):
        raise errors.UsageError(f"{described.name} has its style built in: -s does not go with it")
    if outside and not mask:
        raise errors.UsageError("--outside needs --mask")
    if mask and not os.path.exists(mask):
        raise errors.MissingInput(f"{mask}: no such file")
    if mask and not os.path.isfile(mask):
        raise errors.DataError(f"{mask}: a mask must be a regular file, for it is read more than once")


def _direction(described, wanted: str | None) -> str:
    """Return the way that pictures go, "" for a method that has but one. Raises UsageError for one it has not."""
    if wanted and wanted not in described.directions:
        known = f"choose from {', '.join(described.directions)}" if described.directions else "it goes one way only"
        raise errors.UsageError(f"--direction {wanted}: {described.name} does not go there: {known}")
    return wanted or (described.directions or ("",))[0]


def check_standard_input(choice: Choice) -> None:
    """Raise UsageError where a style came through standard input, which holds the pictures."""
    if any(map(_is_piped_in, choice.styles)):
        raise errors.UsageError("standard input cannot be both a style and the pictures")


def _is_piped_in(style) -> bool:
    path = Path(style.name)
    with contextlib.suppress(OSError):
        return style.kind != "bundled" and path.is_fifo() and os.path.samestat(path.stat(), os.fstat(0))
    return False


def _identity(mixture) -> list:
    """Return what tells one mixture of styles from another: neither their order nor the sum of their weights."""
    total = sum(style.weight for style in mixture)
    return sorted(
        [modelfile.digest(style.path), "" if style.kind in ("image", "record") else style.name, style.weight / total]
        for style in mixture if style.weight
    )  # fmt: skip
