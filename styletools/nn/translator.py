"""The generator of unpaired translation: two steps down, residual blocks, two steps up.

Papers: arXiv:1703.10593 (CycleGAN, Zhu et al., 2017), after arXiv:1603.08155. It is not the network of
`styletools.nn.resnet`, of the same descent: its normalisation learns nothing, its inner layers are read (by CUT), and
its layers are numbered as in the checkpoints that CycleGAN's authors publish, so that these can be put into it.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from styletools.nn.init import normal_
from styletools.nn.norm import InstanceNorm

UPSAMPLING = ("resize", "transposed")


class Translator(nn.Module):
    """Picture to picture: c7s1-W, d2W, d4W, `blocks` times R4W, u2W, uW, c7s1-3, where W is `width`.

    upsampling: `resize` doubles the size by repeating pixels, then convolves: every pixel of the result has the same
    number of summands, so that a short training has no checkerboard to unlearn (arXiv:1610.07629).
    `transposed` is the paper's, and what published weights are made for. The keys are `model.N.weight` either way.
    """

    def __init__(self, width: int = 64, blocks: int = 9, upsampling: str = "resize"):
        super().__init__()
        self.blocks = blocks
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), InstanceNorm(), nn.ReLU()]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), InstanceNorm(), nn.ReLU()]
        layers += [Residual(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            if upsampling == "transposed":
                layers.append(nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1))
            else:
                layers.append(ResizeConv(channels, channels // 2, 3, padding=1, padding_mode="reflect"))
            layers += [InstanceNorm(), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = normal_(nn.Sequential(*layers))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 4 and at least 8, to the same."""
        return (self.model(2 * images - 1).float() + 1) / 2

    def features(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return what comes out of these layers (numbers in `model`, ascending), and go no further than the last."""
        x, found = 2 * images - 1, []
        for number, layer in enumerate(self.model[: layers[-1] + 1]):
            x = layer(x)
            if number in layers:
                found.append(x)
        return found

    def inner_layers(self) -> dict[int, int]:
        """Return {layer: channels} of those that CUT compares: the pixels, both steps down, the first and fifth block.

        With less than five blocks the last one stands for the fifth.
        """
        width = self.model[1].out_channels
        return {0: 3, 4: 2 * width, 7: 4 * width, 10: 4 * width, 9 + min(5, self.blocks): 4 * width}


class Residual(nn.Module):
    """Two convolutions, whose result is added to what comes in."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm(), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResizeConv(nn.Conv2d):
    """A convolution of what is first made twice as large by repeating pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))
