"""VGG-19, the network whose features define style for most of the field.

Paper: arXiv:1409.1556. Weights: torchvision's, which it trained itself (BSD). Oxford's own (CC BY 4.0), under the same
keys, are taken from STYLETOOLS_WEIGHTS.
"""

from pathlib import Path

from styletools.backbones._backbone import Backbone, load_torchvision
from styletools.nn.vgg import VGG19

URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
SHA256 = "dcbb9e9d"
LAYERS = (
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    "relu4_1", "relu4_2", "relu4_3", "relu4_4", "relu5_1", "relu5_2", "relu5_3", "relu5_4",
)  # fmt: skip


def build(weights: Path) -> Backbone:
    """Return VGG-19 with torchvision's weights; a file that stops early gives a network that does too."""
    return load_torchvision("vgg19", VGG19, weights)
