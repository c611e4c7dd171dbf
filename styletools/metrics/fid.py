"""fid: how different outputs and paintings are as two crowds of pictures, as the literature measures it.

Fréchet Inception Distance, arXiv:1706.08500 (Heusel et al., 2017): |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) over the
2048 pooled features of Inception v3, which torch-fidelity sees as the original did (pip install styletools[eval]);
the styles of the pairs count each as often as they occur there. Statistics files are those of pytorch-fid. 0: the
same crowd; 100 and more: clearly another. Weakness: biased: too few outputs make it too large, by more the fewer they
are (below 2048 there are more features than pictures): compare only scores of as many. And Inception knows
photographs of things better than paint.
"""

import functools

from styletools import log
from styletools.metrics import _frechet

NEEDS = ("style",)
SCOPE = "set"
BETTER = "lower"
RANGE = "0 and more"
NETWORK = "inception"
NETWORKS = ("inception",)
ENOUGH = 2048


class FrechetInceptionDistance(_frechet.Compared):
    """FID of outputs and styles."""

    def total(self):
        if 0 < len(self.outputs) < ENOUGH:
            _warn(len(self.outputs))
        return {"": self.distance()}


@functools.cache
def _warn(count):
    """Say, once, why so few pictures are not enough."""
    log.warning(
        f"fid: {count} outputs are fewer than {ENOUGH}, the number of features: their covariance is underestimated, "
        "and the score is too large, by more the fewer they are: compare it only with scores of as many"
    )
