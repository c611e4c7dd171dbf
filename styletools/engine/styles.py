"""Styles as users give them: images, bundled names, style records, several with weights.

Finding and checking a style costs no torch; encoding an image does.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import shlex
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from styletools import __version__, errors, files, modelfile, streams

if TYPE_CHECKING:
    from torch import Tensor

    from styletools.methods import Method

DEFAULT_SIZE = 512
PHOTOGRAPHS, CROP = 24, 320  # how many a record is fitted to, and their sides
STYLES = "styles.safetensors"


@dataclass(frozen=True)
class Style:
    """One style of a mixture: an image, a record in a file, a bundled or a model's own name; `weight` is relative."""

    name: str
    path: Path
    weight: float = 1.0
    kind: str = "image"  # image | record | bundled | own


@functools.cache
def bundled() -> dict[str, dict[str, str]]:
    """Return the bundled styles, {name: metadata}, reading the headers of their file only."""
    path = files.zoo_dir() / STYLES
    headers = modelfile.read_headers(path) if path.exists() else ()
    return {header.metadata["name"]: header.metadata for header in headers}


def parse(specs: Sequence[str], labels: Sequence[str] = ()) -> list[Style]:
    """Return the styles of `-s` options: each PATH or NAME, with :WEIGHT, several separated by commas.

    Commas and colons in the names of files that exist belong to the names. labels: names that belong to --style-label,
    which is told to who gives them here. Raises MissingInput for what is neither a file nor a bundled name, UsageError
    for a bad weight, DataError for what is no regular file.
    """
    found = [_parse_one(part, labels) for spec in specs for part in split(spec)]
    if specs and not found:
        raise errors.UsageError("an empty style")
    return found


def check_weights(mixture: Sequence[Style]) -> None:
    """Raise UsageError for styles of which nothing is left, since the weights of all are 0."""
    if mixture and not sum(style.weight for style in mixture) > 0:
        raise errors.UsageError("the weights of the styles must sum to more than 0")


def split(spec: str) -> list[str]:
    """Split a spec at the commas that are in no file's name: as much as names a file is taken together."""
    words, parts = spec.split(","), []
    while words:
        taken = len(words)
        while taken > 1:
            joined = ",".join(words[:taken])
            if os.path.exists(joined) or ":" in words[taken - 1] and os.path.exists(joined.rpartition(":")[0]):
                break
            taken -= 1
        parts.append(",".join(words[:taken]))
        words = words[taken:]
    return [part for part in parts if part]


def _parse_one(text: str, labels: Sequence[str]) -> Style:
    name, weight = files.split_weight(text)
    if not 0 <= weight < float("inf"):
        raise errors.UsageError(f"{text}: the weight of a style must be 0 or more")
    if os.path.isdir(name) and name not in bundled():
        raise errors.DataError(f"{name}: is a directory, not a style")
    if os.path.exists(name) and not os.path.isdir(name):
        path = files.spool(name) if Path(name).is_fifo() else Path(name)  # for it is read more than once
        if not path.is_file():
            raise errors.DataError(f"{name}: a style must be a file or a pipe")
        return Style(name, path, weight, "record" if _is_record(path) else "image")
    if name in bundled():
        return Style(name, files.zoo_dir() / STYLES, weight, "bundled")
    if name in labels:
        raise errors.MissingInput(f"{name}: no such file, but a label: --style-label {shlex.quote(name)}")
    if os.sep in name or Path(name).suffix:
        raise errors.MissingInput(f"{name}: no such file")
    near = difflib.get_close_matches(name, bundled(), 1)
    hint = f"did you mean {near[0]}?" if near else "st-model list shows the bundled styles"
    raise errors.MissingInput(f"{name}: neither a file nor a bundled style: {hint}")


def _is_record(path: Path) -> bool:
    """Tell whether a file begins as safetensors do."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    return len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] <= modelfile.MAX_HEADER


def parse_own(specs: Sequence[str], names: Sequence[str], model: Path, what: str = "style") -> list[Style]:
    """Return the styles of `-s` or `--style-label` options that the model file `model` holds itself, under `names`.

    Each is NAME or NAME:WEIGHT. Raises UsageError for another name or a bad weight. what: what a name is called.
    """
    found = []
    for text in (part for spec in specs for part in spec.split(",") if part):
        name, weight = files.split_weight(text)
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise errors.UsageError(f"{model} has no {what} {name!r}: it has {', '.join(names)}{hint}")
        if not 0 <= weight < float("inf"):
            raise errors.UsageError(f"{text}: the weight of a {what} must be 0 or more")
        found.append(Style(name, model, weight, "own"))
    if specs and not found:
        raise errors.UsageError(f"an empty {what}")
    return found


def check(styles: Sequence[Style], method_name: str, model_digest: str, backbone: str = "") -> None:
    """Raise DoesNotFit for a style record that was made for another model, before anything heavy is loaded.

    backbone: the one that a method without a model file uses.
    """
    for style in styles:
        if style.kind in ("image", "own"):
            continue
        metadata = bundled()[style.name] if style.kind == "bundled" else modelfile.read_header(style.path)
        check_metadata(style.name, metadata, method_name, model_digest, backbone)


def check_metadata(
    name: str, metadata: dict[str, str], method_name: str, model_digest: str, backbone: str = ""
) -> None:
    """Raise DoesNotFit unless metadata are those of a style record for this method and model file.

    backbone: the one that a method without a model file uses.
    """
    kind = metadata.get("kind")
    made_with = metadata.get("backbone", backbone)
    if backbone and made_with != backbone and kind in ("stats", "style"):
        raise errors.DoesNotFit(f"{name}: statistics of {made_with}, but {method_name} uses {backbone} here")
    if kind == "stats" and not model_digest:
        return  # a method without a model file looks at the statistics itself
    if kind != "style":
        what = f"a record of kind {kind!r}" if kind else "no record of ours"
        raise errors.DoesNotFit(f"{name}: {what}, not a style for {method_name}; st-gram --for makes one of an image")
    if metadata.get("method") != method_name:
        raise errors.DoesNotFit(
            f"{name}: a style record for {metadata.get('method')}, not for {method_name}; "
            "give a picture, or make it again with st-gram --for"
        )
    if metadata.get("model_sha256", "") != model_digest:
        raise errors.DoesNotFit(
            f"{name}: a style record for another model of {metadata.get('method')}; make it again with st-gram --for"
        )


def load_image(path: str | os.PathLike, size: int | None = DEFAULT_SIZE, limits: streams.Limits | None = None):
    """Read a style image and return it as (1, 3, H, W) RGB in [0, 1], its short side scaled to `size` pixels.

    Transparent parts are laid over white.
    """
    from styletools.engine import features

    return features.to_pixels(streams.open_image(path, limits), size)


def encode(
    method: Method, styles: Sequence[Style], *, size: int | None = DEFAULT_SIZE, method_name="", model_digest=""
) -> dict[str, Tensor]:
    """Return the style record (tensors) for `method` of a weighted mixture of images and records.

    Raises DoesNotFit for records that were made for another method or model, or lack something.
    """
    images, records, pattern = [], [], None
    backbone = "" if model_digest else getattr(method.config, "backbone", "")
    for style in styles:
        if not style.weight:
            continue
        if style.kind == "image":
            images.append((load_image(style.path, size), style.weight))
        elif style.kind == "own":
            records.append((method.own_style(style.name), style.weight))
        else:
            record = load_record(style)
            check_metadata(style.name, record.meta, method_name, model_digest, backbone)
            pattern = pattern or _pattern(method)
            try:
                records.append((_fitting(record, pattern, method_name), style.weight))
            except errors.DoesNotFit as error:
                raise errors.DoesNotFit(f"{style.name}: {error}") from error
    return mix(method, images, records)


def mix(
    method: Method, images: Sequence[tuple[Tensor, float]], records: Sequence[tuple[dict, float]],
    photographs: Sequence[Tensor] = (),
) -> dict[str, Tensor]:  # fmt: skip
    """Return the style record (tensors) for `method` of images (1, 3, H, W) and style records, each with its weight.

    What the images give is fitted to `photographs`, (1, 3, H, W) each, where there are some.
    Raises DoesNotFit for records that hold other tensors than the method's own.
    """
    import torch

    from styletools import stats

    parts = [({key: tensor.to(method.device) for key, tensor in record.items()}, weight) for record, weight in records]
    if images:
        pixels, weights = [image.to(method.device) for image, _ in images], [weight for _, weight in images]
        with torch.no_grad():
            own = method.encode_style(pixels, weights)
        if photographs:
            own = method.refine(own, pixels, weights, photographs)
        parts.insert(0, (own, sum(weights)))
    try:
        return stats.merge([tensors for tensors, _ in parts], [weight for _, weight in parts])
    except (ValueError, RuntimeError) as error:
        raise errors.DoesNotFit(f"the styles cannot be mixed: {error}") from error


def load_record(style: Style) -> streams.Tensors:
    """Return a style record, in a file or bundled. A file of several records counts as their first."""
    with open(style.path, "rb", buffering=0) as file:
        for record in streams.read(file, name=str(style.path)):
            if style.kind == "bundled" and record.name != style.name:
                continue
            if not isinstance(record, streams.Tensors):
                break
            return record
    raise errors.DataError(f"{style.name}: holds no style record")


def _pattern(method: Method) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a method's style records."""
    import torch

    with torch.no_grad():
        record = method.encode_style([torch.zeros(1, 3, 64, 64).to(method.device)], [1.0])
    return {key: tuple(tensor.shape) for key, tensor in record.items()}


def _fitting(record: streams.Tensors, pattern: dict[str, tuple[int, ...]], method_name: str) -> dict[str, Tensor]:
    """Return those tensors of a record that the method's own records have, too, in float32."""
    import torch

    found = {}
    for key, wanted in pattern.items():
        shape = record.tensors[key].shape if key in record.tensors else None
        if shape != wanted:
            what = f"{key} of shape {shape}" if shape else f"no {key}"
            hint = f" (statistics made {'with' if record.meta.get('lifted') else 'without'} --lift)"
            hint = hint if record.meta.get("kind") == "stats" else ""
            raise errors.DoesNotFit(f"has {what}; {method_name} needs {wanted}{hint}")
        found[key] = torch.from_numpy(record.tensors[key]).float()
    return found


def to_record(tensors: dict[str, Tensor], *, name: str, method_name: str, model_digest: str, half: bool = False):
    """Return a style record that can be written: kind = style, for this method and model."""
    arrays = {key: (t.half() if half else t.float()).cpu().numpy() for key, t in tensors.items()}
    meta = {
        "kind": "style",
        "method": method_name,
        "model_sha256": model_digest,
        "producer": f"styletools {__version__}",
    }
    return streams.Tensors(arrays, name=name, meta=meta)


def load_photographs(folder: str) -> list[Tensor]:
    """Return crops (1, 3, 320, 320) in [0, 1] of the images in a folder, an archive or a list: the same ones each time.

    Raises MissingInput where there are none.
    """
    from styletools.engine import data

    crops = data.Crops([data.Source(folder)], seed=0, role=0).batch(0, PHOTOGRAPHS, CROP)
    return list(crops.float().div_(255).split(1))


class Maker:
    """Makes one style record of pictures, style records and statistics, taken one by one: st-gram --for.

    Within a group all pictures weigh alike; `merged` weighs the groups.
    """

    def __init__(
        self, method: Method, *, method_name: str, model_digest: str, size: int | None, backbone: str = "",
        photographs: Sequence = (),
    ):  # fmt: skip
        """photographs: (1, 3, H, W) that the record is fitted to; with none it stays what the encoder says."""
        self.names: list[str] = []
        self._photographs = photographs
        self._method, self._size = method, size
        self._made_for = {"method_name": method_name, "model_digest": model_digest}
        self._backbone = backbone
        self._images: list[tuple] = []
        self._records: list[tuple] = []
        self._pattern: dict[str, tuple[int, ...]] | None = None

    def add(self, record: streams.Record, group=None) -> None:
        """Take a picture or a record in. Raises DoesNotFit for a record that the method cannot use."""
        from styletools.engine import features, statistics

        if isinstance(record, streams.Tensors):
            if self._photographs:
                raise errors.DoesNotFit("a record of statistics: only pictures can be refined")
            # The messages of commands begin with the name of the file already.
            with _without_name():
                check_metadata("", record.meta, **self._made_for, backbone=self._backbone)
            self._pattern = self._pattern or _pattern(self._method)
            fitting = _fitting(record, self._pattern, self._made_for["method_name"])
            self._records.append((fitting, group, statistics.count(record)))
        else:
            self._images.append((features.to_pixels(record, self._size), group, 1))
        self.names.append(record.name)

    def merged(self, name: str, weights: dict | None = None) -> streams.Tensors:
        """Return the style record of all, by the `weights` of their groups; without, by their number of pictures."""
        counts: dict = {}
        for _, group, count in self._images + self._records:
            counts[group] = counts.get(group, 0) + count

        # What one picture of a group weighs.
        share = {group: weights[group] / number if weights else 1.0 for group, number in counts.items()}
        images, records = (
            [(part, share[group] * count) for part, group, count in parts] for parts in (self._images, self._records)
        )
        mixed = mix(self._method, images, records, self._photographs)
        made = to_record(mixed, name=name, **self._made_for)
        made.meta |= {"count": str(sum(counts.values()))} | ({"backbone": self._backbone} if self._backbone else {})
        return made


@contextlib.contextmanager
def _without_name():
    """Take the empty name off a message."""
    try:
        yield
    except errors.StyletoolsError as error:
        raise type(error)(str(error).removeprefix(": ")) from error
