"""The residual network of fast style transfer."""

import pytest
import torch

from styletools.nn.resnet import Repainter


@pytest.mark.parametrize("size", [(8, 8), (8, 64), (40, 44)])
def test_shape(size):
    network = Repainter((4, 6, 8), 2, kernel=5)
    with torch.no_grad():
        assert network(torch.rand(2, 3, *size), torch.ones(1, 1)).shape == (2, 3, *size)


def test_each_image_has_its_own_mixture_of_styles():
    torch.manual_seed(0)
    network = Repainter((4, 6, 8), 1, styles=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        first, second = (network(image, torch.eye(2)[i : i + 1]) for i in (0, 1))
        both = network(image.expand(2, -1, -1, -1), torch.eye(2))
        between = network(image, torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(both, torch.cat([first, second]), rtol=1e-3, atol=1e-4)
    assert (first - second).abs().max() > 0.01
    assert (between - first).abs().max() > 0.001 and (between - second).abs().max() > 0.001
