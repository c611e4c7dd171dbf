"""Differentiable augmentation."""

import pytest
import torch

from styletools import errors
from styletools.nn import augment

POLICIES = ["color", "translation", "cutout", "color,translation,cutout"]


def pictures(count=4, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_no_policy_changes_nothing():
    images, state = pictures(), torch.get_rng_state()
    assert torch.equal(augment.augment(images, ""), images)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"


@pytest.mark.parametrize("policy", POLICIES)
def test_each_picture_is_changed_in_its_own_way_drawn_from_the_global_generator(policy):
    images, found = pictures(1).expand(4, -1, -1, -1), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(augment.augment(images, policy))
    assert found[0].shape == images.shape
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert not any(torch.equal(found[0][0], other) for other in found[0][1:])


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_those_of_the_change(policy):
    def changed(x):
        torch.manual_seed(3)
        return augment.augment(x, policy)

    assert torch.autograd.gradcheck(changed, pictures(2, 8).double().requires_grad_())


@pytest.mark.parametrize("policy", ["", *POLICIES])
def test_real_and_made_pictures_are_treated_alike(policy):
    """What has another range is moved with it: the same change, whether values fill [0, 1] or a part of it."""
    grey = torch.full((64, 3, 16, 16), 0.5)
    torch.manual_seed(0)
    assert augment.augment(grey, policy).mean() == pytest.approx(0.5, abs=0.05)
    spread = pictures(256)
    torch.manual_seed(0)
    shown = augment.augment(spread, policy)
    assert shown.mean() == pytest.approx(float(spread.mean()), abs=0.03), "no drift"


def test_translation_moves_by_an_eighth_at_most_and_fills_with_grey():
    x = torch.zeros(64, 3, 16, 16)
    x[:, :, 8, 8] = 1
    torch.manual_seed(0)
    where = {tuple((one[0] == 1).nonzero()[0].tolist()) for one in augment.augment(x, "translation")}
    assert where <= {(i, j) for i in range(6, 11) for j in range(6, 11)} and len(where) > 10
    corner = augment.augment(x, "translation")[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert set(corner.unique().tolist()) == {0, 0.5}


def test_cutout_covers_at_most_a_quarter():
    torch.manual_seed(0)
    covered = (augment.augment(torch.ones(256, 3, 16, 16), "cutout") == 0.5)[:, 0].float().mean((1, 2))
    assert covered.max() == 0.25 and 0 < covered.min() < 0.25


def test_color_keeps_greys_grey():
    grey = pictures()[:, :1].expand(-1, 3, -1, -1)
    found = augment.augment(grey, "color")
    torch.testing.assert_close(found, found[:, :1].expand(-1, 3, -1, -1))


def test_unknown_kinds():
    with pytest.raises(errors.UsageError, match="unknown augmentation 'colour': choose from color, "):
        augment.parse("translation,colour")
    assert augment.parse(" color, cutout,") == ["color", "cutout"]
