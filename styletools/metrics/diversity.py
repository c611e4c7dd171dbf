"""diversity: how different the outputs are from one another.

Mean LPIPS (arXiv:1801.03924) of pairs of outputs, as in arXiv:1711.11586 (Zhu et al., 2017), each scaled to 256 x
256: of all pairs where these are 500 or fewer, else of 500 drawn at random, always the same. 0: all alike; higher:
more varied; about 0.7: nothing in common. Not defined (null) for fewer than two outputs. Weakness: noise is diverse,
too, and outputs of many photographs are, whatever the method: compare outputs of the same pairs.
"""

import itertools
import math
import random

import torch

from styletools.metrics import Metric, _look
from styletools.metrics._lpips import Lpips

NEEDS = ()
SCOPE = "set"
BETTER = "higher"
RANGE = "0 to about 1"
NETWORK = "squeezenet"
NETWORKS = ("squeezenet", "vgg16")
MOST = 500


class Diversity(Metric):
    """Mean LPIPS among the outputs."""

    def __init__(self, network="squeezenet", *, device="cpu"):
        super().__init__(network, device=device)
        self.distance = Lpips(network, device=device)
        self.pictures = []  # (1, 3, 256, 256) in 255ths, so that thousands fit into memory

    def pair(self, output, content=None, style=None):
        small = _look.resize(output.image, (256, 256))
        self.pictures.append((small * 255).round().to(torch.uint8).cpu())
        return {}

    def total(self):
        chosen = _pairs(len(self.pictures))
        distances = []
        for first, others in itertools.groupby(chosen, key=lambda pair: pair[0]):
            look = self._look(first)  # its features serve all pairs that it is the first of
            distances += [self.distance.of_looks(look, self._look(other)) for _, other in others]
        return {"": math.fsum(distances) / len(distances) if distances else math.nan}

    def _look(self, i):
        return _look.Look(self.pictures[i].to(self.device).float() / 255)


def _pairs(count):
    """Return pairs of numbers below `count`, the smaller one first, in order: all, or MOST of them."""
    if math.comb(count, 2) <= MOST:
        return list(itertools.combinations(range(count), 2))
    drawn, source = set(), random.Random(0)
    while len(drawn) < MOST:
        drawn.add(tuple(sorted(source.sample(range(count), 2))))
    return sorted(drawn)
