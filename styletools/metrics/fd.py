"""fd: how different outputs and paintings are as two crowds of pictures, seen by a network of ours.

Fréchet distance (Dowson and Landau, 1982; for pictures arXiv:1706.08500) of two Gaussians, fitted to the features of
all outputs and of the styles of their pairs, each as often as it occurs there: |m1 - m2|² + tr(S1 + S2 - 2 (S1
S2)^½). The features are relu4_1 of the network (its last layer, where it has none), averaged over each picture at its
own size, in units of what the network sees in noise. 0: the same crowd; by slim, about 10: photographs and paintings.
Numbers compare only within one network, which is why the name says it. It works offline; slim has 128 features (they
are not lifted), so fewer pictures do than for fid. Weakness: it sees means and covariances, not single pictures; too
few pictures make it too large, and the paintings themselves score best.
"""

from styletools.metrics import _frechet

NEEDS = ("style",)
SCOPE = "set"
BETTER = "lower"
RANGE = "0 and more"
NETWORK = "slim"


class FrechetDistance(_frechet.Compared):
    """Fréchet distance of outputs and styles over a backbone."""

    def total(self):
        return {"": self.distance()}
