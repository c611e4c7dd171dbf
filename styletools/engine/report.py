"""The report of an evaluation: one page with the scores, their distributions, and the best and worst pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import BinaryIO

from styletools.engine import page
from styletools.streams import Image

SIDE, QUALITY = 512, 88  # of the pictures in a page
ROLES = ("output", "content", "style")


def write(
    path_or_file: str | os.PathLike | BinaryIO,
    data: dict,
    picture: Callable[[dict, str], Image | None],
    *,
    shown: int = 6,
) -> int:
    """Write the page of an evaluation, which opens from a disk and needs no network; return its size in bytes.

    data: `title`, `command`, `created` (ISO time), `version`, `model` and `note` (texts, may be empty), and

        metrics  [{key, title, better: "lower" | "higher" | "neither", range, scope: "pair" | "set" | "sequence"}]
        sets     [{name, control: bool, pairs: count, scores: {key: number or None}, std: {key: number},
                   seconds, peak_mb: number or None}]
        pairs    [{set: name, output, content, style: path or None, scores: {key or key.part: number or None}}]

    picture: returns a pair's picture in a role ("output", "content", "style"), or None. It is asked for the `shown`
    best and the `shown` worst pairs of each metric that scores pairs, controls left out: that bounds the page.
    """
    metrics, pairs = data["metrics"], data["pairs"]
    columns = _columns([metric["key"] for metric in metrics], pairs)
    controls = {each["name"] for each in data["sets"] if each["control"]}
    ends = {}
    for metric in metrics:
        scores = [(p["scores"].get(metric["key"]), i) for i, p in enumerate(pairs) if p["set"] not in controls]
        best, worst = _ends(scores, metric["better"], shown)
        if best and metric["scope"] != "set":
            ends[metric["key"]] = {"best": best, "worst": worst}
    pictures, seen = page.Pictures(SIDE, QUALITY), {}
    for i in sorted({i for each in ends.values() for i in each["best"] + each["worst"]}):
        found = {role: picture(pairs[i], role) for role in ROLES}
        seen[i] = {role: pictures.add(image) for role, image in found.items() if image is not None}
    told = {name: data.get(name) or "" for name in ("title", "command", "created", "version", "model", "note")}
    told |= {
        "metrics": metrics,
        "sets": [each | {"scores": _numbers(each["scores"]), "std": _numbers(each["std"])} for each in data["sets"]],
        "columns": columns,
        "pairs": [_row(pair, columns) for pair in pairs],
        "ends": ends,
        "seen": seen,
        "pictures": pictures.embedded,
    }
    return page.write(path_or_file, "report", told)


def _columns(keys: list[str], pairs: list[dict]) -> list[str]:
    """Return what the pairs are scored by: each metric, followed by its parts."""
    scored = list(dict.fromkeys(key for pair in pairs for key in pair["scores"]))
    columns = []
    for key in keys:
        columns += [each for each in scored if each == key] + [each for each in scored if each.startswith(f"{key}.")]
    return columns


def _ends(scores: list[tuple[float | None, int]], better: str, shown: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the best and of the worst pairs, the most extreme first; no pair is in both.

    Of a metric without a direction, the lowest are first.
    """
    told = [each for each in scores if each[0] is not None and not math.isnan(each[0])]
    order = [i for _, i in sorted(told, key=lambda each: -each[0] if better == "higher" else each[0])]
    half = len(order) // 2
    return order[: min(shown, len(order) - half)], order[::-1][: min(shown, half)]


def _row(pair: dict, columns: list[str]) -> list:
    """Return a pair as the page has it: set, three paths, and its scores in the order of the columns."""
    paths = [None if pair.get(role) is None else os.fspath(pair[role]) for role in ROLES]
    return [pair["set"], *paths, [_number(pair["scores"].get(key)) for key in columns]]


def _numbers(scores: dict) -> dict:
    return {key: _number(value) for key, value in scores.items()}


def _number(value: float | None) -> float | str | None:
    """Return a score for JSON, which has no infinity (the PSNR of equal pictures) and no NaN."""
    if value is None or math.isnan(value):
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
