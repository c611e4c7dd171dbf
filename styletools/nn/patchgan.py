"""PatchGAN: a discriminator that judges each patch of a picture by itself.

Paper: arXiv:1611.07004 (Isola et al., 2017); with instance normalisation instead of batch normalisation, as in
arXiv:1703.10593.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from styletools.nn.init import normal_
from styletools.nn.norm import InstanceNorm


class PatchGAN(nn.Module):
    """Tells of each patch how real it is; with three steps down a patch has 70x70 pixels.

    width: channels of the first layer, doubled in each further one up to eight times (paper: 64, which is
    C64-C128-C256-C512). depth: steps down by two (paper: 3; 1 has patches of 16, 2 of 34, 4 of 142 pixels).
    """

    def __init__(self, width: int = 64, depth: int = 3, channels_in: int = 3):
        super().__init__()
        self.smallest = 3 * 2**depth  # below this the last layers would have no place, or a single one to normalise
        layers = [nn.Conv2d(channels_in, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, depth + 1):
            before, after = (width * min(2**number, 8) for number in (i - 1, i))
            stride = 2 if i < depth else 1
            layers += [nn.Conv2d(before, after, 4, stride, 1), InstanceNorm(), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width * min(2**depth, 8), 1, 4, 1, 1))
        self.model = normal_(nn.Sequential(*layers))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to logits (N, 1, h, w), one a patch, higher for more real.

        Smaller pictures than 24 pixels a side (of depth 3) are continued by their edges up to that.
        """
        return self.model(2 * at_least(images, self.smallest) - 1).float()


def at_least(images: Tensor, side: int) -> Tensor:
    """Continue pictures (N, C, H, W) by their right and bottom edges up to `side` pixels, where they are smaller."""
    missing = [max(0, side - length) for length in images.shape[-2:]]
    return F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else images
