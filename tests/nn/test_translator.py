"""The generator of unpaired translation: its layers, its sizes, and its inner layers."""

import pytest
import torch
from torch.nn import functional as F

from styletools.nn.translator import UPSAMPLING, Translator


@pytest.mark.parametrize("upsampling", UPSAMPLING)
@pytest.mark.parametrize("size", [(8, 8), (16, 64), (40, 44)])
def test_shape_and_range(size, upsampling):
    torch.manual_seed(0)
    network = Translator(4, 2, upsampling)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)
        out = network(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, *size) and out.min() >= 0 and out.max() <= 1 and out.std() > 0.1


@pytest.mark.parametrize("blocks", [6, 9])
def test_keys_and_shapes_are_those_that_are_published(blocks):
    found = {key: tuple(value.shape) for key, value in Translator(64, blocks, "transposed").state_dict().items()}
    last = 10 + blocks
    expected = {"1": (64, 3, 7, 7), "4": (128, 64, 3, 3), "7": (256, 128, 3, 3)}
    for i in range(blocks):
        expected |= {f"{10 + i}.conv_block.{j}": (256, 256, 3, 3) for j in (1, 5)}
    expected |= {f"{last}": (256, 128, 3, 3), f"{last + 3}": (128, 64, 3, 3), f"{last + 7}": (3, 64, 7, 7)}
    outputs = {f"{last}": 128, f"{last + 3}": 64}  # a transposed convolution tells its inputs first
    biases = {f"model.{key}.bias": (outputs.get(key, shape[0]),) for key, shape in expected.items()}
    assert found == {f"model.{key}.weight": shape for key, shape in expected.items()} | biases
    assert list(Translator(64, blocks, "resize").state_dict()) == list(found)


def test_it_computes_what_the_paper_says():
    """The network written down once more, with functions alone."""
    torch.manual_seed(0)
    network, image = Translator(4, 2, "transposed"), torch.rand(1, 3, 16, 20)
    state = {key.removeprefix("model."): value for key, value in network.state_dict().items()}

    def conv(x, key, pad=0, **how):
        x = F.pad(x, [pad] * 4, mode="reflect") if pad else x
        return F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], **how)

    def up(x, key):
        weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        return F.instance_norm(F.conv_transpose2d(x, weight, bias, 2, 1, 1)).relu()

    x = F.instance_norm(conv(2 * image - 1, "1", 3)).relu()
    for key in ("4", "7"):
        x = F.instance_norm(conv(x, key, stride=2, padding=1)).relu()
    for i in (10, 11):
        inner = F.instance_norm(conv(x, f"{i}.conv_block.1", 1)).relu()
        x = x + F.instance_norm(conv(inner, f"{i}.conv_block.5", 1))
    x = conv(up(up(x, "12"), "15"), "19", 3)
    torch.testing.assert_close(network(image), (x.tanh() + 1) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 3, 6])
def test_inner_layers(blocks):
    torch.manual_seed(0)
    network, image = Translator(4, blocks), torch.rand(2, 3, 16, 24)
    layers = network.inner_layers()
    found = network.features(image, list(layers))
    assert [x.shape[1] for x in found] == list(layers.values())
    assert [tuple(x.shape[2:]) for x in found[:3]] == [(22, 30), (8, 12), (4, 6)]
    assert list(layers) == [0, 4, 7, *sorted({10, 9 + min(5, blocks)})]
    torch.testing.assert_close(found[0][..., 3:-3, 3:-3], 2 * image - 1)
    x = found[-1]
    for layer in network.model[max(layers) + 1 :]:
        x = layer(x)
    torch.testing.assert_close((x + 1) / 2, network(image))
