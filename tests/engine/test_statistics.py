"""Records of statistics: they add up, whatever the order and the grouping."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from styletools import errors, stats, streams
from styletools.engine import statistics

META = {"kind": "features", "backbone": "slim", "backbone_sha256": "0", "layers": "a,b"}


def features(seed, height=4, width=5):
    rng = np.random.default_rng(seed)
    tensors = {"a": rng.random((3, height, width), np.float32), "b": rng.random((2, 1, width), np.float32)}
    return streams.Tensors(tensors, f"f{seed}", meta=dict(META))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 6)), min_size=1, max_size=6), st.randoms())
@settings(max_examples=40, deadline=None)
def test_merging_in_any_order_and_in_steps(pictures, random):
    records = [statistics.of_features(features(seed, width=width)) for seed, width in pictures]
    at_once, in_steps = statistics.Merger(), statistics.Merger()
    for record in records:
        at_once.add(record)
    random.shuffle(records)
    cut = random.randrange(len(records))
    for part in (records[:cut], records[cut:]):
        step = statistics.Merger()
        for record in part:
            step.add(record)
        if part:
            in_steps.add(step.merged("part"))
    one, other = at_once.merged("x"), in_steps.merged("x")
    assert one.meta["count"] == other.meta["count"] == str(len(records))
    for key, array in one.tensors.items():
        np.testing.assert_allclose(other.tensors[key], array, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(array, np.mean([r.tensors[key] for r in records], axis=0), rtol=1e-5, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0.01, 100)), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_weights_as_stats_merges(pictures):
    records = [statistics.of_features(features(seed)) for seed, _ in pictures]
    merger = statistics.Merger()
    for group, record in enumerate(records):
        merger.add(record, group)
    weights = [weight for _, weight in pictures]
    found = merger.merged("x", dict(enumerate(weights)))
    expected = stats.merge([{k: torch.from_numpy(a) for k, a in r.tensors.items()} for r in records], weights)
    for key, tensor in expected.items():
        np.testing.assert_allclose(found.tensors[key], tensor, rtol=1e-4, atol=1e-6)


def test_half_precision_features_are_summed_in_single():
    big = features(0)
    big.tensors = {key: np.full_like(array, 300, np.float16) for key, array in big.tensors.items()}
    record = statistics.of_features(big)
    assert record.tensors["a.moment"].dtype == np.float32
    np.testing.assert_allclose(record.tensors["a.moment"], 90000)


@pytest.mark.parametrize("wanted", statistics.DERIVED)
def test_what_is_derived_cannot_be_read(wanted):
    derived = statistics.derive(statistics.of_features(features(1)), wanted)
    assert derived.meta["kind"] == wanted
    with pytest.raises(errors.DoesNotFit, match=wanted):
        statistics.read(derived)


def test_a_constant_channel_has_no_negative_variance():
    flat = features(0)
    flat.tensors = {key: np.full_like(array, 1000.1) for key, array in flat.tensors.items()}
    derived = statistics.derive(statistics.of_features(flat), "mean-std")
    assert (derived.tensors["a.std"] >= 0).all() and np.isfinite(derived.tensors["a.std"]).all()


@pytest.mark.parametrize("shape", [(3, 4), (3, 0, 2)])
def test_damaged_features(shape):
    record = features(0)
    record.tensors["a"] = np.zeros(shape, np.float32)
    with pytest.raises(errors.DataError):
        statistics.read(record)
    del record.tensors["a"]
    with pytest.raises(errors.DataError):
        statistics.read(record)


def test_pictures_are_no_statistics():
    with pytest.raises(errors.DoesNotFit, match="holds a picture"):
        statistics.read(streams.Image(np.zeros((1, 1, 3), np.uint8)))
