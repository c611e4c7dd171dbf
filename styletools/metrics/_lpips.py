"""LPIPS, for the metrics that use it: its networks, and the published linear weights of their channels."""

from pathlib import Path

import torch
from torch import Tensor

from styletools import backbones, errors
from styletools.backbones._backbone import read_state_dict
from styletools.metrics._look import Look, network

URL = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
# Backbone -> (its published weights, the digits that their SHA-256 begins with, the layers that they weigh).
NETWORKS = {
    "squeezenet": ("squeeze.pth", "4a5350f2", ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
    "vgg16": ("vgg.pth", "a78928a0", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
}


class Lpips:
    """LPIPS over a backbone of NETWORKS. Call it with two (N, 3, H, W) in [0, 1]; it returns (N,) distances."""

    def __init__(self, backbone: str = "squeezenet", *, device="cpu"):
        """Raises Unavailable where the weights of the network, or those that weigh its channels, are not at hand."""
        if backbone not in NETWORKS:
            raise errors.UsageError(f"lpips has no weights for {backbone}: choose from {', '.join(NETWORKS)}")
        published, digest, self.layers = NETWORKS[backbone]
        self.backbone = network(backbone, device)
        path = _find(published, digest)
        state = read_state_dict(path)
        try:
            self.weights = [state[f"lin{i}.model.1.weight"].float().to(device) for i in range(len(self.layers))]
        except KeyError as error:
            raise errors.DataError(f"{path}: not the linear weights of LPIPS: no {error}") from error

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair."""
        return self._compare(self.backbone(a, self.layers), self.backbone(b, self.layers))

    def of_looks(self, a: Look, b: Look) -> float:
        """Return the distance of two pictures of one size."""
        return float(self._compare(a.features(self.backbone, self.layers), b.features(self.backbone, self.layers)))

    def _compare(self, *features: dict[str, Tensor]) -> Tensor:
        total = features[0][self.layers[0]].new_zeros(len(features[0][self.layers[0]]))
        for layer, weight in zip(self.layers, self.weights):
            one, other = (_unit(found[layer]) for found in features)
            total = total + ((one - other).square() * weight).sum(1).mean((1, 2))
        return total


def _unit(features: Tensor) -> Tensor:
    """Bring the channels of every pixel to length 1."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _find(name: str, digest: str) -> Path:
    """Return a file of linear weights: in the folders of STYLETOOLS_WEIGHTS, `lpips_v0.1` below them, or downloaded."""
    for folder in backbones.folders():
        for path in (Path(folder) / "lpips_v0.1" / name, Path(folder) / name):
            if path.is_file():
                return path
    return backbones.download(f"LPIPS ({name})", URL + name, digest, "weights/lpips_v0.1")
