"""From features back to pictures: the mirror of a VGG, which AdaIN and WCT train."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors
from styletools.nn.vgg import FULL_WIDTHS, VGG, VGG19, conv_names, mirrored


class Decoder(nn.Module):
    """The layers of `network` from `layer` back to the picture: convolutions, and nearest x2 where it pools.

    Reflection padding; no ReLU at the end. `encoder` is the digest of the network that it was trained with, kept
    as 32 bytes beside the weights.
    """

    def __init__(self, network: VGG, layer: str):
        super().__init__()
        names = list(network.convs)
        names = names[: names.index(layer.replace("relu", "conv")) + 1]
        self.convs = nn.ModuleDict()
        for name in reversed(names):
            mirrored = network.convs[name]
            self.convs[name] = nn.Conv2d(mirrored.out_channels, mirrored.in_channels, 3)
        for conv in self.convs.values():
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.register_buffer("encoder", torch.zeros(32, dtype=torch.uint8))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features to (N, 3, H, W), about in [0, 1], in float32."""
        x, block = features, next(iter(self.convs))[4]
        for name, conv in self.convs.items():
            if name[4] != block:
                x, block = F.interpolate(x, scale_factor=2, mode="nearest"), name[4]
            x = conv(mirrored(x))
            if name != "conv1_1":
                x = F.relu(x)
        return x.float() + 0.5

    def bind(self, digest: str, name: str) -> None:
        """Note the digest of the encoder; raise DoesNotFit when another one is noted already. name: the encoder's."""
        given = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=self.encoder.device)
        if not self.encoder.any():
            self.encoder.copy_(given)
        elif not torch.equal(self.encoder, given):
            raise errors.DoesNotFit(f"this model was trained with other weights of {name} than those at hand")


# ---- decoders as others publish them: an nn.Sequential, where padding, ReLU and upsampling count, too ---------------


def positions(level: int) -> dict[str, int]:
    """Return {convolution: its place} in the published decoder of relu<level>_1 of the normalised VGG-19."""
    places, place = {}, 1
    names = conv_names(VGG19, f"conv{level}_1")[::-1]
    for name, after in zip(names, [*names[1:], names[-1]]):
        places[name] = place
        place += 3 + (name[4] != after[4])
    return places


def find_published(state: Mapping[str, Tensor]) -> dict[int, list[str]]:
    """Return {level: what the keys of each file begin with} of the published decoders among these tensors."""
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in state.items():
        file = key[: key.rfind("/") + 1]
        files.setdefault(file, {})[key.removeprefix(file)] = tuple(tensor.shape)
    found: dict[int, list[str]] = {}
    for level, width in enumerate(FULL_WIDTHS, 1):
        places = list(positions(level).values())
        keys = {f"{place}.{kind}" for place in places for kind in ("weight", "bias")}
        for file, shapes in files.items():
            ends = (shapes.get("1.weight", (0, 0))[1:2], shapes.get(f"{places[-1]}.weight"))
            if set(shapes) == keys and ends == ((width,), (3, 64, 3, 3)):
                found.setdefault(level, []).append(file)
    return found


def from_published(state: Mapping[str, Tensor], file: str, level: int) -> dict[str, Tensor]:
    """Return the convolutions of a Decoder, by our keys, from a published one whose keys begin with `file`."""
    tensors = {
        f"convs.{name}.{kind}": state[f"{file}{place}.{kind}"].float()
        for name, place in positions(level).items()
        for kind in ("weight", "bias")
    }
    tensors["convs.conv1_1.bias"] = tensors["convs.conv1_1.bias"] - 0.5  # which our decoder adds
    return tensors


def to_published(tensors: Mapping[str, Tensor], level: int) -> dict[str, Tensor]:
    """Return the convolutions of a Decoder as they are published: the reverse of `from_published`."""
    state = {
        f"{place}.{kind}": tensors[f"convs.{name}.{kind}"].float()
        for name, place in positions(level).items()
        for kind in ("weight", "bias")
    }
    last = f"{positions(level)['conv1_1']}.bias"
    state[last] = state[last] + 0.5
    return state
