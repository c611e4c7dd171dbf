"""PatchGAN: what it sees, and what it says of pictures of any size."""

import pytest
import torch

from styletools.nn import patchgan
from styletools.nn.patchgan import PatchGAN


@pytest.mark.parametrize(("depth", "pixels"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_patch_has_so_many_pixels(depth, pixels, monkeypatch):
    # The statistics of instance normalisation are of the whole picture; what the convolutions see is asked for.
    monkeypatch.setattr(patchgan, "InstanceNorm", torch.nn.Identity)
    torch.manual_seed(0)
    network = PatchGAN(4, depth).double()
    images = torch.rand(1, 3, 192, 208, dtype=torch.float64, requires_grad=True)
    logits = network(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows, columns = (images.grad.abs().sum((0, 1)).sum(dim).nonzero().flatten() for dim in (1, 0))
    for seen in (rows, columns):
        assert len(seen) == pixels and int(seen[-1] - seen[0]) == pixels - 1


def test_the_layers_are_those_of_the_paper():
    convolutions = [layer for layer in PatchGAN().model if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512, 1]
    assert [layer.stride[0] for layer in convolutions] == [2, 2, 2, 1, 1]
    assert sum(p.numel() for p in PatchGAN().parameters()) == 2_764_737, "as many as those of the authors' network"


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (24, 24), (31, 67), (256, 256)])
def test_pictures_of_any_size(size):
    torch.manual_seed(0)
    logits = PatchGAN(2)(torch.rand(2, 3, *size))
    assert logits.shape[:2] == (2, 1) and torch.isfinite(logits).all()
    if size == (256, 256):
        assert logits.shape[2:] == (30, 30)


def test_each_picture_is_judged_by_itself():
    torch.manual_seed(0)
    network, images = PatchGAN(4), torch.rand(3, 3, 48, 40)
    apart = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), apart, rtol=1e-4, atol=1e-5)
