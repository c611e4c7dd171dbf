"""live: its training sees many colours, hears of noise, and starts from slim."""

import torch
from torch.nn import functional as F

from styletools import methods
from styletools.methods import live

SMALL = {"channels": 8, "blocks": 1}


def pictures(count, size=64, seed=0):
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def test_recoloured_pictures_keep_their_shapes_and_only_a_share_changes():
    images = pictures(64, 16)
    torch.manual_seed(0)
    changed = live._recoloured(images, 0.5)
    different = (changed - images).abs().amax((1, 2, 3)) > 1e-4
    assert 16 <= different.sum() <= 48
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(live._recoloured(images, 0.0), images)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    still_grey = live._recoloured(grey.clamp(0.35, 0.65), 1.0)
    assert (still_grey - still_grey.mean(1, keepdim=True)).abs().max() < 1e-4, "turning hues leaves grey alone"


def test_the_gain_of_noise_is_that_of_the_network(slim):
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    content = pictures(4)
    code = method.nets["encoder"](pictures(4, seed=1))
    with torch.no_grad():
        output = method.nets["trunk"](content, code)
        gain = float(method._noise_gain(content, code, output))
        noise = torch.randn(content.shape) * live.NOISE
        change = method.nets["trunk"](content + noise, code) - output
    expected = float(change.square().mean() / noise.square().mean())
    assert expected / 2 < gain < expected * 2


def test_it_starts_from_slim(slim):
    torch.manual_seed(0)
    method = methods.create("live", SMALL)
    batch = {"content": pictures(8), "style": pictures(8, seed=1)}
    method.initialize(batch)
    encoder = method.nets["encoder"]
    normal = (encoder.statistics(batch["style"]) - encoder.centre) / encoder.spread
    assert normal.mean().abs() < 0.1 and 0.1 < normal.std() < 2
    # What it sees tells the pictures' colours apart, as slim does.
    found = encoder.network(batch["style"], ["relu1_1"])["relu1_1"].detach().transpose(0, 1).flatten(1)
    assert torch.linalg.matrix_rank(torch.cov(found), rtol=1e-4) >= 3
