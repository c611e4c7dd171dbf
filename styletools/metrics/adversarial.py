"""adversarial: how real a trained discriminator takes the output to be.

Paper: arXiv:1406.2661 (Goodfellow et al., 2014). Written adversarial:MODELFILE, a model that holds its discriminator;
the score is what that returns, before any sigmoid, averaged over its patches. Higher: more like what the
discriminator was trained to take for real. Weakness: scores of two discriminators cannot be compared, and the one
that the generator was trained against is its easiest to fool: judge by one that it has not met.
"""

import functools

import torch

from styletools import modelfile
from styletools.metrics import Metric

NEEDS = ()
SCOPE = "pair"
BETTER = "higher"
RANGE = "any number"
NETWORKS = "model"


class Adversarial(Metric):
    """The score of a discriminator. `network` is the path of the model file."""

    def __init__(self, network, *, device="cpu"):
        super().__init__(network, device=device)
        self.method = _load(network, device)

    @torch.no_grad()
    def pair(self, output, content=None, style=None):
        return {"": float(self.method.discriminate(output.image).mean())}


@functools.cache
def _load(model, device):
    return modelfile.load(model, device=device)
