"""retention: paints like a set of pictures, and can be told to keep the photograph."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, losses, methods, modelfile
from styletools.methods.retention import Decoder

TINY = {"widths": "16,12,8", "discriminator_width": 8, "apart": 3}


def pictures(count, seed, tint=(1.0, 1.0, 1.0), size=32):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return smooth * torch.tensor(tint).view(1, 3, 1, 1)


def made(**settings):
    torch.manual_seed(0)
    return methods.create("retention", TINY | settings)


def batch(step, count=4):
    """Photographs of all colours, and paintings in which red is most of all."""
    return {"a": pictures(count, 2 * step), "b": pictures(count, 2 * step + 1, (1.0, 0.3, 0.1))}


def trained(steps, **settings):
    method = made(lr=1e-3, **settings)
    optimizers = method.optimizers()
    told = [method.train_step(batch(step), optimizers, step) for step in range(steps)]
    return method, [{key: float(value.detach()) for key, value in each.items()} for each in told]


def test_the_first_stage_trains_them_apart(slim):
    method = made(apart=1)
    optimizers = method.optimizers()
    first, second = (method.train_step(batch(step), optimizers, step) for step in (0, 1))
    assert "content" not in first and "content" in second
    torch.testing.assert_close(first["loss"].detach(), (first["adversarial"] + first["range"]).detach())
    expected = 0.5 * second["adversarial"] + 0.5 * second["content"] + second["range"]
    torch.testing.assert_close(second["loss"].detach(), expected.detach())


def test_what_is_lost_pulls_the_generator_through_the_retainer(slim):
    """In the second stage the gradient of L_c reaches the generator, and no weight of the others."""
    method = made(apart=0, adversarial_weight=0.0, range_weight=0.0)
    before = {name: [p.clone() for p in net.parameters()] for name, net in method.nets.items()}
    optimizers = method.optimizers()
    updates = []
    method.update = lambda optimizer, loss: (updates.append(optimizer), methods.Method.update(method, optimizer, loss))
    method.train_step(batch(0), optimizers, 0)
    assert updates == [optimizers[key] for key in ("discriminator", "generator", "retainer")]
    for name, net in method.nets.items():
        changed = sum(not torch.equal(a, b) for a, b in zip(before[name], net.parameters()))
        assert changed > 0.5 * len(before[name]), name


@pytest.mark.slow
def test_it_learns_the_style_and_keeps_the_content():
    """Pictures become red; with the retention branch more of the photograph can be told from them than without."""
    photographs = pictures(16, 10_001)
    paintings = pictures(16, 10_002, (1.0, 0.3, 0.1))
    wanted = paintings.mean((0, 2, 3))
    lost = {}
    for weight in (0.5, 0.0):
        method, told = trained(200, apart=40, content_weight=weight)
        method.nets.eval()
        with torch.no_grad():
            output = method.apply(photographs)
        untouched = (photographs.mean((0, 2, 3)) - wanted).abs().mean()
        assert (output.mean((0, 2, 3)) - wanted).abs().mean() < 0.5 * untouched
        assert told[-1]["rebuilt"] < 0.8 * told[0]["rebuilt"]
        grey, other = (x.mean(1) - x.mean((1, 2, 3))[:, None, None] for x in (photographs, output))
        lost[weight] = 1 - float(F.cosine_similarity(grey.flatten(1), other.flatten(1)).mean())
    assert lost[0.5] < 0.8 * lost[0.0], lost


@pytest.mark.parametrize("adversarial", losses.ADVERSARIAL)
def test_every_adversarial_loss(adversarial, slim):
    method, told = trained(5, adversarial=adversarial)
    assert ("penalty" in told[0]) == (adversarial == "wgan")
    assert all(value == value and abs(value) < 1e4 for each in told for value in each.values())


def test_autocast_loses_no_gradient(slim):
    method = made(apart=0)
    optimizers = method.optimizers()
    seen = {}
    update = methods.Method.update

    def watched(optimizer, loss):
        update(method, optimizer, loss)
        seen[id(optimizer)] = all(p.grad is not None for group in optimizer.param_groups for p in group["params"])

    method.update = watched
    with torch.autocast("cpu", torch.bfloat16):
        method.train_step(batch(0), optimizers, 0)
    assert list(seen.values()) == [True, True, True]


def test_decoders_have_no_favourite_place(slim):
    """A constant z gives a constant picture: no grid of the steps up."""
    torch.manual_seed(1)
    decoder = Decoder(8, [8, 8, 8], style=True).eval()
    with torch.no_grad():
        picture = decoder(torch.ones(1, 8, 6, 6))
    assert float((picture - picture[..., :1, :1]).abs().max()) < 1e-5


def test_the_model_file_holds_what_applying_and_judging_need(tmp_path, slim):
    method, images = made(), pictures(2, 0)
    method.nets.eval()
    modelfile.save(tmp_path / "m.safetensors", "retention", method)
    loaded = modelfile.load(tmp_path / "m.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded.apply(images), method.apply(images))
        torch.testing.assert_close(loaded.apply(images, alpha=0.0), images)
        assert loaded.discriminate(images).shape == (2,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "nope"}, "adversarial=nope: vanilla, lsgan, hinge, wgan expected"),
        ({"widths": "16,8"}, "widths=16,8: 3 numbers expected"),
        ({"widths": "a,b,c"}, "3 numbers expected"),
        ({"detail": "relu9_1"}, "slim has no layer 'relu9_1'"),
        ({"backbone": "nope"}, "unknown backbone 'nope'"),
    ],
)
def test_wrong_settings(settings, message, slim):
    with pytest.raises(errors.UsageError, match=message):
        made(**settings)
