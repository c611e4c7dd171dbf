"""wgan_gp: what it has of its own; test_dcgan.py has what it shares."""

import pytest
import torch

from styletools import methods


def made(**config):
    torch.manual_seed(0)
    return methods.create("wgan_gp", {"image_size": 16, "channels": 2, "z_dim": 4} | config)


def test_every_n_th_step_is_the_generators_too():
    method, images = made(n_critic=3), torch.rand(2, 3, 16, 16)
    optimizers = method.optimizers()
    for step in range(7):
        before = {key: [p.detach().clone() for p in net.parameters()] for key, net in method.nets.items()}
        told = method.train_step({"images": images}, optimizers, step)
        moved = {
            key for key, net in method.nets.items()
            if any(not torch.equal(p, q) for p, q in zip(net.parameters(), before[key]))
        }  # fmt: skip
        turn = step % 3 == 0
        assert moved == ({"generator", "discriminator"} if turn else {"discriminator"})
        assert ("generator" in told) == turn


def test_the_critic_keeps_pictures_apart():
    """For the penalty is of each picture alone."""
    critic, images = made().nets["discriminator"], torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(critic(images)[:2], critic(images[:2]))


def test_the_penalty_brings_the_slope_to_one():
    method, images = made(augment="", lr_d=2e-3), torch.rand(8, 3, 16, 16)
    optimizers = method.optimizers()
    found = [float(method.train_step({"images": images}, optimizers, 1)["penalty"].detach()) for _ in range(60)]
    assert found[-1] < 0.1 < found[0]


def test_optimizers():
    for key, optimizer in made(lr_g=3e-4, lr_d=1e-4).optimizers().items():
        assert optimizer.param_groups[0]["betas"] == (0.0, 0.9)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(3e-4 if key == "generator" else 1e-4)
