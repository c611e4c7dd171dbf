"""VGG-19 scaled to a mean activation of 1, the encoder of AdaIN and of many after it, where its file is at hand.

Paper: arXiv:1703.06868. Weights: those of pytorch-AdaIN (vgg_normalised.pth). It differs from vgg19: colour
preprocessing in a 1x1 convolution, reflection padding, and pooling that keeps the last row and column of odd sizes.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from styletools import errors
from styletools.backbones._backbone import Backbone, read_state_dict
from styletools.nn.vgg import VGG19, MirroredVGG

PATTERNS = ("vgg_normalised*.pth", "vgg_normalised*.pt", "vgg_normalised*.safetensors")
LAYERS = (
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    "relu4_1", "relu4_2", "relu4_3", "relu4_4", "relu5_1", "relu5_2", "relu5_3", "relu5_4",
)  # fmt: skip


class _Network(MirroredVGG):
    ceil = True


def index(conv: str) -> int:
    """Return where a convolution stands in the published nn.Sequential; padding, ReLU and pooling count, too."""
    block, i = map(int, conv.removeprefix("conv").split("_"))
    return 2 + sum(3 * depth + 1 for depth in VGG19[: block - 1]) + 3 * (i - 1)


def find_published(state: Mapping[str, Tensor]) -> list[str]:
    """Return what the keys of each published file of it begin with, among tensors of several files."""
    return [key.removesuffix("0.weight") for key, tensor in state.items()
            if key.rpartition("/")[2] == "0.weight" and tuple(tensor.shape) == (3, 3, 1, 1)]  # fmt: skip


def build(weights: Path) -> Backbone:
    """Return the network from its published file, as deep as it goes."""
    return from_state(read_state_dict(weights), weights)


def from_state(state: Mapping[str, Tensor], weights: Path | str = "") -> Backbone:
    """Return the network from tensors with the published keys (`0.weight`, `2.weight`, ...), as deep as they go.

    Raises DataError, which names `weights`, for others.
    """
    names = [f"conv{layer.removeprefix('relu')}" for layer in LAYERS]
    there = [name for name in names if f"{index(name)}.weight" in state]
    if "0.weight" not in state or not there or there != names[: len(there)]:
        raise errors.DataError(f"{weights}: not the normalised VGG-19 of pytorch-AdaIN")
    network = _Network(last=there[-1])
    keys = {"colour": 0} | {f"convs.{name}": index(name) for name in there}
    own = {f"{key}.{kind}": state.get(f"{i}.{kind}") for key, i in keys.items() for kind in ("weight", "bias")}
    expected = network.state_dict()
    for key, value in own.items():
        if value is None or value.shape != expected[key].shape:
            raise errors.DataError(f"{weights}: not the normalised VGG-19 of pytorch-AdaIN: {key} does not fit")
    network.load_state_dict({key: value.float() for key, value in own.items()})
    return Backbone("vgg_normalised", network, weights)
