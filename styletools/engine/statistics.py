"""Records of statistics: made of feature records, checked, merged, derived from. Arithmetic on files, without torch.

A record of kind `stats` holds per layer `<layer>.mean` (C,) and `<layer>.moment` (C, C), the raw second moment, which
add up linearly; its metadata says of which backbone, with which weights and layers, and over how many pictures
(`count`). What is derived from them (Gram matrices, covariances, deviations) does not add up and is not read again.
"""

from __future__ import annotations

import numpy as np

from styletools import errors
from styletools.streams import Tensors

EPS = 1e-5
DERIVED = ("gram", "covariance", "mean-std")
_SAME = ("backbone", "backbone_sha256", "lifted", "layers")  # must agree before statistics are merged


def of_features(record: Tensors) -> Tensors:
    """Return the statistics of a record of features (C, h, w). Raises DataError where its tensors are others."""
    tensors = {}
    for layer in _layers(record):
        features = record.tensors.get(layer)
        if features is None or features.ndim != 3 or not features.size:
            raise errors.DataError(f"damaged features: no {layer} of channels x height x width")
        flat = features.reshape(len(features), -1).astype(np.float32)
        tensors[f"{layer}.mean"] = flat.mean(1)
        tensors[f"{layer}.moment"] = flat @ flat.T / np.float32(flat.shape[1])
    return Tensors(tensors, record.name, record.index, record.meta | {"kind": "stats", "count": "1"})


def read(record) -> Tensors:
    """Return the statistics that a record holds, or that its features have.

    Raises DoesNotFit for a record of another kind, DataError for a damaged one.
    """
    kind = record.meta.get("kind") if isinstance(record, Tensors) else "picture"
    if kind == "features":
        return of_features(record)
    if kind in DERIVED:
        raise errors.DoesNotFit(f"holds {kind}, which cannot be merged: give what st-gram writes without --as")
    if kind != "stats":
        what = f"holds a {kind}" if kind else "holds tensors of unknown kind"
        raise errors.DoesNotFit(f"{what}, not features or statistics")
    for layer in _layers(record):
        mean, moment = record.tensors.get(f"{layer}.mean"), record.tensors.get(f"{layer}.moment")
        if mean is None or moment is None or mean.ndim != 1 or moment.shape != 2 * mean.shape:
            raise errors.DataError(f"damaged statistics: no mean and second moment of {layer}")
    return record


def _layers(record: Tensors) -> list[str]:
    layers = [layer for layer in record.meta.get("layers", "").split(",") if layer]
    if not layers:
        raise errors.DataError("damaged record: its metadata name no layers")
    return layers


def count(record: Tensors) -> int:
    """Return over how many pictures statistics were taken."""
    text = record.meta.get("count", "1")
    if not text.isdecimal() or not int(text):
        raise errors.DataError(f"damaged statistics: count is {text!r}")
    return int(text)


class Merger:
    """The weighted mean of statistics, taken record by record, in groups: within one, pictures weigh alike."""

    def __init__(self, read=read):
        """read: what returns the statistics of a record; the module's own takes records of features and statistics."""
        self.names: list[str] = []
        self._read = read
        self._first: Tensors | None = None
        self._sums: dict = {}
        self._counts: dict = {}

    def add(self, record: Tensors, group=None) -> None:
        """Take a record in. Raises DoesNotFit, saying what differs, unless it fits those before."""
        record = self._read(record)
        if self._first is None:
            self._first = record
        self._check(record)
        number = count(record)
        sums = self._sums.setdefault(group, {})
        for key, array in record.tensors.items():
            sums[key] = sums.get(key, 0.0) + array.astype(np.float64) * number
        self._counts[group] = self._counts.get(group, 0) + number
        self.names.append(record.name)

    def _check(self, record: Tensors) -> None:
        first = self._first
        for key in _SAME:
            mine, theirs = record.meta.get(key, ""), first.meta.get(key, "")
            if mine == theirs:
                continue
            backbone = record.meta.get("backbone", "")
            raise errors.DoesNotFit({
                "backbone": f"statistics of {mine or 'an unknown backbone'}, those before are of {theirs or 'another'}",
                "backbone_sha256": f"statistics of {backbone} with other weights than those before",
                "lifted": f"statistics of {backbone} {'with' if mine else 'without'} --lift, unlike those before",
                "layers": f"statistics of layers {mine}, those before are of {theirs}",
            }[key])  # fmt: skip
        if {k: a.shape for k, a in record.tensors.items()} != {k: a.shape for k, a in first.tensors.items()}:
            raise errors.DoesNotFit("statistics of other shapes than those before")

    def merged(self, name: str, weights: dict | None = None) -> Tensors:
        """Return the mean over all groups, by their `weights`; without, by how many pictures each holds."""
        total = sum(weights.values()) if weights else sum(self._counts.values())
        tensors = {}
        for key in self._first.tensors:
            terms = (
                sums[key] / self._counts[group] * (weights[group] if weights else self._counts[group]) / total
                for group, sums in self._sums.items()
            )
            tensors[key] = sum(terms).astype(np.float32)
        meta = self._first.meta | {"kind": "stats", "name": name, "count": str(sum(self._counts.values()))}
        if len(self.names) > 1:
            meta.pop("image_size", None)
        return Tensors(tensors, name, meta=meta)


def derive(record: Tensors, wanted: str) -> Tensors:
    """Return what follows from statistics: "gram" (divided by C·H·W), "covariance" or "mean-std", as `stats` does."""
    tensors = {}
    for layer in _layers(record):
        mean, moment = record.tensors[f"{layer}.mean"], record.tensors[f"{layer}.moment"]
        if wanted == "gram":
            tensors[f"{layer}.gram"] = moment / np.float32(len(mean))
        elif wanted == "covariance":
            tensors[f"{layer}.covariance"] = moment - np.outer(mean, mean)
        else:
            tensors[f"{layer}.mean"] = mean
            variance = np.maximum(np.diagonal(moment) - mean * mean, 0)
            tensors[f"{layer}.std"] = np.sqrt(variance + np.float32(EPS))
    return Tensors(tensors, record.name, record.index, record.meta | {"kind": wanted})
