"""cut: a network that translates pictures into a set of others, and keeps what is where.

Paper: arXiv:2007.15651 (Park et al., 2020). Each place of the result shall be told, by the generator's own features,
to come from the same place of the input and from no other (PatchNCE), on five layers, 256 places and through
perceptrons of two layers each; for pictures that are in the target domain already, too (`identity_weight`). One
generator and one discriminator: one direction, half the memory of cyclegan. The paper's fast variant is
`nce_weight=10 identity_weight=0`. Differences: least squares are halved, so that `adversarial_weight=2` is the
paper's 1; narrower networks, so that they train on a CPU (`width=64 blocks=9 discriminator_width=64` are the
paper's); resizing before convolving instead of its `upsampling=antialiased`.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors, losses
from styletools.methods import Graphs, Method
from styletools.nn import translator
from styletools.nn.augment import augment, parse
from styletools.nn.frozen import frozen
from styletools.nn.patchgan import PatchGAN
from styletools.nn.translator import UPSAMPLING, Translator

APPLIES_TO = "image"
TRAINS_ON = "unpaired"
LAYOUTS = ("CUT",)


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "channels of the generator at full resolution"] = 32
    blocks: Annotated[int, "residual blocks of the generator"] = 6
    upsampling: Annotated[str, "resize, transposed or antialiased"] = "resize"
    discriminator_width: Annotated[int, "channels of the discriminator's first layer; 0: there is none"] = 32
    depth: Annotated[int, "steps down of the discriminator: 3 judge patches of 70 pixels, 2 of 34"] = 3
    adversarial: Annotated[str, "adversarial loss: lsgan, vanilla or hinge"] = "lsgan"
    adversarial_weight: Annotated[float, "weight of the adversarial loss"] = 2.0
    nce_weight: Annotated[float, "weight of each place's staying what it is"] = 1.0
    identity_weight: Annotated[float, "the same for pictures that are in B already; 0 is faster"] = 1.0
    temperature: Annotated[float, "temperature of PatchNCE: less tells places apart more sharply"] = 0.07
    places: Annotated[int, "places of a picture that are compared"] = 256
    channels: Annotated[int, "channels that the perceptrons put out"] = 256
    augment: Annotated[str, "changes for the discriminator: color, translation, cutout"] = ""
    lr_g: Annotated[float, "learning rate of the generator"] = 2e-4
    lr_d: Annotated[float, "learning rate of the discriminator"] = 2e-4


class Projections(nn.Module):
    """A perceptron of two layers for each inner layer of a generator; vectors of length 1 come out."""

    def __init__(self, inputs: dict[int, int], channels: int):
        """inputs: {layer: channels}."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, channels), nn.ReLU(), nn.Linear(channels, channels))
            for width in inputs.values()
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor], places: list[Tensor]) -> list[Tensor]:
        """Features (N, C, H, W) of each layer, and which of the H·W places to take, to (N, places, channels) each."""
        taken = (x.flatten(2)[:, :, there].transpose(1, 2) for x, there in zip(features, places))
        return [F.normalize(layer(x).float(), dim=-1) for layer, x in zip(self.layers, taken)]


class CUT(Method):
    """Translates A to B. The discriminator is in the model file: it is smaller than the generator."""

    keep = ("generator", "discriminator")
    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        parse(config.augment)
        if config.adversarial not in ("lsgan", "vanilla", "hinge"):
            raise errors.UsageError(f"adversarial={config.adversarial}: lsgan, vanilla or hinge expected")
        if config.upsampling not in UPSAMPLING:
            raise errors.UsageError(f"upsampling={config.upsampling}: {' or '.join(UPSAMPLING)} expected")
        if min(config.width, config.blocks, config.depth, config.channels) < 1 or config.discriminator_width < 0:
            raise errors.UsageError("width, channels, blocks and depth must be 1 or more")
        if config.places < 2 or config.temperature <= 0:
            raise errors.UsageError("places must be 2 or more, and temperature more than 0")
        generator = Translator(config.width, config.blocks, config.upsampling)
        inner = generator.inner_layers()
        self._inner = list(inner)
        self.nets = nn.ModuleDict({"generator": generator})
        if not config.discriminator_width:
            self.keep = ("generator",)
            return
        self.nets["discriminator"] = PatchGAN(config.discriminator_width, config.depth)
        self.nets["projections"] = Projections(inner, config.channels)

    def adopt(self, config, tensors):
        """A discriminator that a published model lacks starts as it is here."""
        own = self.nets.state_dict()
        return {key: own[key] for key in own if key.partition(".")[0] in self.keep} | tensors

    def optimizers(self):
        if not self.config.discriminator_width:
            raise errors.UsageError("training takes a discriminator: discriminator_width=32")

        def adam(lr: float, *networks: str) -> torch.optim.Adam:
            return torch.optim.Adam([p for key in networks for p in self.nets[key].parameters()], lr, (0.5, 0.999))

        return {
            "generator": adam(self.config.lr_g, "generator", "projections"),
            "discriminator": adam(self.config.lr_d, "discriminator"),
        }

    def _judge(self, images: Tensor) -> Tensor:
        """Return the discriminator's logits for pictures changed as `augment` says."""
        return self.nets["discriminator"](augment(images, self.config.augment))

    def _nce(self, output: Tensor, source: Tensor) -> Tensor:
        """Return how badly places of the output are told to come from their places in the source, over all layers."""
        read, project = self.nets["generator"].features, self.nets["projections"]
        found = read(output, self._inner)
        counts = [x.shape[2] * x.shape[3] for x in found]
        places = [torch.randperm(count)[: self.config.places].to(source.device) for count in counts]
        queries = project(found, places)  # first: autocast remembers weights as they are met, with gradients or without
        with torch.no_grad():
            keys = project(read(source, self._inner), places)
        each = [losses.patch_nce(query, key, self.config.temperature) for query, key in zip(queries, keys)]
        return sum(each) / len(each)

    def _generator_losses(self, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of the generator, and what it made of A."""
        config, generator = self.config, self.nets["generator"]
        if config.identity_weight:
            made, same = generator(torch.cat([a, b])).split(len(a))
        else:
            made = generator(a)
        named = {
            "adversarial": losses.generator_loss(self._judge(made), config.adversarial),
            "nce": self._nce(made, a),
            "identity": self._nce(same, b) if config.identity_weight else a.new_zeros(()),
        }
        return {"loss": sum(getattr(config, f"{name}_weight") * value for name, value in named.items())} | named, made

    def _discriminator_losses(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Return the loss of the discriminator, how often it is right, and how different the pictures made are."""
        logits = [self._judge(images) for images in (real, made.detach())]
        return {
            "discriminator": losses.discriminator_loss(*logits, self.config.adversarial),
            "accuracy": losses.accuracy(*logits, self.config.adversarial),
            "diversity": losses.diversity(made.detach()),
        }

    def train_step(self, batch, optimizers, step):
        with frozen(self.nets["discriminator"]):
            named, made = self._generator_losses(batch["a"], batch["b"])
        self.update(optimizers["generator"], named["loss"])
        judged = self._discriminator_losses(batch["b"], made)
        self.update(optimizers["discriminator"], judged["discriminator"])
        return named | judged

    @torch.no_grad()
    def validate(self, batch):
        named, made = self._generator_losses(batch["a"], batch["b"])
        return named | self._discriminator_losses(batch["b"], made)

    def apply(self, image, *, style=None, alpha=1.0):
        """Translate (N, 3, H, W) RGB in [0, 1] to B; alpha: the share of the network's picture in the result."""
        return torch.lerp(image, self.nets["generator"](image), alpha)

    def graphs(self):
        return Graphs(lambda image: (self.nets["generator"](image / 255) * 255).clamp(0, 255))

    def discriminate(self, images):
        """Return how real pictures are as those of B: the mean over patches, (N,)."""
        if not self.config.discriminator_width:
            return super().discriminate(images)
        return self.nets["discriminator"](images).mean((1, 2, 3))

    @staticmethod
    def detect(state_dict):
        return LAYOUTS[0] if translator.published_layout(state_dict) == LAYOUTS[0] else ""

    @staticmethod
    def convert(state_dict):
        """Convert a generator with blurs (`*.filt`); those of other sizes than CUT's own do not fit."""
        blurs = {tuple(tensor.shape[2:]) for key, tensor in state_dict.items() if key.endswith(".filt")}
        if blurs != {(3, 3), (4, 4)}:
            raise ValueError(f"blurs of {sorted(blurs)} pixels")
        width, blocks, tensors = translator.from_published(state_dict)
        config = Config(width=width, blocks=blocks, upsampling="antialiased", discriminator_width=0)
        return config, {f"generator.{key}": tensor for key, tensor in tensors.items()}
