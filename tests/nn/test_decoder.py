"""The decoder: a mirror of its encoder, for any size, that knows whose mirror it is."""

import pytest
import torch

from styletools import errors
from styletools.nn.decoder import Decoder
from styletools.nn.vgg import VGG, VGG19


def network():
    return VGG(VGG19, (4, 6, 8, 10, 12))


def test_it_mirrors_the_encoder():
    convs = Decoder(network(), "relu3_1").convs
    assert [(name, conv.in_channels, conv.out_channels) for name, conv in convs.items()] == [
        ("conv3_1", 8, 6), ("conv2_2", 6, 6), ("conv2_1", 6, 4), ("conv1_2", 4, 4), ("conv1_1", 4, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("layer", ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"])
@pytest.mark.parametrize("size", [(16, 16), (32, 48)])
def test_pictures_come_back_as_large_as_they_were(layer, size):
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        pictures = Decoder(network(), layer)(network()(images, [layer])[layer])
    assert pictures.shape == images.shape and torch.isfinite(pictures).all()


def test_features_of_one_pixel():
    with torch.no_grad():
        assert Decoder(network(), "relu4_1")(torch.rand(1, 10, 1, 1)).shape == (1, 3, 8, 8)


def test_it_belongs_to_one_encoder():
    decoder = Decoder(network(), "relu1_1")
    decoder.bind("ab" * 32, "slim")
    decoder.bind("ab" * 32, "slim")
    again = Decoder(network(), "relu1_1")
    again.load_state_dict(decoder.state_dict())
    with pytest.raises(errors.DoesNotFit, match="other weights of slim"):
        again.bind("cd" * 32, "slim")
