"""wgan_gp: pictures from noise, by a generator that brings its pictures closer to real ones, as a critic measures it.

Paper: arXiv:1704.00028 (Gulrajani et al., 2017): the critic's slope is held at 1 by a penalty, so that the difference
of its means estimates the Wasserstein distance, which falls as the pictures get better. It has layer normalisation, for
the penalty is of each picture alone. Networks as of dcgan, with resize-convolutions; what the critic sees is augmented.

Each step trains the critic; every `n_critic`-th, the generator, too. The paper has n_critic=5 and rates of 1e-4; with
two rates (arXiv:1706.08500) one step of the critic serves, and the generator gets further in the same time
(bench/README.md). The model file holds the critic as well (under 3 MB at 64 pixels): it judges, and --init goes on
with it.
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
    z_dim: Annotated[int, "length of the noise that a picture is made from"] = 128
    channels: Annotated[int, "channels at half and full resolution; up to eight times as many below"] = 32
    n_critic: Annotated[int, "steps of the critic to one of the generator (paper: 5)"] = 1
    gp_weight: Annotated[float, "weight of the gradient penalty"] = 10.0
    augment: Annotated[str, "how pictures are changed for the critic; empty: not"] = "color,translation"
    lr_g: Annotated[float, "learning rate of the generator (paper: 1e-4)"] = 2e-4
    lr_d: Annotated[float, "learning rate of the critic (paper: 1e-4)"] = 4e-4


class WganGp(Method):
    """Makes pictures like those that it was trained on."""

    def __init__(self, config: Config):
        self.config = config
        dcgan.check_size(config.image_size)
        augment.parse(config.augment)
        if config.z_dim < 1 or config.channels < 1 or config.n_critic < 1:
            raise errors.UsageError("z_dim, channels and n_critic must be at least 1")
        self.nets = nn.ModuleDict({
            "generator": dcgan.Generator(config.image_size, config.z_dim, config.channels),
            "discriminator": dcgan.Discriminator(config.image_size, config.channels, "layer"),
        })  # fmt: skip

    def initialize(self, batch):
        dcgan.check_crops(batch["images"], self.config.image_size)

    def optimizers(self):
        rates = {"generator": self.config.lr_g, "discriminator": self.config.lr_d}
        return {
            key: torch.optim.Adam(self.nets[key].parameters(), lr=lr, betas=(0.0, 0.9)) for key, lr in rates.items()
        }

    def train_step(self, batch, optimizers, step):
        images, critic, policy = batch["images"], self.nets["discriminator"], self.config.augment
        dcgan.check_crops(images, self.config.image_size)
        turn = step % self.config.n_critic == 0  # of the generator; told by `step`, so that a resumed run keeps count
        with torch.set_grad_enabled(turn):
            made = self.nets["generator"](dcgan.noise(images, self.config.z_dim))
        shown, shown_made = augment.augment(images, policy), augment.augment(made.detach(), policy)
        real, fake = critic(shown), critic(shown_made)
        distance = losses.discriminator_loss(real, fake, "wgan")
        penalty = losses.gradient_penalty(critic, shown, shown_made)
        loss = distance + self.config.gp_weight * penalty
        self.update(optimizers["discriminator"], loss)
        told = {
            "loss": loss, "discriminator": distance, "penalty": penalty,
            "critic_accuracy": losses.accuracy(real, fake, "wgan"), "diversity": losses.diversity(made),
        }  # fmt: skip
        if turn:
            told["generator"] = losses.generator_loss(critic(augment.augment(made, policy)), "wgan")
            self.update(optimizers["generator"], told["generator"])
        return told

    @torch.no_grad()
    def validate(self, batch):
        """Return how far made pictures are from held-out ones, and how well the critic tells them apart."""
        images = batch["images"]
        made = self.generate(dcgan.noise(images, self.config.z_dim))
        real, fake = (self.nets["discriminator"](x) for x in (images, made))
        found = {"critic_accuracy": losses.accuracy(real, fake, "wgan"), "diversity": losses.diversity(made)}
        return {"loss": dcgan.energy_distance(images, made)} | found if len(images) > 1 else found

    def generate(self, z, label=None):
        return self.nets["generator"](z)

    def discriminate(self, images):
        dcgan.check_crops(images, self.config.image_size)
        return self.nets["discriminator"](images)
