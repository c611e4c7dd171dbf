"""Mirroring at the edges, channels last."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from styletools.nn import mirror


@pytest.mark.parametrize("padding", [(1, 1), (4, 4), (0, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("size", [(5, 7), (9, 16), (10, 10), (11, 12)])
def test_it_is_what_torch_makes(padding, size):
    x = torch.rand(2, 3, *size).contiguous(memory_format=torch.channels_last)
    result = mirror.mirrored(x, *padding)
    vertical, horizontal = padding
    assert torch.equal(result, F.pad(x, (horizontal, horizontal, vertical, vertical), mode="reflect"))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_what_is_too_small_is_refused_as_by_torch():
    with pytest.raises(RuntimeError, match="Padding size"):
        mirror.mirrored(torch.rand(1, 3, 4, 4), 4, 4)


def test_convolutions_give_the_same():
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 9, padding=4, padding_mode="reflect"),
        nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=4, padding_mode="reflect", bias=False)),
        nn.Conv2d(8, 2, 3, padding=1),
    )
    x = torch.rand(2, 3, 16, 20)
    with torch.no_grad():
        wanted = layers(x)
        mirror.replace_padding(layers)
        assert [type(each) for each in layers] == [mirror.Mirrored, nn.Sequential, nn.Conv2d]
        assert isinstance(layers[1][0], mirror.Mirrored)
        torch.testing.assert_close(layers(x), wanted, rtol=1e-5, atol=1e-6)
