"""slim: VGG-19 with few of its channels, distilled by `st-train distill`, bundled.

A 1x1 convolution per layer (`lift`) maps its features to those of VGG-19.
Idea: Collaborative Distillation for Ultra-Resolution Universal Style Transfer, arXiv:2003.08436.
"""

from pathlib import Path

from styletools import errors
from styletools.backbones._backbone import Backbone, read_state_dict
from styletools.nn.slim import HEADS, Slim

PATTERNS = ("slim*.safetensors",)
LAYERS = (
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    "relu4_1", "relu4_2", "relu4_3", "relu4_4", "relu5_1",
)  # fmt: skip


def build(weights: Path) -> Backbone:
    """Return slim from its model file; how wide it is, the shapes tell."""
    state = {key.removeprefix("student."): value.float() for key, value in read_state_dict(weights).items()}
    try:
        student = Slim([state[f"heads.{layer}.weight"].shape[1] for layer in HEADS])
        student.load_state_dict(state)
    except (LookupError, RuntimeError) as error:
        raise errors.DataError(f"{weights}: not a slim model file") from error
    return Backbone("slim", student.network, weights, student.heads)
