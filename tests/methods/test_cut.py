"""cut: one set of pictures is translated into another, each place to where it was."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, methods, modelfile

TINY = {"width": 6, "blocks": 1, "discriminator_width": 8, "depth": 1, "places": 24, "channels": 16}


def warm(count, seed, size=16):
    """Pictures of soft colours, more red than green and more green than blue."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return smooth * torch.tensor([1.0, 0.6, 0.25]).view(1, 3, 1, 1)


def swapped(images):
    """The true mapping: red and blue change places."""
    return images.flip(1)


def made(**settings):
    torch.manual_seed(0)
    return methods.create("cut", TINY | settings)


def batch(step, count=4):
    return {"a": warm(count, 2 * step), "b": swapped(warm(count, 2 * step + 1))}


@pytest.mark.slow
def test_it_learns_what_no_pair_has_shown():
    method = made(lr_g=1e-3, lr_d=1e-3)
    optimizers, a, nce = method.optimizers(), warm(16, 10_001), []
    b = swapped(a)
    for step in range(300):
        told = method.train_step(batch(step), optimizers, step)
        nce.append(float(told["nce"].detach()))
    with torch.no_grad():
        found = float(F.l1_loss(method.apply(a), b))
    copied, one_colour = (float(F.l1_loss(x, b)) for x in (a, b.mean((0, 2, 3), keepdim=True).expand_as(b)))
    assert found < 0.5 * copied and found < 0.85 * one_colour, (found, copied, one_colour)
    assert sum(nce[-20:]) < 0.5 * sum(nce[:20])
    assert told["diversity"] > 0.05 and 0 <= told["accuracy"] <= 1


def test_the_right_places_cost_less_than_others():
    method, a = made(), warm(2, 0)
    with torch.no_grad():
        right, wrong, plain = (
            float(method._nce(output, a)) for output in (a, a.flip(-1), torch.full_like(a, 0.5))
        )
    assert right < wrong and right < plain


def test_no_gradient_goes_into_the_input():
    method = made()
    output, source = (warm(2, seed).requires_grad_() for seed in (0, 1))
    method._nce(output, source).backward()
    assert output.grad.abs().sum() > 0 and source.grad is None


def test_the_losses_add_up():
    method = made(adversarial_weight=3.0, nce_weight=5.0, identity_weight=0.5)
    told = method.validate(batch(0))
    assert float(told["loss"]) == pytest.approx(
        float(3 * told["adversarial"] + 5 * told["nce"] + 0.5 * told["identity"]), rel=1e-5
    )
    assert float(made(identity_weight=0.0).validate(batch(0))["identity"]) == 0


@pytest.mark.parametrize("settings", [{"adversarial": "hinge"}, {"adversarial": "vanilla", "augment": "color"}])
def test_other_losses(settings):
    method = made(**settings)
    optimizers = method.optimizers()
    for step in range(2):
        told = method.train_step(batch(step), optimizers, step)
    assert all(torch.isfinite(value) for value in told.values())
    assert all(p.requires_grad for p in method.nets.parameters())


def test_autocast_loses_no_gradient():
    """It remembers weights as they were first met: those met without gradients would stay without."""
    method = made()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method._nce(warm(2, 0), warm(2, 1)).backward()
    assert all(p.grad is not None for p in method.nets["projections"].parameters())
    assert method.nets["generator"].model[4].weight.grad is not None


def test_the_model_file_holds_what_applying_and_judging_need(tmp_path):
    method, images = made(), warm(2, 0)
    modelfile.save(tmp_path / "m.safetensors", "cut", method)
    loaded = modelfile.load(tmp_path / "m.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded.apply(images), method.nets["generator"](images))
        torch.testing.assert_close(loaded.apply(images, alpha=0.0), images)
        judged = loaded.discriminate(images)
    assert judged.shape == (2,)
    torch.testing.assert_close(judged, method.nets["discriminator"](images).mean((1, 2, 3)).detach())
    assert set(modelfile.read(tmp_path / "m.safetensors")[2]) == {
        f"{net}.{key}" for net in ("generator", "discriminator") for key in method.nets[net].state_dict()
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "wgan"}, "adversarial=wgan: lsgan, vanilla or hinge"),
        ({"upsampling": "nearest"}, "upsampling=nearest: resize or transposed"),
        ({"width": 0}, "width, channels, blocks and depth must be 1"),
        ({"places": 1}, "places must be 2"),
        ({"temperature": 0.0}, "temperature more than 0"),
        ({"augment": "blur"}, "unknown augmentation 'blur'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(errors.UsageError, match=message):
        made(**settings)
