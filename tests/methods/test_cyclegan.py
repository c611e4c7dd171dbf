"""cyclegan: two sets of pictures are told apart, translated into each other, and back."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, losses, methods, modelfile

TINY = {"width": 6, "blocks": 1, "discriminator_width": 8, "depth": 1, "pool": 4}


def discs(count, seed, size=16):
    """Pictures of one warm disc each on a dark ground, at random places."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (size * (0.25 + 0.5 * torch.rand(count, 1, 1, generator=generator)) for _ in range(2))
    rows, columns = torch.arange(size).view(1, -1, 1), torch.arange(size).view(1, 1, -1)
    inside = ((columns - x) ** 2 + (rows - y) ** 2 < (size / 5) ** 2).float()[:, None]
    warm, ground = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ((0.9, 0.5, 0.1), (0.2, 0.15, 0.1)))
    return inside * warm + (1 - inside) * ground


def swapped(images):
    """The true mapping: red and blue change places."""
    return images.flip(1)


def made(**settings):
    torch.manual_seed(0)
    return methods.create("cyclegan", TINY | settings)


def batch(step, count=4):
    return {"a": discs(count, 2 * step), "b": swapped(discs(count, 2 * step + 1))}


def off(method, direction, images, wanted):
    method.direction = direction
    with torch.no_grad():
        return float(F.l1_loss(method.apply(images), wanted))


@pytest.mark.slow
def test_it_learns_what_no_pair_has_shown():
    method = made(lr_g=2e-3, lr_d=2e-3, identity_weight=0.0, cycle_weight=3.0)
    optimizers, a = method.optimizers(), discs(8, 10_001)
    b = swapped(a)
    before = off(method, "a2b", a, b), off(method, "b2a", b, a)
    copied = float(F.l1_loss(a, b))
    for step in range(200):
        told = method.train_step(batch(step), optimizers, step)
    after = off(method, "a2b", a, b), off(method, "b2a", b, a)
    assert max(after) < 0.6 * min(*before, copied), (before, after, copied)
    method.direction = "a2b"
    with torch.no_grad():
        there = method.apply(a)
        method.direction = "b2a"
        back = method.apply(there)
    assert F.l1_loss(back, a) < 0.5 * F.l1_loss(there, a), "there and back again"
    assert told["diversity"] > 0.01 and 0 <= told["accuracy"] <= 1


def test_the_losses_are_those_of_the_paper():
    method, both = made(adversarial="lsgan"), batch(0)
    a, b, nets = both["a"], both["b"], method.nets
    with torch.no_grad():
        told = method.validate(both)
        there, back = nets["a2b"](a), nets["b2a"](b)
        cycle = F.l1_loss(nets["b2a"](there), a) + F.l1_loss(nets["a2b"](back), b)
        same = F.l1_loss(nets["b2a"](a), a) + F.l1_loss(nets["a2b"](b), b)
        fake = [nets["judge_b"](there), nets["judge_a"](back)]
        real = [nets["judge_b"](b), nets["judge_a"](a)]
        squares = sum((x - 1).square().mean() for x in fake)
    # Twice ours, for colours from -1 to 1.
    torch.testing.assert_close(2 * told["loss"], squares + 10 * 2 * cycle + 5 * 2 * same)
    judged = sum((x - 1).square().mean() + y.square().mean() for x, y in zip(real, fake)) / 2
    torch.testing.assert_close(told["discriminator"], judged)
    torch.testing.assert_close(told["accuracy"], sum(map(losses.accuracy, real, fake, ["lsgan"] * 2)) / 2)


@pytest.mark.parametrize("settings", [{"adversarial": "hinge"}, {"adversarial": "vanilla", "augment": "color"}])
def test_other_losses(settings):
    method = made(**settings)
    optimizers = method.optimizers()
    for step in range(2):
        told = method.train_step(batch(step), optimizers, step)
    assert all(torch.isfinite(value) for value in told.values())


def test_who_learns_from_what():
    method, both = made(), batch(0)
    seen = {}

    def update(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        for name, net in method.nets.items():
            for p in net.parameters():
                if p.grad is not None and p.grad.abs().sum() > 0:
                    seen.setdefault(name, set()).add(len(updates))
                p.grad = None
        updates.append(loss)

    updates, method.update = [], update
    method.train_step(both, method.optimizers(), 0)
    assert seen == {"a2b": {0}, "b2a": {0}, "judge_a": {1}, "judge_b": {1}}
    assert all(p.requires_grad for p in method.nets.parameters())
    assert int(method.nets["pool_a"].count) == int(method.nets["pool_b"].count) == 4


def test_of_one_picture_a_batch_the_diversity_is_that_of_the_pools():
    """The paper trains with batches of one."""
    method = made()
    optimizers = method.optimizers()
    told = [method.train_step({key: images[:1] for key, images in batch(step).items()}, optimizers, step)
            for step in range(3)]  # fmt: skip
    pools = [method.nets[f"pool_{domain}"] for domain in "ab"]
    assert float(told[0]["diversity"]) == 0
    assert float(told[2]["diversity"]) == min(float(pool.diversity()) for pool in pools) > 0


def test_validation_leaves_the_pools_alone():
    method = made()
    method.validate(batch(0))
    assert int(method.nets["pool_a"].count) == 0


def test_both_directions_from_one_file(tmp_path):
    method = made()
    modelfile.save(tmp_path / "m.safetensors", "cyclegan", method)
    loaded, images = modelfile.load(tmp_path / "m.safetensors"), discs(2, 0)
    assert methods.describe("cyclegan").directions == ("a2b", "b2a")
    out = {}
    for loaded.direction in ("a2b", "b2a"):
        with torch.no_grad():
            out[loaded.direction] = loaded.apply(images)
            torch.testing.assert_close(out[loaded.direction], method.nets[loaded.direction](images))
            half = loaded.apply(images, alpha=0.5)
            judged = loaded.discriminate(images)
        torch.testing.assert_close(half, (images + out[loaded.direction]) / 2)
        judge = method.nets["judge_" + loaded.direction[-1]]
        torch.testing.assert_close(judged, judge(images).mean((1, 2, 3)))
    assert not torch.equal(out["a2b"], out["b2a"])
    sheet = method.sample({"a": images, "b": images})
    torch.testing.assert_close(sheet, torch.cat([out["a2b"], out["b2a"]], -1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "wgan"}, "adversarial=wgan: lsgan, vanilla or hinge"),
        ({"upsampling": "nearest"}, "upsampling=nearest: resize or transposed"),
        ({"blocks": 0}, "blocks and depth must be 1"),
        ({"pool": -1}, "pool not negative"),
        ({"augment": "blur"}, "unknown augmentation 'blur'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(errors.UsageError, match=message):
        made(**settings)
