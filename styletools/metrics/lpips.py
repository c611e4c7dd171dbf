"""lpips: how different output and content look to people, as learnt from their judgements.

Paper: arXiv:1801.03924 (Zhang et al., 2018). The features of a network, each pixel's brought to length 1, are
compared channel by channel; the published linear weights (version 0.1) say how much a channel counts. 0: alike; about
0.7: nothing in common. Weakness: it knows small distortions, not repainting: a picture restyled well may be as far
from its photograph as one destroyed, and the photograph itself scores best.
"""

from styletools.metrics import Metric
from styletools.metrics._lpips import Lpips

NEEDS = ("content",)
SCOPE = "pair"
BETTER = "lower"
RANGE = "0 to about 1"
NETWORK = "squeezenet"
NETWORKS = ("squeezenet", "vgg16")


class PerceptualDistance(Metric):
    """LPIPS of output and content."""

    def __init__(self, network="squeezenet", *, device="cpu"):
        super().__init__(network, device=device)
        self.distance = Lpips(network, device=device)

    def pair(self, output, content, style=None):
        return {"": self.distance.of_looks(output, content)}
