"""SqueezeNet 1.1, the smallest of the networks that LPIPS was calibrated on.

Paper: arXiv:1602.07360. Weights: as torchvision publishes them (BSD), trained on ImageNet.
"""

from pathlib import Path

from styletools import errors
from styletools.backbones._backbone import Backbone, read_state_dict
from styletools.nn.squeezenet import SqueezeNet

URL = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
SHA256 = "b8a52dc0"
LAYERS = ("relu1", "fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9")
# Where each stands in torchvision's `features`.
POSITIONS = {"fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12}


def build(weights: Path) -> Backbone:
    """Return SqueezeNet from a file with torchvision's keys (`features.0.weight` or `0.weight`)."""
    state = {key.removeprefix("features."): value.float() for key, value in read_state_dict(weights).items()}
    own = {}
    for key, value in state.items():
        position, _, rest = key.partition(".")
        name = next((name for name, index in POSITIONS.items() if str(index) == position), None)
        if name:
            own[f"fires.{name}.{rest}"] = value
        elif position == "0":
            own[f"conv1.{rest}"] = value
    network = SqueezeNet()
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise errors.DataError(f"{weights}: not the weights of SqueezeNet 1.1") from error
    return Backbone("squeezenet", network, weights)
