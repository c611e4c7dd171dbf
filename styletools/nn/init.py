"""Initial weights."""

from torch import nn


def normal_(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw the weights of all convolutions from N(0, std²) and set their biases to 0; returns the network.

    What adversarial networks start from since DCGAN (arXiv:1511.06434).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
