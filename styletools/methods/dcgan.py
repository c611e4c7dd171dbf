"""dcgan: pictures from noise, by a generator that learns to deceive a discriminator.

Paper: arXiv:1511.06434 (Radford, Metz and Chintala, 2015). Differences: resize-convolutions in place of transposed
ones (nn/dcgan.py says why); narrower networks, so that they train on a CPU in a sitting (`channels=128` is the
paper's); what the discriminator sees is augmented, for few pictures are the rule here (`augment=` is the paper's).
Further choices: other adversarial losses, spectral normalisation of the discriminator (arXiv:1802.05957), and a
learning rate for each network (two time scales, arXiv:1706.08500).

The model file holds the discriminator, too (under 3 MB at 64 pixels): it judges, and --init goes on with it.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from styletools import errors, losses
from styletools.methods import Method
from styletools.nn import augment, dcgan

APPLIES_TO = "noise"
TRAINS_ON = "images"


@dataclass(frozen=True)
class Config:
    image_size: Annotated[int, "side of the pictures: 16, 32, 64, 128 or 256; --crop-size must be the same"] = 64
    z_dim: Annotated[int, "length of the noise that a picture is made from"] = 100
    channels: Annotated[int, "channels at half and full resolution; up to eight times as many below"] = 32
    adversarial: Annotated[str, "adversarial loss: vanilla, lsgan or hinge"] = "vanilla"
    spectral: Annotated[bool, "spectral normalisation of the discriminator, in place of batch normalisation"] = False
    augment: Annotated[str, "how pictures are changed for the discriminator; empty: not"] = "color,translation,cutout"
    lr_g: Annotated[float, "learning rate of the generator"] = 2e-4
    lr_d: Annotated[float, "learning rate of the discriminator"] = 2e-4


class Dcgan(Method):
    """Makes pictures like those that it was trained on."""

    def __init__(self, config: Config):
        self.config = config
        dcgan.check_size(config.image_size)
        augment.parse(config.augment)
        if config.adversarial not in ("vanilla", "lsgan", "hinge"):
            raise errors.UsageError(f"adversarial={config.adversarial}: vanilla, lsgan or hinge expected")
        if config.z_dim < 1 or config.channels < 1:
            raise errors.UsageError("z_dim and channels must be at least 1")
        norm = "spectral" if config.spectral else "batch"
        self.nets = nn.ModuleDict({
            "generator": dcgan.Generator(config.image_size, config.z_dim, config.channels),
            "discriminator": dcgan.Discriminator(config.image_size, config.channels, norm),
        })  # fmt: skip

    def initialize(self, batch):
        dcgan.check_crops(batch["images"], self.config.image_size)

    def optimizers(self):
        rates = {"generator": self.config.lr_g, "discriminator": self.config.lr_d}
        return {
            key: torch.optim.Adam(self.nets[key].parameters(), lr=lr, betas=(0.5, 0.999)) for key, lr in rates.items()
        }

    def _judge(self, images):
        """Return the logits of pictures as the discriminator is shown them."""
        return self.nets["discriminator"](augment.augment(images, self.config.augment))

    def train_step(self, batch, optimizers, step):
        images, kind = batch["images"], self.config.adversarial
        dcgan.check_crops(images, self.config.image_size)
        made = self.nets["generator"](dcgan.noise(images, self.config.z_dim))
        real, fake = self._judge(images), self._judge(made.detach())
        discriminator = losses.discriminator_loss(real, fake, kind)
        self.update(optimizers["discriminator"], discriminator)
        generator = losses.generator_loss(self._judge(made), kind)
        self.update(optimizers["generator"], generator)
        return {
            "loss": generator + discriminator, "generator": generator, "discriminator": discriminator,
            "accuracy": losses.accuracy(real, fake, kind), "diversity": losses.diversity(made),
        }  # fmt: skip

    @torch.no_grad()
    def validate(self, batch):
        """Return how far made pictures are from held-out ones, and how well the discriminator tells them apart."""
        images, kind = batch["images"], self.config.adversarial
        made = self.generate(dcgan.noise(images, self.config.z_dim))
        real, fake = (self.nets["discriminator"](x) for x in (images, made))
        found = {"accuracy": losses.accuracy(real, fake, kind), "diversity": losses.diversity(made)}
        return {"loss": dcgan.energy_distance(images, made)} | found if len(images) > 1 else found

    def generate(self, z, label=None):
        return self.nets["generator"](z)

    def discriminate(self, images):
        dcgan.check_crops(images, self.config.image_size)
        return self.nets["discriminator"](images)
