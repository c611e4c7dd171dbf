"""How outputs differ among each other."""

import itertools

import pytest
from metric_samples import look

from styletools import metrics
from styletools.metrics import _lpips, diversity
from styletools.metrics._look import resize


@pytest.fixture
def metric(judges):
    return metrics.create(metrics.parse("diversity")[0])


def test_it_is_the_mean_of_all_pairs(metric):
    outputs = [look(i, 256, 256) for i in range(3)] + [look(3, 90, 200)]
    for output in outputs:
        assert metric.pair(output) == {}
    distance = _lpips.Lpips()
    images = [resize(output.image, (256, 256)) for output in outputs]
    expected = [float(distance(a, b)) for a, b in itertools.combinations(images, 2)]
    assert metric.total()[""] == pytest.approx(sum(expected) / 6, rel=1e-2)  # they are kept in 8 bits


def test_collapse_is_seen(metric):
    for _ in range(3):
        metric.pair(look(1))
    assert metric.total()[""] == pytest.approx(0, abs=1e-6)


def test_of_many_pairs_some_are_drawn_always_the_same():
    assert diversity._pairs(32) == list(itertools.combinations(range(32), 2))
    drawn = diversity._pairs(1000)
    assert len(set(drawn)) == 500 and all(0 <= a < b < 1000 for a, b in drawn)
    assert drawn == diversity._pairs(1000) == sorted(drawn)
