"""A narrow network that starts from a wide one computes what the wide one would."""

import torch
from torch.nn import functional as F

from styletools.nn.narrow import regress, start_narrow
from styletools.nn.vgg import VGG, VGG19


def images():
    coarse = torch.rand(6, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, 40, mode="bicubic").clamp(0, 1)


def test_regression_finds_the_line():
    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    weight, bias = regress(x, torch.stack([2 * x[0] - x[2] + 5, x[1]]))
    torch.testing.assert_close(weight, torch.tensor([[2.0, 0, -1], [0, 1, 0]]), atol=0.02, rtol=0)
    torch.testing.assert_close(bias, torch.tensor([5.0, 0]), atol=0.02, rtol=0)


def test_as_wide_as_its_teacher_it_does_the_same():
    torch.manual_seed(0)
    wide = VGG(VGG19, (8, 8, 8, 8), last="relu2_1")
    narrow = VGG(VGG19, (8, 8, 8, 8), last="relu2_1")
    found = start_narrow(narrow, [wide], images())
    truth = flat(wide(images(), ["relu1_1"])["relu1_1"])
    # The channels come in the order in which they were picked.
    nearest = torch.cdist(flat(found["relu1_1"]), truth).min(0)
    assert nearest.values.max() < 0.05 * truth.norm()
    assert sorted(nearest.indices.tolist()) == list(range(8))


def test_narrower_it_says_what_the_first_teacher_with_a_layer_says():
    torch.manual_seed(0)
    wide, other = (VGG(VGG19, (16, 16, 16, 16), last=last) for last in ("relu1_2", "relu2_1"))
    narrow = VGG(VGG19, (6, 6, 6, 6), last="relu2_1")
    by_chance = narrow(images(), narrow.layers)
    found = start_narrow(narrow, [wide, other], images())
    assert list(found) == narrow.layers
    for layer, teacher in (("relu1_2", wide), ("relu2_1", other)):
        truth = flat(teacher(images(), [layer])[layer])
        assert unexplained(flat(found[layer]), truth) < 0.8 * unexplained(flat(by_chance[layer]), truth), layer


def flat(features):
    return features.detach().transpose(0, 1).flatten(1)


def unexplained(inputs, truth):
    """Return the share of the variance of `truth` that a linear map of the inputs misses."""
    weight, bias = regress(inputs, truth)
    return float((weight @ inputs + bias[:, None] - truth).square().mean() / truth.var(1).mean())
