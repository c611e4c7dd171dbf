"""psnr: how far output and content are apart pixel by pixel, in decibels.

-10 log10 of the mean squared difference of the pixels in [0, 1] (peak signal-to-noise ratio; a picture has a peak of
1). Identical pictures, and any closer than that, count as 100 dB, so that means stay finite; 30 and more: hard to
tell apart; 10: nothing in common. Weakness: pixels are not pictures: a shift by one pixel or of a hue costs more than
blur.
"""

import math

from styletools.metrics import Metric

NEEDS = ("content",)
SCOPE = "pair"
BETTER = "higher"
RANGE = "0 to 100 dB"


class SignalToNoise(Metric):
    """PSNR of output and content."""

    def pair(self, output, content, style=None):
        error = float((output.image - content.image).cpu().double().square().mean())
        return {"": min(-10 * math.log10(error), 100.0) if error else 100.0}
