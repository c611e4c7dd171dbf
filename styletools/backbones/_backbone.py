"""What every backbone can do."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from styletools import errors
from styletools.nn.vgg import VGG, torchvision_index


class Backbone(nn.Module):
    """A frozen perceptual network.

    Call it with (N, 3, H, W) RGB in [0, 1] and layer names; it returns {layer: (N, C, h, w)}.
    `lift` maps its features into the space of the network that it stands in for; for most it does nothing.
    """

    def __init__(self, name: str, network: VGG, source: Path | str, heads: nn.ModuleDict | None = None):
        super().__init__()
        self.name, self.source = name, str(source)
        self.network = network
        self.heads = heads if heads is not None else nn.ModuleDict()

    @property
    def layers(self) -> list[str]:
        """The layers for which weights are there, shallow to deep."""
        return self.network.layers

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return {layer: features} for `layers`. Raises Unavailable for a layer beyond the weights' end."""
        for layer in layers:
            if layer not in self.layers:
                raise errors.Unavailable(
                    f"{layer} of {self.name} is not to be had: the weights in {self.source} stop at {self.layers[-1]}"
                )
        return self.network(images, layers)

    def lift(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the features in the space of the network that this one was distilled from."""
        return {
            layer: torch.relu(self.heads[layer](tensor)) if layer in self.heads else tensor
            for layer, tensor in features.items()
        }

    def lift_deep(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return features lifted, in float32, but relu1_1 as it is.

        In its shallowest layer a narrow network tells a loss as much unlifted, at a quarter of the cost.
        """
        lifted = self.lift({layer: x for layer, x in features.items() if layer != "relu1_1"})
        return {layer: x.float() for layer, x in (features | lifted).items()}

    def digest(self) -> str:
        """Return a SHA-256 that names these weights: of a VGG, the convolutions to conv3_1, which every file holds."""
        total = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            if not "conv3_1" < name.split(".")[1] < "conv9":
                total.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a .pth, .pt or .safetensors file; nothing in it is ever executed.

    Raises DataError when the file holds anything else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise errors.MissingInput(f"{path}: no such file") from error
    except Exception as error:  # torch and safetensors raise a dozen kinds for damaged files
        what = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise errors.DataError(f"{path}: not a file of weights: {what}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise errors.DataError(f"{path}: holds no plain state dict")
    return state


def load_torchvision(name: str, depths: Sequence[int], path: Path) -> Backbone:
    """Build a VGG from a file with torchvision's keys (`features.0.weight` or `0.weight`), as deep as it goes."""
    state = {key.removeprefix("features."): value for key, value in read_state_dict(path).items()}
    network = VGG(depths)
    own, last = {}, None
    for conv in network.convs:
        i = torchvision_index(depths, conv)
        if f"{i}.weight" not in state:
            break
        last = conv
        for kind in ("weight", "bias"):
            value, shape = state.get(f"{i}.{kind}"), getattr(network.convs[conv], kind).shape
            if value is None or value.shape != shape:
                raise errors.DataError(f"{path}: {i}.{kind} is not {conv}'s of {name}")
            own[f"convs.{conv}.{kind}"] = value.float()
    if last is None:
        raise errors.DataError(f"{path}: holds no convolutions of {name}")
    network = VGG(depths, last=last)
    network.load_state_dict(own)
    return Backbone(name, network, path)
