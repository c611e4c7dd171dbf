"""Collaborative Distillation's VGG-19 at a sixteenth of its size (MIT), where its published files are at hand.

Paper: arXiv:2003.08436. It differs from ours: colour preprocessing in a 1x1 convolution, reflection padding.
"""

from pathlib import Path

from torch import Tensor, nn

from styletools import errors
from styletools.backbones._backbone import Backbone, read_state_dict
from styletools.nn.vgg import VGG19, MirroredVGG

PATTERNS = ("cd16x/cd16x_encoder5.pth", "cd16x_encoder5.pth", "16x_encoder5.pth")
LAYERS = (
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    "relu4_1", "relu4_2", "relu4_3", "relu4_4", "relu5_1",
)  # fmt: skip


class _Lifted(Backbone):
    def lift(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {layer: self.heads[layer](x) if layer in self.heads else x for layer, x in features.items()}


def build(weights: Path) -> Backbone:
    """Return the 16x encoder with its auxiliary 1x1 maps as `lift` (linear, as published)."""
    state = {key.removeprefix("module."): value for key, value in read_state_dict(weights).items()}
    network = MirroredVGG(VGG19, (16, 32, 64, 128, 128), last="relu5_1")
    heads = nn.ModuleDict()
    try:
        network.colour.weight.data, network.colour.bias.data = state["conv0.weight"], state["conv0.bias"]
        for name, conv in network.convs.items():
            key = name.replace("_", "")
            conv.weight.data, conv.bias.data = state[f"{key}.weight"], state[f"{key}.bias"]
        for key in sorted(k for k in state if k.endswith("_aux.weight")):
            block = key[4]
            weight = state[key]
            head = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
            head.weight.data, head.bias.data = weight, state[key.replace("weight", "bias")]
            heads[f"relu{block}_1"] = head
    except KeyError as error:
        raise errors.DataError(f"{weights}: not a 16x encoder of Collaborative Distillation: no {error}") from error
    return _Lifted("cd16x", network, weights, heads)
