"""Losses against their formulas, and at the edges."""

import numpy as np
import pytest
import torch

from styletools import losses, stats


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 5, 7, generator=generator), torch.rand(2, 3, 4, 6, generator=generator)


def test_mean_std_distance(pair):
    found = losses.mean_std_distance(stats.mean_std(pair[0]), stats.mean_std(pair[1]))
    a, b = (x.double().numpy().reshape(2, 3, -1) for x in pair)
    spread = [np.sqrt(x.var(2) + stats.EPS) for x in (a, b)]
    expected = ((a.mean(2) - b.mean(2)) ** 2).mean(1) + ((spread[0] - spread[1]) ** 2).mean(1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_relative_is_a_share_of_the_target_image_by_image(pair):
    a, b = torch.ones(2, 3, 4), torch.tensor([1.0, 5.0])[:, None, None].expand(2, 3, 4)
    assert losses.relative(a, a).item() == 0
    assert losses.relative(a, b).item() == pytest.approx((0 + 16 / 25) / 2)
    assert losses.relative(torch.zeros(2, 3), torch.ones(1, 3)).item() == 1
    scaled = losses.relative(pair[0] * 1000, pair[0].flip(0) * 1000)
    torch.testing.assert_close(losses.relative(pair[0], pair[0].flip(0)), scaled)
    assert torch.isfinite(losses.relative(a, torch.zeros(1, 3, 4)))


def test_content_in_the_style_of_another_is_no_loss():
    generator = torch.Generator().manual_seed(0)
    content = torch.rand(2, 5, 30, 30, generator=generator)
    mean, std = torch.rand(2, 5, generator=generator), torch.rand(2, 5, generator=generator) + 0.1
    centred = content - content.mean((2, 3), keepdim=True)
    unit = centred / centred.square().mean((2, 3), keepdim=True).sqrt()
    moved = unit * std[:, :, None, None] + mean[:, :, None, None]
    assert losses.adain_content(moved, content, (mean, std)) < 1e-3
    other = torch.rand(2, 5, 30, 30, generator=generator)
    assert losses.adain_content(other, content, (mean, std)) > 0.5


def test_total_variation():
    images = torch.tensor([[[[0.0, 1.0, 0.0], [0.5, 0.5, 0.5]]]])
    assert losses.total_variation(images).item() == pytest.approx((1 + 1 + 0 + 0) / 4 + (0.5 * 3) / 3)
    assert losses.total_variation(torch.rand(2, 3, 1, 1)).item() == 0
    assert losses.total_variation(torch.zeros(1, 3, 1, 9)).item() == 0
    one_row = torch.tensor([[[[0.0, 1.0]]]])
    assert losses.total_variation(one_row).item() == 1


def test_out_of_range():
    images = torch.tensor([[[[-1.0, 0.0], [1.0, 3.0]]]])
    assert losses.out_of_range(images).item() == pytest.approx(3 / 4)
    assert losses.out_of_range(torch.rand(1, 3, 4, 4)).item() == 0


def test_mean_std_by_layer(pair):
    found = losses.mean_std_by_layer({"a": pair[0], "b": pair[1]})
    torch.testing.assert_close(found["b"], stats.mean_std(pair[1]))


def test_grid_measures_what_repeats_every_four_pixels_alone():
    photograph = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4
    smooth = torch.full_like(photograph, 0.5)
    pattern = torch.zeros(4, 4)
    pattern[0, 0] = 0.16
    # One position of sixteen is 0.15 above the mean, fifteen are 0.01 below: 0.3 / 16 on average.
    assert losses.grid(smooth + pattern.repeat(24, 24), smooth).item() == pytest.approx(0.3 / 16, rel=1e-4)
    assert losses.grid(smooth, smooth).item() == 0
    assert losses.grid(photograph, photograph).item() == 0
    other = torch.zeros(5, 5)
    other[0, 0] = 0.16
    of_five = other.repeat(20, 20)[:96, :96]
    assert losses.grid(smooth + of_five, smooth).item() < 0.1 * 0.3 / 16
    assert losses.grid(smooth[..., :40], smooth[..., :40]).item() == 0  # shorter than a window


def test_grid_has_gradients():
    image = (torch.rand(1, 3, 48, 48) + 0.1).requires_grad_()
    losses.grid(image, torch.full_like(image, 0.5)).backward()
    assert image.grad.abs().sum() > 0
