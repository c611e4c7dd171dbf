"""Scores of a discriminator that a model brings along."""

import shutil

import pytest
import torch

from styletools import errors, metrics, modelfile
from styletools.metrics._look import Look


def test_the_discriminator_judges(critic):
    (spec,) = metrics.parse(f"adversarial:{critic}")
    assert (spec.key, spec.network) == ("adversarial", str(critic))
    metric = metrics.create(spec)
    assert metric.pair(Look(torch.full((1, 3, 5, 7), 0.5))) == {"": pytest.approx(1.5)}
    assert type(metric.pair(Look(torch.rand(1, 3, 5, 7)))[""]) is float


def test_two_discriminators_are_told_apart(critic, tmp_path):
    other = tmp_path / "other.safetensors"
    shutil.copy(critic, other)
    asked = f"adversarial:{critic},adversarial:{other},adversarial:{critic}"
    assert [spec.key for spec in metrics.parse(asked)] == ["adversarial", f"adversarial:{other}"]


def test_a_model_has_to_be_named_and_there():
    with pytest.raises(errors.UsageError, match="adversarial judges by a model: write adversarial:MODELFILE"):
        metrics.parse("adversarial")
    with pytest.raises(errors.MissingInput, match="gone.safetensors: no such model"):
        metrics.parse("adversarial:gone.safetensors")


def test_a_model_without_a_discriminator_says_so():
    metric = metrics.create(metrics.parse("adversarial:live")[0])
    with pytest.raises(errors.UsageError, match="has no discriminator"):
        metric.pair(Look(torch.rand(1, 3, 8, 8)))
    with pytest.raises(errors.UsageError, match="has no discriminator"):
        modelfile.load("live").discriminate(torch.rand(1, 3, 8, 8))
