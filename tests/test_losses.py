"""Losses against their formulas, and at the edges."""

import numpy as np
import pytest
import torch

from styletools import errors, losses, stats


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


# ---- adversarial -----------------------------------------------------------------------------------------

REAL, FAKE = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, -0.5]])


@pytest.mark.parametrize(
    "kind, discriminator, generator",
    [
        ("vanilla", np.logaddexp(0, [-0.5, 1.0, 2.0, -0.5]).sum() / 2, np.logaddexp(0, [-2.0, 0.5]).mean()),
        ("lsgan", 0.5 * ((0.25 + 4.0) / 2 + (4.0 + 0.25) / 2), 0.5 * (1.0 + 2.25) / 2),
        ("hinge", (0.5 + 2.0) / 2 + (3.0 + 0.5) / 2, -0.75),
        ("wgan", 0.75 + 0.25, -0.75),
    ],
)  # fmt: skip
def test_adversarial_losses_by_hand(kind, discriminator, generator):
    assert losses.discriminator_loss(REAL, FAKE, kind).item() == pytest.approx(discriminator, rel=1e-6)
    assert losses.generator_loss(FAKE, kind).item() == pytest.approx(generator, rel=1e-6)


def test_every_adversarial_loss_pulls_the_right_way():
    for kind in losses.ADVERSARIAL:
        fake, real = (torch.zeros(4, requires_grad=True) for _ in range(2))
        losses.generator_loss(fake, kind).backward()
        assert (fake.grad < 0).all(), kind  # higher logits are what the generator is after
        fake.grad = None
        losses.discriminator_loss(real, fake, kind).backward()
        assert (real.grad < 0).all() and (fake.grad >= 0).all(), kind
    with pytest.raises(errors.UsageError, match="unknown adversarial loss 'nope': choose from vanilla"):
        losses.discriminator_loss(REAL, FAKE, "nope")
    with pytest.raises(errors.UsageError, match="unknown adversarial loss"):
        losses.generator_loss(FAKE, "nope")


def test_penalties_on_slopes_that_are_known():
    weight = torch.tensor([3.0, 4.0], requires_grad=True)  # a slope of 5 everywhere
    real, fake = torch.rand(6, 2), torch.rand(6, 2)

    def critic(x):
        return (x * weight).sum(1)

    penalty = losses.gradient_penalty(critic, real, fake)
    assert penalty.item() == pytest.approx(16.0, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * (5 - 1) * weight.detach() / 5)
    assert losses.r1_penalty(critic, real).item() == pytest.approx(12.5, rel=1e-5)

    def parabola(x):  # of slope x: between the two sets, never outside
        return 0.5 * x.square().flatten(1).sum(1)

    real, fake = torch.full((500, 1, 1, 1), 2.0), torch.full((500, 1, 1, 1), 4.0)
    assert 1 < losses.gradient_penalty(parabola, real, fake).item() < 9
    assert losses.gradient_penalty(parabola, real, fake).item() == pytest.approx(13 / 3, rel=0.1)  # mean of (x - 1)²


def test_a_patch_discriminator_is_penalised_by_its_mean():
    def patches(x):
        return torch.stack([x.sum(1), 3 * x.sum(1)], 1)

    assert losses.gradient_penalty(patches, torch.rand(4, 4), torch.rand(4, 4)).item() == pytest.approx((4 - 1) ** 2)


def test_accuracy_and_diversity():
    sure, fooled = torch.tensor([3.0, 2.0]), torch.tensor([-3.0, -2.0])
    assert losses.accuracy(sure, fooled) == 1 and losses.accuracy(fooled, sure) == 0
    assert losses.accuracy(sure, sure) == 0.5
    assert losses.accuracy(torch.tensor([0.4, 0.6]), torch.tensor([0.4, 0.3]), "lsgan") == 0.75
    assert losses.accuracy(torch.tensor([5.0, 7.0]), torch.tensor([5.5, 6.5]), "wgan") == 0.5
    assert losses.diversity(torch.rand(1, 3, 4, 4)) == 0 == losses.diversity(torch.ones(5, 3, 4, 4))
    assert losses.diversity(torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])).item() == pytest.approx(0.5**0.5)


def test_patch_nce_knows_its_place():
    generator = torch.Generator().manual_seed(0)
    places = torch.nn.functional.normalize(torch.randn(2, 9, 16, generator=generator), dim=2)
    assert losses.patch_nce(places, places).item() < 0.01
    assert losses.patch_nce(places.roll(1, 1), places).item() > 5
    flat = torch.ones(1, 9, 16) / 4
    assert losses.patch_nce(flat, flat).item() == pytest.approx(np.log(9), rel=1e-5)
    key, query = (places.clone().requires_grad_() for _ in range(2))
    losses.patch_nce(query, key).backward()
    assert key.grad is None and query.grad is not None
