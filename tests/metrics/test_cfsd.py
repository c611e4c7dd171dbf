"""Structural distance against its formula, written plainly."""

import pytest
import torch
from metric_samples import look, picture
from torch.nn import functional as F

from styletools import backbones, metrics
from styletools.metrics._look import Look, resize


def score(output, content):
    return metrics.create(metrics.parse("cfsd")[0]).pair(output, content)[""]


def test_it_is_what_it_is_defined_as():
    output, content = look(1, 256, 256), look(2, 256, 256)
    judge = backbones.load("slim")
    with torch.no_grad():
        seen = (judge.lift(judge(each.image, ("relu3_1",)))["relu3_1"][0] for each in (output, content))
        found, wanted = (features.flatten(1).T.double() for features in seen)
    scale = wanted.square().sum(1).mean()
    p, q = (torch.softmax(x @ x.T / scale, 1) for x in (wanted, found))
    expected = F.kl_div(q.log(), p, reduction="sum") / 4096
    assert score(output, content) == pytest.approx(expected.item(), rel=1e-3)


def test_blur_costs_less_than_another_picture():
    content = picture(1, 256, 256)
    blurred = Look(F.avg_pool2d(content, 9, 1, 4, count_include_pad=False))
    assert 0 < score(blurred, Look(content)) < 0.3 * score(look(2, 256, 256), Look(content))


def test_pictures_of_any_size_are_scaled():
    a, b = look(1, 90, 300), look(2, 90, 300)
    small = (Look(resize(x.image, (256, 256))) for x in (a, b))
    assert score(a, b) == pytest.approx(score(*small), rel=1e-6)
