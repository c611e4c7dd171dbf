"""kid: how different outputs and paintings are as two crowds of pictures, without the bias of fid.

Kernel Inception Distance, arXiv:1801.01401 (Binkowski et al., 2018): the squared maximum mean discrepancy, with the
kernel (x·y / 2048 + 1)³ on features of Inception v3, through torch-fidelity (pip install styletools[eval]): the mean
over 100 random subsets, always the same, of 1000 pictures or of all where there are fewer; `kid.std` is their
deviation. Each distinct style of the pairs counts once. About 0: the same crowd; 0.1: clearly another. Not defined
(null) for fewer than two outputs or styles. Weakness: no bias, but with few pictures much noise; it may fall below 0.
"""

import math

import numpy as np
import torch

from styletools.metrics import Metric, _inception

NEEDS = ("style",)
SCOPE = "set"
BETTER = "lower"
RANGE = "about 0 and more"
NETWORK = "inception"
NETWORKS = ("inception",)
SUBSET = 1000


class KernelInceptionDistance(Metric):
    """KID of outputs and styles."""

    def __init__(self, network="inception", *, device="cpu"):
        super().__init__(network, device=device)
        self.inception = _inception.load(device)
        self.outputs, self.styles = [], {}

    def pair(self, output, content=None, style=None):
        self.outputs.append(self.inception.features(output))
        row = self.inception.features(style)
        self.styles.setdefault(row.tobytes(), row)  # by what is seen: a picture may come again under another name
        return {}

    def total(self):
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

        subset = min(SUBSET, len(self.outputs), len(self.styles))
        if subset < 2:
            return {"": math.nan, "std": math.nan}
        sets = (torch.from_numpy(np.stack(rows)) for rows in (self.outputs, list(self.styles.values())))
        found = kid_features_to_metric(*sets, kid_subset_size=subset, verbose=False)
        return {"": found[KEY_METRIC_KID_MEAN], "std": found[KEY_METRIC_KID_STD]}
