"""The VGG family: names of layers, sizes of features, smallest pictures."""

import pytest
import torch

from styletools.nn.slim import HEADS, Slim
from styletools.nn.vgg import FULL_WIDTHS, VGG, VGG16, VGG19, conv_names, torchvision_index


def test_names_follow_the_papers():
    assert conv_names(VGG19)[:5] == ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"]
    assert len(conv_names(VGG19)) == 16 and len(conv_names(VGG16)) == 13
    assert conv_names(VGG19, "relu2_1") == ["conv1_1", "conv1_2", "conv2_1"]


@pytest.mark.parametrize(
    ("depths", "conv", "index"),
    [
        (VGG19, "conv1_1", 0),
        (VGG19, "conv2_1", 5),
        (VGG19, "conv3_1", 10),
        (VGG19, "conv4_1", 19),
        (VGG19, "conv5_1", 28),
        (VGG16, "conv3_3", 14),
        (VGG16, "conv5_3", 28),
    ],
)
def test_torchvision_positions(depths, conv, index):
    assert torchvision_index(depths, conv) == index


def test_features_have_the_sizes_of_their_block():
    network = VGG(VGG19, (2, 3, 4, 5, 6))
    found = network(torch.rand(2, 3, 40, 33), ["relu1_2", "relu3_4", "relu5_1"])
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "relu1_2": (2, 2, 40, 33),
        "relu3_4": (2, 4, 10, 8),
        "relu5_1": (2, 6, 2, 2),
    }
    assert all((v >= 0).all() for v in found.values())


def test_only_the_layers_up_to_the_deepest_are_computed():
    network = VGG(VGG19, (2, 2, 2, 2, 2))
    network.convs["conv2_2"].forward = None
    assert list(network(torch.rand(1, 3, 8, 8), ["relu2_1", "relu1_1"])) == ["relu1_1", "relu2_1"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (17, 1)])
def test_pictures_too_small_to_pool_pass(size):
    network = VGG(VGG19, (2, 2, 2, 2, 2), last="relu5_1")
    (found,) = network(torch.rand(1, 3, *size), ["relu5_1"]).values()
    assert found.numel() > 0 and torch.isfinite(found).all()


def test_slim_speaks_in_the_channels_of_vgg19():
    found = Slim((16, 32, 64, 128, 128))(torch.rand(1, 3, 32, 32))
    assert [found[layer].shape[1] for layer in HEADS] == list(FULL_WIDTHS)
    assert sum(p.numel() for p in Slim((16, 32, 64, 128, 128)).parameters()) < 1.2e6
