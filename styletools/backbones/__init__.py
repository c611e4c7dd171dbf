"""Perceptual networks: pretrained, frozen, read layer by layer. One file each.

A backbone module has literals `LAYERS` (what can be asked for) and, where weights are published, `URL` and
`SHA256` (the hex digits its digest begins with), and a function `build(weights_file) -> Backbone`.
Importing this package costs no torch.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from styletools import errors, files, log

if TYPE_CHECKING:
    from styletools.backbones._backbone import Backbone

DEFAULT = "slim"


def names() -> list[str]:
    """Return the names of all backbones: those whose file is there."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def layers(name: str) -> list[str]:
    """Return the layers that a backbone has, shallow to deep, without importing torch."""
    return list(_literal(name, "LAYERS"))


def check(name: str, wanted: Sequence[str]) -> None:
    """Raise UsageError unless `name` is a backbone with all the layers `wanted`. Imports no torch."""
    if name not in names():
        raise errors.UsageError(f"unknown backbone {name!r}: choose from {', '.join(names())}")
    for layer in wanted:
        if layer not in layers(name):
            raise errors.UsageError(f"{name} has no layer {layer!r}: choose from {', '.join(layers(name))}")


@functools.cache
def _literal(name: str, variable: str):
    """Read a literal assignment at the top of a backbone's file; None where there is none."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == variable for t in node.targets):
            return ast.literal_eval(node.value)
    return None


def load(name: str = DEFAULT, *, device="cpu") -> Backbone:
    """Return a frozen backbone with its pretrained weights, in evaluation mode.

    Weights come from the folders in STYLETOOLS_WEIGHTS, else the zoo (slim), else the cache, else they are
    downloaded. Raises Unavailable when none can be had, DataError for a file that holds something else.
    """
    check(name, ())
    module = importlib.import_module(f"styletools.backbones.{name}")
    import torch

    # Networks are born with random weights, replaced at once: whoever draws numbers shall not notice, or a resumed
    # training would see others than an uninterrupted one.
    with torch.random.fork_rng(devices=[]):
        network = module.build(find_weights(name))
    return network.eval().requires_grad_(False).to(device)


_nearer: list[str | os.PathLike] = []


@contextlib.contextmanager
def looking_in(folder: str | os.PathLike) -> Iterator[None]:
    """Within, look for weights in `folder` before all others: a published model may bring those of its encoder."""
    _nearer.insert(0, folder)
    try:
        yield
    finally:
        _nearer.remove(folder)


def folders() -> list[str | os.PathLike]:
    """Return where weights are looked for first: the folder of `looking_in`, then those of STYLETOOLS_WEIGHTS."""
    return [*_nearer, *filter(None, os.environ.get("STYLETOOLS_WEIGHTS", "").split(os.pathsep))]


def find_weights(name: str) -> Path:
    """Return the weights file of a backbone: given, bundled, cached or now downloaded.

    In the folder of `looking_in`, then in each one of STYLETOOLS_WEIGHTS (separated by colons), files matching the
    module's PATTERNS count, the largest first, since published cuts of a network are smaller than the whole of it.
    """
    if path := _found(name):
        return path
    url = _literal(name, "URL")
    if not url:
        raise errors.Unavailable(f"no weights of {name} in STYLETOOLS_WEIGHTS ({' or '.join(_patterns(name))})")
    return download(name, url, _literal(name, "SHA256"))


def at_hand(name: str) -> bool:
    """Tell whether a backbone's weights are to be had without a download."""
    url = _literal(name, "URL")
    return bool(_found(name) or (url and (files.cache_dir() / "weights" / url.rpartition("/")[2]).exists()))


def _patterns(name: str) -> tuple[str, ...]:
    return _literal(name, "PATTERNS") or (f"{name}*.pth", f"{name}*.pt", f"{name}*.safetensors")


def _found(name: str) -> Path | None:
    """Return the weights file that is given or bundled."""
    for folder in folders():
        found = [path for pattern in _patterns(name) for path in Path(folder).glob(pattern)]
        if found:
            return max(found, key=lambda path: path.stat().st_size)
    bundled = files.zoo_dir() / f"{name}.safetensors"
    return bundled if bundled.exists() else None


def find_published(name: str, url: str, digest: str) -> Path:
    """Return the file that is published at `url`: by its name there in the folders of weights, else downloaded."""
    for folder in folders():
        if (path := Path(folder) / url.rpartition("/")[2]).is_file():
            return path
    return download(name, url, digest)


def download(name: str, url: str, digest: str, folder: str = "weights") -> Path:
    """Fetch published weights into a folder of the cache, once; the hex digits `digest` must begin their SHA-256.

    Raises Unavailable where that is forbidden or fails.
    """
    import urllib.error

    import torch.hub

    target = files.cache_dir() / folder / url.rpartition("/")[2]
    if target.exists():
        return target
    if files.offline():
        raise errors.Unavailable(f"weights of {name} are not cached, and STYLETOOLS_OFFLINE forbids to fetch {url}")
    log.warning(f"downloading {url} to {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=digest, progress=log.progress_is_shown())
    except urllib.error.URLError as error:
        raise errors.Unavailable(f"cannot download {url}: {error.reason}") from error
    except RuntimeError as error:
        raise errors.Unavailable(f"cannot download {url}: {error}") from error
    except OSError as error:
        raise errors.from_os_error(error, str(target), output=True) from error
    return target
