"""artfid: how far the outputs are from the paintings, and from their photographs, in one number.

Paper: arXiv:2207.12280 (Wright and Ommer, 2022): (1 + mean LPIPS of output and content) x (1 + Fréchet distance of
the outputs to the styles); `artfid.lpips` and `artfid.fd` are the two. The distance is that of fd over a backbone, or
of fid over `inception`; LPIPS is over SqueezeNet. 1: best. The published one uses an Inception trained on paintings,
which is not here: numbers compare only within one network, not with the paper's. Weakness: copying wins: the
photographs, handed in untouched, bring the first factor to 1, the paintings the second, and either may beat every
method: see the control rows. And it is biased as fd and fid are: too few outputs make it too large.
"""

import math

from styletools.metrics import _frechet
from styletools.metrics._lpips import Lpips

NEEDS = ("content", "style")
SCOPE = "set"
BETTER = "lower"
RANGE = "1 and more"
NETWORK = "slim"
NETWORKS = ("cd16x", "inception", "slim", "squeezenet", "vgg16", "vgg19", "vgg_normalised")


class ArtFid(_frechet.Compared):
    """Product of what is lost of content and what is missing of style."""

    def __init__(self, network="slim", *, device="cpu"):
        super().__init__(network, device=device)
        self.lpips = Lpips(device=device)
        self.lost = []

    def pair(self, output, content, style):
        self.lost.append(self.lpips.of_looks(output, content))
        return super().pair(output, content, style)

    def total(self):
        if not self.lost:
            return {"": math.nan}
        lost, missing = math.fsum(self.lost) / len(self.lost), self.distance()
        return {"": (1 + lost) * (1 + missing), "lpips": lost, "fd": missing}
