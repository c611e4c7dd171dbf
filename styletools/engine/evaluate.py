"""Scoring restyled pictures: the pairs one after another, the set at the end, and beside it two control rows.

A metric may be won by doing nothing, or by handing in the painting. So every set is scored thrice: as measured, with
the photograph in the output's place (identity), and with the painting (target).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import statistics
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from styletools import errors, files, log, metrics, streams
from styletools.engine import infer, video
from styletools.metrics._look import Look, crop, resize_flow
from styletools.nn import flow as optical

MEASURED, IDENTITY, TARGET = "measured", "identity", "target"
CONTROLS = {IDENTITY: "content", TARGET: "style"}  # row -> what stands in the output's place


class Evaluation:
    """The scores of one set of pairs: `add` every pair, then ask for the `summary`."""

    def __init__(self, specs: Sequence[metrics.Spec], *, device="cpu", controls: bool = True):
        """Load all that judges. Raises Unavailable where weights or packages are missing."""
        self.specs = list(specs)
        self._told = [metrics.describe(spec.name) for spec in specs]
        rows = [MEASURED, *CONTROLS] if controls else [MEASURED]
        self._rows = {row: [metrics.create(spec, device=device) for spec in specs] for row in rows}
        self._scores: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
        self._seen = dict.fromkeys(rows, 0)
        self._shown: list[Look] = []

    def use_reference(self, key: str, path: str) -> None:
        """Have a metric of sets compare with a statistics file, in all rows. Raises DoesNotFit for one of another."""
        for judges in self._rows.values():
            for spec, metric in zip(self.specs, judges):
                if spec.key == key:
                    metric.use_reference(path)

    def restart(self) -> None:
        """Forget the pair before, after one that failed: the next is not its neighbour."""
        for judges in self._rows.values():
            for metric in judges:
                metric.restart()

    @property
    def measured(self) -> dict[str, metrics.Metric]:
        """The metrics that see the outputs, by key."""
        return {spec.key: metric for spec, metric in zip(self.specs, self._rows[MEASURED])}

    def add(self, output: Look, content: Look | None = None, style: Look | None = None) -> dict[str, float | None]:
        """Score one output; None stands for what is not defined. Content of another size is scaled to the output's.

        Raises what the metrics raise; a pair that fails counts in no row.
        """
        if content is not None:
            content = content.scaled(output.image.shape[-2:])
        for look in self._shown:  # the features of what comes again at once are not computed again
            if look not in (output, content, style):
                look.forget()
        self._shown = [look for look in (output, content, style) if look is not None]
        replaced = {IDENTITY: content, TARGET: style and style.fitted(output.image.shape[-2:])}
        shown = {MEASURED: output} | replaced
        found: dict[str, dict[str, float]] = {row: {} for row in self._rows if shown[row] is not None}
        for of_sets in (False, True):  # these take notes, which a pair that fails must not leave
            for row, scores in found.items():
                for spec, told, metric in zip(self.specs, self._told, self._rows[row]):
                    if (told.scope == "set") == of_sets:
                        given = (content if "content" in told.needs else None, style if "style" in told.needs else None)
                        scores |= {_key(spec, part): value for part, value in metric.pair(shown[row], *given).items()}
        for row, scores in found.items():
            self._seen[row] += 1
            for key, value in scores.items():
                self._scores[row].setdefault(key, []).append(value)
        return {key: finite(value) for key, value in found[MEASURED].items()}

    def summary(self) -> dict:
        """Return {"pairs", "scores", "std", "min", "max", "controls", "control_pairs"}, to be asked for once.

        Scores of pairs are means over those for which they are defined, as are std (n - 1), min and max. controls are
        {row: scores}. None stands for what is not defined.
        """
        defined = {
            row: {key: [v for v in values if not math.isnan(v)] for key, values in scores.items()}
            for row, scores in self._scores.items()
        }
        rows = {row: {key: _mean(values) for key, values in scores.items()} for row, scores in defined.items()}
        for row, judges in self._rows.items():
            for spec, metric in zip(self.specs, judges) if self._seen[row] else ():
                rows[row] |= {_key(spec, part): finite(value) for part, value in metric.total().items()}
        spread = {key: values for key, values in defined[MEASURED].items() if values}
        return {
            "pairs": self._seen[MEASURED],
            "scores": rows.pop(MEASURED),
            "std": {key: finite(statistics.stdev(values)) for key, values in spread.items() if len(values) > 1},
            "min": {key: finite(min(values)) for key, values in spread.items()},
            "max": {key: finite(max(values)) for key, values in spread.items()},
            "controls": {row: scores for row, scores in rows.items() if self._seen[row]},
            "control_pairs": {row: self._seen[row] for row in rows if self._seen[row]},
        }


def _key(spec: metrics.Spec, part: str) -> str:
    return f"{spec.key}.{part}" if part else spec.key


def _mean(values: list[float]) -> float | None:
    return finite(math.fsum(values) / len(values)) if values else None


def finite(value: float) -> float | None:
    """Return a score to six digits; None, which JSON knows, for what is no number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


class Looks:
    """Pictures as metrics see them, read when first asked for; the last few are kept, with what was found out of them.

    size: scale pictures so that their short side has so many pixels; square: cut out the middle square. Alpha is
    laid over white.
    """

    def __init__(self, *, size: int | None = None, square: bool = False, device="cpu", keep: int = 24, limits=None):
        self.size, self.square, self.device, self.keep, self.limits = size, square, device, keep, limits
        self._kept: OrderedDict[str, Look] = OrderedDict()

    def read(self, path: str, *, keep: bool = False) -> Look:
        """Return the picture in a file. `keep`: it will be asked for again.

        Raises as `streams.open_image`, and DataError for a file of several, of which one only would be judged.
        """
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        look = self.of(_only_picture(path, self.limits), path)
        if keep:
            self._kept[path] = look
            if len(self._kept) > self.keep:
                self._kept.popitem(last=False)
        return look

    def of(self, image: streams.Image, name: str) -> Look:
        """Return a picture that has been read. Raises DataError for tensors."""
        if not isinstance(image, streams.Image):
            raise errors.DataError(f"{name}: holds tensors, not a picture")
        pixels, _ = infer.to_tensor(dataclasses.replace(image, array=streams.flat_rgb(image)))
        tensor = infer.resize(pixels.to(self.device), self.size)
        if self.square:
            tensor = crop(tensor, [min(tensor.shape[-2:])] * 2)
        return Look(tensor, name)


def _only_picture(path: str, limits: streams.Limits | None) -> streams.Image:
    """Return the picture in a file that holds one."""
    try:
        with open(path, "rb", buffering=0) as source:
            found = list(itertools.islice(streams.read(source, name=path, limits=limits), 2))
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    if not found:
        raise errors.DataError(f"{path}: is empty")
    if len(found) > 1:
        raise errors.DataError(f"{path}: holds several pictures: give a stream (-), an archive or a video")
    if found[0].meta.get("frames") and found[0].meta.get("format") != "jpeg":  # those of cameras are previews
        log.warning(f"{path}: only the first of its {found[0].meta['frames'] + 1} frames is judged")
    return found[0]


# ---- what is compared with what --------------------------------------------------------------------------

ROLES = ("output", "content", "style")
Shown = Iterator[tuple[dict, Callable[[], tuple[Look, Look | None, Look | None]]]]


def pairs(looks: Looks, files_of: Sequence, flow: str | None = None) -> Shown:
    """Yield (names, function that reads the pictures) of pairs of files: output, content and style, "" for none.

    flow: the motion from each pair's content to the next one's, a file or a folder as `Flows` takes it.
    """
    uses = Counter(path for pair in files_of for path in (pair.content, pair.style))
    flows, before = Flows(flow, looks), None
    for pair in files_of:
        # Asked for whether or not the pair can be read: motions come in the order of the frames.
        motion = flows.after(before) if before else None

        def read(pair=pair, motion=motion):
            output, content, style = (
                looks.read(path, keep=uses[path] > 1) if path else None
                for path in (pair.output, pair.content, pair.style)
            )
            if content is not None:
                content.flow = flows.fitted(motion, content)
            return output, content, style

        yield {role: getattr(pair, role) for role in ROLES if getattr(pair, role)}, read
        before = pair.content
    flows.end()


def frames(
    looks: Looks,
    output: str,
    content: str | dict[str, str] | None = None,
    style: str | dict[str, str] | None = None,
    *,
    flow: str | None = None,
    format: str | None = None,
) -> Shown:
    """Yield (names, function that gives the pictures) of the frames of a stream, an archive or a video.

    Content and style are the like, and as long; or one picture for all; or {name: file}, where the frames have names,
    as the members of an archive do. `format` is that of standard input. Raises DataError where one ends before
    another, or where their names differ.
    """
    partners = [_Partner(looks, path, format) if path else None for path in (content, style)]
    flows, before, count = Flows(flow, looks), None, 0
    for record in records(output, format=format, limits=looks.limits):
        found = [partner.next(record.name, count) if partner else (None, None) for partner in partners]
        (content_path, content_look), (style_path, style_look) = found
        if content_look is not None and before is not None:
            content_look.flow = flows.fitted(flows.after(before), content_look)
        before, count = record.name or str(count + 1), count + 1
        names = {"output": output, "content": content_path, "style": style_path, "frame": count, "name": record.name}
        shown = (looks.of(record, record.name or f"{output} {count}"), content_look, style_look)
        yield {role: name for role, name in names.items() if name}, lambda shown=shown: shown
    for partner in filter(None, partners):
        partner.end(count)
    flows.end()


class _Partner:
    """What the frames of an output are compared with: other frames, one picture, or pictures called like them."""

    def __init__(self, looks: Looks, source: str | dict[str, str], format: str | None):
        self.looks, self.source, self.frames = looks, source, None
        if isinstance(source, str) and video.is_sequence(source):
            self.frames = records(source, format=format, limits=looks.limits)

    def next(self, name: str, number: int) -> tuple[str, Look]:
        """Return the file of the partner of the next frame, and the partner."""
        if isinstance(self.source, dict):
            path = self.source.get(_stem(name))
            if path is None:
                raise errors.MissingInput(f"no partner of that name for {name or f'frame {number + 1}'}")
            return path, self.looks.read(path, keep=True)
        if self.frames is None:
            return self.source, self.looks.read(self.source, keep=True)
        record = next(self.frames, None)
        if record is None:
            raise errors.DataError(f"{self.source}: ends after {number} frames, but there are more of the output")
        if name and record.name and _stem(name) != _stem(record.name):
            raise errors.DataError(f"{self.source}: has {record.name} where the output has {name}: order them alike")
        return self.source, self.looks.of(record, record.name or f"{self.source} {number + 1}")

    def end(self, count: int) -> None:
        """Raise DataError unless the frames are at their end."""
        if self.frames is not None and next(self.frames, None) is not None:
            raise errors.DataError(f"{self.source}: goes on after the output's last frame, its {count}th")


class Flows:
    """The true motion between frames: a .flo file of one record for each two, or a folder of files.

    In a folder, a file is called as the earlier of its two frames (1, 2, ... where frames have no names), and is a .flo
    or a picture as KITTI has them.
    """

    def __init__(self, path: str | None, looks: Looks):
        self.scaled = looks.size is not None
        self.folder = path if path and os.path.isdir(path) else None
        self.records = records(path) if path and not self.folder else None

    def fitted(self, flow: Tensor | None, look: Look) -> Tensor | None:
        """Return a motion for a frame, which may have been scaled."""
        return resize_flow(flow, look.image.shape[-2:]) if flow is not None and self.scaled else flow

    def after(self, name: str) -> Tensor | None:
        """Return the motion (1, 2, H, W) from the frame called `name` to the next; None where none is given."""
        if self.folder:
            stem = os.path.join(self.folder, os.path.basename(_stem(name)))
            path = next((stem + ending for ending in (".flo", ".png") if os.path.exists(stem + ending)), None)
            if path is None:
                raise errors.MissingInput(f"{stem}.flo: no such file")
            return _motion(next(records(path), None), path)
        if self.records is None:
            return None
        record = next(self.records, None)
        if record is None:
            raise errors.DataError("--flow ends before the frames do: one record for each two frames is needed")
        return _motion(record, record.name or name)

    def end(self) -> None:
        """Raise DataError unless every motion of a file has found its frames."""
        if self.records is not None and next(self.records, None) is not None:
            raise errors.DataError("--flow goes on after the last two frames: it is of others")


def _motion(record: streams.Record | None, name: str) -> Tensor:
    if record is None:
        raise errors.DataError(f"{name}: is empty")
    if isinstance(record, streams.Image):
        return optical.read_kitti(record)
    if "flow" not in record.tensors:
        raise errors.DataError(f"{name}: holds no optical flow")
    return torch.from_numpy(record.tensors["flow"]).permute(2, 0, 1)[None].float()


def records(path: str, *, format: str | None = None, limits: streams.Limits | None = None) -> Iterator[streams.Record]:
    """Yield the records of a file, an archive, a video or standard input (-), in order.

    Raises DataError where one is damaged.
    """
    if video.is_video(path):
        yield from video.frames(path)
        return
    with contextlib.ExitStack() as stack:
        source = files.standard_input() if path == "-" else stack.enter_context(open(path, "rb", buffering=0))
        for record in streams.read(source, format=format if path == "-" else None, limits=limits, stream=path == "-"):
            if isinstance(record, streams.Bad):
                raise record.error
            yield record


class Pictures:
    """The pictures of rows of scores as they were judged, read anew; frames in one pass, where asked for in order."""

    def __init__(self, looks: Looks):
        self.looks = looks
        self._passes: dict[str, tuple[int, Iterator[streams.Record]]] = {}

    def __call__(self, row: dict, role: str) -> streams.Image | None:
        """Return the picture of a role; None for what came through a pipe, or is gone."""
        path = row.get(role)
        if not path or path == "-":
            return None
        with contextlib.suppress(errors.StyletoolsError, OSError, StopIteration):
            if "frame" in row and video.is_sequence(path):
                look = self.looks.of(self._frame(path, row["frame"]), path)
            else:
                look = self.looks.read(path, keep=True)
            return streams.Image(infer.to_levels(look.image[0]).numpy(), name=path)
        return None

    def _frame(self, path: str, number: int) -> streams.Record:
        """Return a frame, counted from 1, going on from the last one that was asked for where that is possible."""
        done, frames = self._passes.get(path, (number, iter(())))
        if done >= number:
            done, frames = 0, records(path, limits=self.looks.limits)
        self._passes[path] = number, frames
        return next(itertools.islice(frames, number - done - 1, None))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
