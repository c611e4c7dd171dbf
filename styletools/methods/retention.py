"""retention: paints like a set of pictures, and is held to what can be told of the photograph from the painting.

The content-retention GAN. A frozen perceptual network gives z; a *retainer* (the content-retention decoder) rebuilds
the photograph from z; a *generator* (a decoder of its own and a style sub-network that scales and shifts its layers)
paints it; a discriminator judges the style. Two stages: first apart (the retainer learns to rebuild photographs, the
generator to be taken for a painter), then jointly, with content_weight · L_c + adversarial_weight · L_g.

Where the description left gaps, this is what was done, and why:
- What keeps the content in the *painted* picture in the second stage: the retainer has to rebuild the photograph from z
  of the painting, and that error goes into the generator. Rebuilt from z of the photograph, as in the first stage,
  it would ask nothing of the generator.
- L_c is over the variance of the photographs: in plain squares it is a fiftieth of L_g, and weights of 0.5 each would
  leave it without a voice.
- The critic -E D(G(x)) + E D(y) has no bound. The hinge bounds it; `adversarial=wgan` keeps it and adds the gradient
  penalty (arXiv:1704.00028) that makes it one.
- The discriminator (64, 128, 256, 512 channels there) judges patches, of pictures of any size, instead of whole ones of
  224 pixels. Spectral normalisation (arXiv:1802.05957) holds it; instance normalisation would hide colours from it.
- The decoders end without tanh: pushed by the discriminator alone, the generator drove it to its ends in the first
  stage and never came back, for there it has no slope. `range_weight` keeps values in [0, 1] instead.
- z lies at an eighth of the resolution: the generator also sees `detail`, features that still tell edges.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from styletools import backbones, errors, losses, stats
from styletools.methods import Graphs, Method, read_widths
from styletools.nn.frozen import frozen
from styletools.nn.init import normal_
from styletools.nn.patchgan import at_least

APPLIES_TO = "image"
TRAINS_ON = "unpaired"

LAYER = "relu4_1"


@dataclass(frozen=True)
class Config:
    backbone: Annotated[str, "frozen network that gives z"] = "slim"
    detail: Annotated[str, "layer that the generator sees beside z; empty: none"] = "relu2_1"
    widths: Annotated[str, "channels of the decoders, deep to shallow (paper: 256,128,64)"] = "128,64,32"
    discriminator_width: Annotated[int, "channels of the discriminator's first layer (paper: 64)"] = 32
    apart: Annotated[int, "steps of the first stage"] = 300
    content_weight: Annotated[float, "weight of what is lost of the photograph, in the second stage"] = 0.5
    adversarial_weight: Annotated[float, "weight of the adversarial loss, in the second stage"] = 0.5
    range_weight: Annotated[float, "weight of values outside [0, 1]"] = 1.0
    adversarial: Annotated[str, "adversarial loss: vanilla, lsgan, hinge or wgan"] = "hinge"
    gp_weight: Annotated[float, "weight of the gradient penalty of wgan"] = 10.0
    lr: Annotated[float, "learning rate of the three Adam optimizers"] = 2e-4


class Decoder(nn.Module):
    """z, at an eighth of the resolution, to a picture: three steps up, each a convolution and batch normalisation.

    Resize-convolutions, which leave no grid. `style`: a sub-network that reads means and deviations of z and scales
    and shifts the normalised layers. `detail`: channels of further features, put in where their resolution is reached.
    """

    def __init__(self, channels: int, widths: list[int], *, style: bool = False, detail: int = 0):
        super().__init__()
        # Features of published weights are in the thousands, and their sizes differ from layer to layer.
        self.given = nn.BatchNorm2d(channels, affine=False)
        self.given_detail = nn.BatchNorm2d(detail, affine=False) if detail else None
        self.blocks, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, (before, after) in enumerate(zip([channels, *widths], widths)):
            more = detail if i == len(widths) - 1 else 0
            self.blocks.append(nn.Conv2d(before + more, after, 3, padding=1, padding_mode="reflect"))
            self.norms.append(nn.BatchNorm2d(after))
        self.out = nn.Conv2d(widths[-1], 3, 3, padding=1, padding_mode="reflect")
        normal_(self, 0.05)
        self.style = None
        if style:
            self.style = nn.Sequential(nn.Linear(2 * channels, 128), nn.ReLU(), nn.Linear(128, 2 * sum(widths)))
            nn.init.normal_(self.style[-1].weight, 0, 0.01)
            nn.init.zeros_(self.style[-1].bias)

    def forward(self, z: Tensor, detail: Tensor | None = None) -> Tensor:
        """(N, C, h, w) to (N, 3, 8 h, 8 w), about in [0, 1]; detail: (N, C', 4 h, 4 w)."""
        x, changes = self.given(z), None
        if self.style is not None:
            sizes = [2 * norm.num_features for norm in self.norms]
            changes = self.style(torch.cat(stats.mean_std(x), 1)).split(sizes, 1)
        for i, (conv, norm) in enumerate(zip(self.blocks, self.norms)):
            if i == len(self.blocks) - 1 and detail is not None:
                x = torch.cat([x, F.interpolate(self.given_detail(detail), x.shape[-2:], mode="nearest")], 1)
            x = norm(conv(x))
            if changes is not None:
                scale, shift = changes[i][:, :, None, None].chunk(2, 1)
                x = x * (1 + scale) + shift
            x = F.interpolate(F.relu(x), scale_factor=2, mode="nearest")
        return 0.5 + self.out(x).float()


def _discriminator(width: int) -> nn.Sequential:
    """Return what maps pictures in [0, 1], of at least 16 pixels a side, to logits of patches of 62 pixels."""
    channels, layers = [3, width, 2 * width, 4 * width, 8 * width], []
    for i, (before, after) in enumerate(zip(channels, channels[1:])):
        layers += [nn.Conv2d(before, after, 4, 2 if i < 3 else 1, 1), nn.LeakyReLU(0.2)]
    layers.append(nn.Conv2d(channels[-1], 1, 3, padding=1))
    for layer in normal_(nn.Sequential(*layers)):
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)
    return nn.Sequential(*layers)


class Retention(Method):
    """Content-retention GAN."""

    keep = ("generator", "discriminator")
    multiple = 8
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        if config.adversarial not in losses.ADVERSARIAL:
            raise errors.UsageError(f"adversarial={config.adversarial}: {', '.join(losses.ADVERSARIAL)} expected")
        backbones.check(config.backbone, [LAYER, *filter(None, [config.detail])])
        widths = read_widths(config.widths, Config.widths, 3)
        self._encoder = backbones.load(config.backbone).to(memory_format=torch.channels_last)
        with torch.no_grad():
            probe = self._features(torch.zeros(1, 3, 32, 32))
        z, detail = (x.shape[1] if x is not None else 0 for x in probe)
        self.nets = nn.ModuleDict(
            {
                "retainer": Decoder(z, widths),
                "generator": Decoder(z, widths, style=True, detail=detail),
                "discriminator": _discriminator(config.discriminator_width),
            }
        )

    def optimizers(self):
        return {
            name: torch.optim.Adam(self.nets[name].parameters(), lr=self.config.lr, betas=(0.5, 0.999))
            for name in ("retainer", "generator", "discriminator")
        }

    def to(self, device):
        self._encoder.to(device)
        return super().to(device)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return z of pictures, and the features of `detail`."""
        layers = [LAYER, *filter(None, [self.config.detail])]
        found = self._encoder(images, layers)
        return found[LAYER].float(), found[self.config.detail].float() if self.config.detail else None

    def _lost(self, photographs: Tensor, rebuilt: Tensor) -> Tensor:
        """Return L_c: the squared error of what was rebuilt, over the variance of the photographs."""
        return F.mse_loss(rebuilt, photographs) / photographs.var().clamp_min(1e-3)

    def train_step(self, batch, optimizers, step):
        photographs, paintings, config = batch["a"], batch["b"], self.config
        retainer, generator, discriminator = (self.nets[k] for k in ("retainer", "generator", "discriminator"))
        jointly = step >= config.apart
        with torch.no_grad():
            z, detail = self._features(photographs)
        made = generator(z, detail)

        real, fake = discriminator(paintings), discriminator(made.detach())
        named = {"discriminator": losses.discriminator_loss(real, fake, config.adversarial)}
        total = named["discriminator"]
        if config.adversarial == "wgan":
            named["penalty"] = losses.gradient_penalty(discriminator, paintings, made)
            total = total + config.gp_weight * named["penalty"]
        self.update(optimizers["discriminator"], total)

        with frozen(discriminator, retainer):
            named["adversarial"] = losses.generator_loss(discriminator(made), config.adversarial)
            total = named["adversarial"]
            if jointly:
                painted = self._features(made)[0]
                named["content"] = self._lost(photographs, retainer(painted))
                total = config.adversarial_weight * total + config.content_weight * named["content"]
            named["range"] = losses.out_of_range(made)
            total = total + config.range_weight * named["range"]
        named["loss"] = total
        self.update(optimizers["generator"], total)

        named["rebuilt"] = self._lost(photographs, retainer(z))
        total = named["rebuilt"]
        if jointly:  # it also learns to see the photograph through the paint
            total = total + self._lost(photographs, retainer(painted.detach()))
        self.update(optimizers["retainer"], total)
        key = "critic_accuracy" if config.adversarial == "wgan" else "accuracy"
        named[key] = losses.accuracy(real, fake, config.adversarial)
        named["diversity"] = losses.diversity(made)
        return named

    @torch.no_grad()
    def validate(self, batch):
        z, detail = self._features(batch["a"])
        made = self.nets["generator"](z, detail)
        content = self._lost(batch["a"], self.nets["retainer"](self._features(made)[0]))
        adversarial = losses.generator_loss(self.nets["discriminator"](made), self.config.adversarial)
        total = self.config.content_weight * content + self.config.adversarial_weight * adversarial
        return {"loss": total, "content": content, "adversarial": adversarial}

    def sample(self, batch):
        return self.apply(batch["a"])

    def apply(self, image, *, style=None, alpha=1.0):
        """Paint (N, 3, H, W) RGB in [0, 1]; alpha is the share of the painting, the rest is the photograph."""
        return torch.lerp(image, self.nets["generator"](*self._features(image)).clamp(0, 1), alpha)

    def graphs(self):
        return Graphs(lambda image: (self.nets["generator"](*self._features(image / 255)) * 255).clamp(0, 255))

    def discriminate(self, images):
        return self.nets["discriminator"](at_least(images, 16)).flatten(1).mean(1)
