"""inception: how clearly the outputs show things, and how many different ones.

Inception score, arXiv:1606.03498 (Salimans et al., 2016): exp of the mean Kullback-Leibler divergence between the
classes that Inception v3 sees in an output and those that it sees in all of them, through torch-fidelity (pip install
styletools[eval]): the mean over 10 random parts of the set, always the same (of as many as there are outputs, where
these are fewer); `inception.std` is their deviation. 1: every output looks like the same thing, or like nothing.
Weakness: it knows no style and no reference, only the classes of ImageNet, and few outputs make it too small.
"""

import math

import numpy as np
import torch

from styletools.metrics import Metric, _inception

NEEDS = ()
SCOPE = "set"
BETTER = "higher"
RANGE = "1 to 1008"
NETWORK = "inception"
NETWORKS = ("inception",)
PARTS = 10


class InceptionScore(Metric):
    """Inception score of the outputs."""

    def __init__(self, network="inception", *, device="cpu"):
        super().__init__(network, device=device)
        self.inception = _inception.load(device)
        self.outputs = []

    def pair(self, output, content=None, style=None):
        self.outputs.append(self.inception.logits(output))
        return {}

    def total(self):
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

        if not self.outputs:
            return {"": math.nan, "std": math.nan}
        logits = torch.from_numpy(np.stack(self.outputs))
        found = isc_features_to_metric(logits, splits=min(PARTS, len(logits)))
        return {"": found[KEY_METRIC_ISC_MEAN], "std": found[KEY_METRIC_ISC_STD]}
