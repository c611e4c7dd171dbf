"""Inception v3 of 2015, by which FID, KID and the Inception score are defined, through torch-fidelity."""

import functools

import torch

from styletools import backbones, errors
from styletools.backbones._backbone import read_state_dict

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d"


class Inception:
    """Sees one picture after another, each scaled to 299 x 299 as TensorFlow did it."""

    def __init__(self, weights, device="cpu"):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise errors.Unavailable("Inception needs torch-fidelity: pip install styletools[eval]") from error
        read_state_dict(weights)  # which runs no code; torch-fidelity's own reading would
        try:
            with torch.random.fork_rng(devices=[]):
                network = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
                )
        except RuntimeError as error:
            raise errors.DataError(f"{weights}: not torch-fidelity's weights of Inception v3") from error
        self.network, self.device = network.to(device), device

    def features(self, look):
        """Return the 2048 features of a picture."""
        return self._see(look)[0]

    def logits(self, look):
        """Return the 1008 logits of a picture, without their bias, as the Inception score takes them."""
        return self._see(look)[1]

    def _see(self, look):
        @torch.no_grad()
        def run():
            pixels = (look.image.clamp(0, 1) * 255).round().to(torch.uint8).to(self.device)
            return tuple(found[0].float().cpu().numpy() for found in self.network(pixels))

        return look.keep("inception", run)


def load(device="cpu"):
    """Return Inception, loaded once. Raises Unavailable where the package or the weights are not to be had."""
    return _load(find_weights(), device)


_load = functools.cache(Inception)


def find_weights():
    """Return the file of weights under its published name: in the folders of STYLETOOLS_WEIGHTS, else downloaded."""
    return backbones.find_published("Inception v3", URL, SHA256)
