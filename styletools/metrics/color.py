"""color: how different the colours of output and painting are, wherever they stand.

Hellinger distance of two joint histograms of R, G and B, 8 x 8 x 8, in which each pixel is shared out linearly among
the eight cells next to it: sqrt(1 - sum sqrt(p q)). 0: the same colours in the same amounts; 1: none in common.
Source: Hellinger, Neue Begründung der Theorie quadratischer Formen, 1909; histograms as in Swain and Ballard, Color
Indexing, 1991. Weakness: cells have no notion of nearness beyond their neighbours: colours two cells off are as far
as black from white; and the painting itself scores best.
"""

import itertools

import torch

from styletools.metrics import Metric

NEEDS = ("style",)
SCOPE = "pair"
BETTER = "lower"
RANGE = "0 to 1"
CELLS = 8


class ColorDistance(Metric):
    """Hellinger distance of the colours of output and style."""

    def pair(self, output, content=None, style=None):
        p, q = (look.keep("histogram", lambda look=look: _histogram(look.image)) for look in (output, style))
        return {"": float((1 - (p * q).sqrt().sum()).clamp_min(0).sqrt())}


def _histogram(image):
    """Return the shares of the cells, (CELLS³,), of (1, 3, H, W)."""
    place = image[0].flatten(1).cpu().double().clamp(0, 1) * (CELLS - 1)
    below = place.floor().clamp_max(CELLS - 2)
    above, below = place - below, below.long()
    shares = torch.zeros(CELLS**3, dtype=torch.float64)
    for corner in itertools.product((0, 1), repeat=3):
        red, green, blue = (below[i] + step for i, step in enumerate(corner))
        weight = torch.stack([above[i] if step else 1 - above[i] for i, step in enumerate(corner)]).prod(0)
        shares += torch.bincount((red * CELLS + green) * CELLS + blue, weight, CELLS**3)
    return shares / shares.sum()
