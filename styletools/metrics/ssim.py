"""ssim: how alike output and content are in local brightness, contrast and structure.

Paper: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004. In a Gaussian
window (deviation 1.5, 11 pixels) around each pixel, with means m, variances v and covariance c of the two pictures in
[0, 1]: (2 m1 m2 + 0.01²)(2 c + 0.03²) / ((m1² + m2² + 0.01²)(v1 + v2 + 0.03²)), averaged over the pixels whose window
lies within the picture, and over R, G and B. 1: identical; 0: nothing in common; below: inverted. Pictures of fewer
than 11 pixels a side are continued by repeating their edges. Weakness: it punishes any repainting and shift of
colour, and blur less than people do.
"""

import torch
from torch.nn import functional as F

from styletools.metrics import Metric

NEEDS = ("content",)
SCOPE = "pair"
BETTER = "higher"
RANGE = "-1 to 1"
RADIUS = 5  # 3.5 deviations


class StructuralSimilarity(Metric):
    """SSIM of output and content."""

    def pair(self, output, content, style=None):
        if output is content:
            return {"": 1.0}
        a, b = (_planes(look.image) for look in (output, content))
        mean_a, mean_b = _blur(a), _blur(b)
        variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
        covariance = _blur(a * b) - mean_a * mean_b
        light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        structure = (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2)
        return {"": float((light * structure).mean())}


def _planes(image):
    """Return (1, 3, H, W) as three pictures of one channel, large enough for the window."""
    missing = [max(2 * RADIUS + 1 - side, 0) for side in image.shape[-2:]]
    return F.pad(image, (0, missing[1], 0, missing[0]), mode="replicate").cpu().transpose(0, 1)


def _blur(planes):
    """Weigh the window of each pixel that has a whole one."""
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=planes.dtype)
    window = torch.softmax(-0.5 * (x / 1.5) ** 2, 0)
    return F.conv2d(F.conv2d(planes, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
