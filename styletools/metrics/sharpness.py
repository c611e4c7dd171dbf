"""sharpness: how much fine detail the output has.

The variance of the Laplacian (the four neighbours less four times the pixel, edges repeated) of its luma in 255ths.
Source: Pech-Pacheco et al., Diatom Autofocusing in Brightfield Microscopy, 2000. 0: flat; 100 and less: blurred; 1000
and more: full of detail. `sharpness.ratio` is over that of the content, not defined (null) where this is flat.
Neither more nor less is better: it is for comparison with the photograph and the painting. Weakness: noise and
artefacts count as detail.
"""

import torch
from torch.nn import functional as F

from styletools.metrics import Metric
from styletools.metrics._ratio import ratio

NEEDS = ("content",)
SCOPE = "pair"
BETTER = "neither"
RANGE = "0 and more, in squared 255ths"


class Sharpness(Metric):
    """Variance of the Laplacian."""

    def pair(self, output, content, style=None):
        own, other = (look.keep("sharpness", lambda look=look: _sharpness(look.image)) for look in (output, content))
        return {"": own, "ratio": ratio(own, other)}


def _sharpness(image):
    luma = (image * image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) * 255
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64).view(1, 1, 3, 3)
    return float(F.conv2d(F.pad(luma.cpu().double(), (1, 1, 1, 1), mode="replicate"), kernel).var(correction=0))
