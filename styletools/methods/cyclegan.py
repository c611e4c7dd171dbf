"""cyclegan: two networks that translate between two sets of pictures, each undoing what the other does.

Paper: arXiv:1703.10593 (Zhu et al., 2017): least squares, cycle and identity losses, pools of 50 earlier pictures,
Adam at 2e-4 with betas of 0.5 and 0.999 and a batch of one picture, the rate constant for half of the time and then
falling to 0 (`--schedule linear --batch-size 1`). Differences: the networks are narrower, so that they train on a CPU
(`width=64 blocks=9 discriminator_width=64` are the paper's for 256 pixels, 6 blocks for 128); pictures are resized
before they are convolved instead of `upsampling=transposed`. Colours have half of the range here that they have
there, and least squares are halved: weights mean what they mean there. With few pictures `augment` helps.
"""

from collections.abc import Mapping
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
from styletools.nn.pool import Pool
from styletools.nn.translator import UPSAMPLING, Translator

APPLIES_TO = "image"
TRAINS_ON = "unpaired"
DIRECTIONS = ("a2b", "b2a")
LAYOUTS = ("CycleGAN",)


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "channels of the generators at full resolution"] = 32
    blocks: Annotated[int, "residual blocks of the generators"] = 6
    upsampling: Annotated[str, "resize, transposed or antialiased"] = "resize"
    ways: Annotated[str, "directions that it goes: a2b,b2a, or a2b alone, as generators are published"] = "a2b,b2a"
    discriminator_width: Annotated[int, "channels of the discriminators' first layer; 0: there are none"] = 32
    depth: Annotated[int, "steps down of the discriminators: 3 judge patches of 70 pixels, 2 of 34"] = 3
    adversarial: Annotated[str, "adversarial loss: lsgan, vanilla or hinge"] = "lsgan"
    cycle_weight: Annotated[float, "weight of coming back to the start after both directions"] = 10.0
    identity_weight: Annotated[float, "weight of leaving alone what is there already, times cycle_weight"] = 0.5
    pool: Annotated[int, "earlier pictures that a discriminator is shown again"] = 50
    augment: Annotated[str, "changes for the discriminators: color, translation, cutout"] = ""
    lr_g: Annotated[float, "learning rate of the generators"] = 2e-4
    lr_d: Annotated[float, "learning rate of the discriminators"] = 2e-4


class CycleGAN(Method):
    """Translates in both directions. The discriminators are in the model file: they are smaller than the generators."""

    keep = ("a2b", "b2a", "judge_a", "judge_b")
    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        self.ways = tuple(config.ways.split(","))
        if self.ways not in (DIRECTIONS, DIRECTIONS[:1]):
            raise errors.UsageError(f"ways={config.ways}: a2b,b2a or a2b expected")
        parse(config.augment)
        if config.adversarial not in ("lsgan", "vanilla", "hinge"):
            raise errors.UsageError(f"adversarial={config.adversarial}: lsgan, vanilla or hinge expected")
        if config.upsampling not in UPSAMPLING:
            raise errors.UsageError(f"upsampling={config.upsampling}: {' or '.join(UPSAMPLING)} expected")
        if min(config.width, config.blocks, config.depth) < 1 or min(config.discriminator_width, config.pool) < 0:
            raise errors.UsageError("width, blocks and depth must be 1 or more, other sizes and pool not negative")
        self.nets = nn.ModuleDict()
        for name in self.ways:
            self.nets[name] = Translator(config.width, config.blocks, config.upsampling)
        if not config.discriminator_width:
            self.keep = self.ways
            return
        for domain in "ab":
            self.nets[f"judge_{domain}"] = PatchGAN(config.discriminator_width, config.depth)
            self.nets[f"pool_{domain}"] = Pool(config.pool)

    @property
    def direction(self) -> str:
        return self._direction

    @direction.setter
    def direction(self, way: str) -> None:
        if way not in self.ways:
            raise errors.UsageError(f"--direction {way}: this model goes {' or '.join(self.ways)} only")
        self._direction = way

    _direction = DIRECTIONS[0]

    def adopt(self, config, tensors):
        """Networks that a published model lacks start as they are here."""
        own = self.nets.state_dict()
        return {key: own[key] for key in own if key.partition(".")[0] in self.keep} | tensors

    def optimizers(self):
        if self.ways != DIRECTIONS or not self.config.discriminator_width:
            raise errors.UsageError("training takes both ways and discriminators: ways=a2b,b2a discriminator_width=32")

        def adam(lr: float, networks: list[nn.Module]) -> torch.optim.Adam:
            return torch.optim.Adam([p for net in networks for p in net.parameters()], lr, (0.5, 0.999))

        return {
            "generators": adam(self.config.lr_g, self._generators()),
            "discriminators": adam(self.config.lr_d, self._judges()),
        }

    def _generators(self) -> list[nn.Module]:
        return [self.nets[name] for name in DIRECTIONS]

    def _judges(self) -> list[nn.Module]:
        return [self.nets["judge_a"], self.nets["judge_b"]]

    def _judge(self, domain: str, images: Tensor) -> Tensor:
        """Return the logits of the discriminator of a domain for pictures changed as `augment` says."""
        return self.nets[f"judge_{domain}"](augment(images, self.config.augment))

    def _generator_losses(self, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of the generators, and {domain: what they made of the other's pictures}."""
        config, (a2b, b2a) = self.config, self._generators()
        made = {"a": b2a(b), "b": a2b(a)}
        named = {
            "adversarial": sum(
                losses.generator_loss(self._judge(domain, images), config.adversarial)
                for domain, images in made.items()
            ),
            "cycle": F.l1_loss(b2a(made["b"]), a) + F.l1_loss(a2b(made["a"]), b),
            "identity": a.new_zeros(()),
        }
        if config.identity_weight:
            named["identity"] = F.l1_loss(a2b(b), b) + F.l1_loss(b2a(a), a)
        rebuilt = named["cycle"] + config.identity_weight * named["identity"]
        return {"loss": named["adversarial"] + config.cycle_weight * rebuilt} | named, made

    def _discriminator_losses(self, real: dict[str, Tensor], made: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of both discriminators together, and how often they are right."""
        kind = self.config.adversarial
        seen = [(self._judge(domain, real[domain]), self._judge(domain, made[domain])) for domain in "ab"]
        return {
            "discriminator": sum(losses.discriminator_loss(*logits, kind) for logits in seen),
            "accuracy": sum(losses.accuracy(*logits, kind) for logits in seen) / 2,
        }

    def train_step(self, batch, optimizers, step):
        real = {domain: batch[domain] for domain in "ab"}
        with frozen(*self._judges()):
            named, made = self._generator_losses(**real)
        self.update(optimizers["generators"], named["loss"])
        shown = {domain: self.nets[f"pool_{domain}"](images) for domain, images in made.items()}
        judged = self._discriminator_losses(real, shown)
        self.update(optimizers["discriminators"], judged["discriminator"])
        # Of one picture a batch, earlier ones must tell.
        pools = [self.nets[f"pool_{domain}"].diversity() for domain in "ab"] if len(made["a"]) == 1 else []
        return named | judged | {"diversity": torch.stack(pools).min() if pools else _diversity(made)}

    @torch.no_grad()
    def validate(self, batch):
        real = {domain: batch[domain] for domain in "ab"}
        named, made = self._generator_losses(**real)
        return named | self._discriminator_losses(real, made) | {"diversity": _diversity(made)}

    def sample(self, batch):
        """Show what becomes of A in B, and beside it what becomes of B in A."""
        a2b, b2a = self._generators()
        return torch.cat([a2b(batch["a"]), b2a(batch["b"])], -1)

    def apply(self, image, *, style=None, alpha=1.0):
        """Translate (N, 3, H, W) RGB in [0, 1] the way that `direction` says.

        alpha: the share of the network's picture; the rest is the photograph.
        """
        return torch.lerp(image, self.nets[self.direction](image), alpha)

    def graphs(self):
        return Graphs(lambda image: (self.nets[self.direction](image / 255) * 255).clamp(0, 255))

    def discriminate(self, images):
        """Return how real pictures are in the domain that `direction` leads to, (N,): the mean over their patches."""
        if not self.config.discriminator_width:
            return super().discriminate(images)
        return self.nets[f"judge_{self.direction[-1]}"](images).mean((1, 2, 3))

    @staticmethod
    def detect(state_dict):
        if translator.published_layout(state_dict) == LAYOUTS[0]:
            return LAYOUTS[0]
        return LAYOUTS[0] if len(_generators_of(state_dict)) == 2 else ""

    @staticmethod
    def convert(state_dict):
        """Convert a generator, which goes a2b, or a folder with both, G_A and G_B; discriminators are left out."""
        found = _generators_of(state_dict) or {"a2b": ""}
        tensors = {}
        for way, file in found.items():
            own = {key.removeprefix(file): tensor for key, tensor in state_dict.items() if key.startswith(file)}
            width, blocks, generator = translator.from_published(own)
            tensors |= {f"{way}.{key}": tensor for key, tensor in generator.items()}
        return Config(width=width, blocks=blocks, upsampling="transposed", ways=",".join(found),
                      discriminator_width=0), tensors  # fmt: skip


def _generators_of(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {way: what the keys of its file begin with} of the generators G_A and G_B in a folder of checkpoints."""
    found: dict[str, str] = {}
    for file in sorted({key[: key.rfind("/") + 1] for key in state_dict if "/" in key}):
        own = {key.removeprefix(file): tensor for key, tensor in state_dict.items() if key.startswith(file)}
        for way, ending in (("a2b", "G_A/"), ("b2a", "G_B/")):
            if file.endswith(ending) and translator.published_layout(own) == LAYOUTS[0]:
                found[way] = file if way not in found else ""  # two of them: nobody can tell which
    return found if all(found.values()) else {}


def _diversity(made: dict[str, Tensor]) -> Tensor:
    """Return the diversity of what was made in the domain where it is less."""
    return torch.stack([losses.diversity(images) for images in made.values()]).min()
