"""From features back to pictures: the mirror of a VGG, which AdaIN and WCT train."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors
from styletools.nn.vgg import VGG, mirrored


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
