"""culturegan: one network for several cultures of painting, by label, by a mixture of labels, or by a picture.

Style as culture: ink painting, ukiyo-e, oil; one folder of pictures each. An encoder (G_E: convolutions and residual
blocks) reads the photograph, a decoder (G_S) paints it; its *style perception* scales and shifts every normalised
layer (arXiv:1610.07629) by an embedding: one learnt for each label, or one that a further network reads from a
reference picture. The discriminator judges patches, each by the standards of the label in question, and says of the
whole picture which label it is of (its own style perception; the classification of arXiv:1610.09585).

Where the description left gaps, this is what was done, and why:
- What keeps the content: deep features of a frozen perceptual network (`backbone`), each channel brought to mean 0 and
  deviation 1 within the picture, must stay. So what lies where is kept, and colours and contrast are free. A cycle
  would need a way back from every style; an identity loss keeps the colours, which are what should change.
- The decoder paints upon the photograph: what it adds starts at nothing. In the minutes that a small training takes, a
  network that has to make the picture anew spends most of them on learning to copy.
- One judgement of patches a label, as one for all cannot tell whose paintings it is shown; the classification alone
  would be content with a token.
- Reference pictures: in `reference_share` of the pictures the embedding is that of the real picture that lies beside it
  in the batch. It is read from the mean and the deviation of frozen features, which tell styles apart from the start.
- The discriminator sees frozen features, from shallow to deep, instead of pixels (arXiv:2111.01007). Some hundred
  paintings of very different things are too few for it to learn from scratch what a painting is: one that did could
  tell neither made pictures from real ones nor one label from another after a thousand steps, and the generator learnt
  to shift tones from it, no more. Of pixels it sees the shallowest layer, which knows colours.
- `augment` moves pictures for the discriminator; changes of colour would hide the colours of a style.
- Larger rates than 2e-4, so that a training of minutes gets somewhere: the networks are small.
- Validation goes by how far the crowd of made pictures is from that of the real ones, by those means and deviations:
  losses of the two contestants tell who is ahead, not how good they are.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, errors, losses, stats
from styletools.methods import Method
from styletools.nn.augment import augment, parse
from styletools.nn.frozen import frozen
from styletools.nn.init import normal_
from styletools.nn.norm import InstanceNorm, conditional_instance_norm, instance_norm

APPLIES_TO = "image+label"
TRAINS_ON = "content+labelled"

ADVERSARIAL = ("vanilla", "lsgan", "hinge")


@dataclass(frozen=True)
class Config:
    labels: Annotated[str, "names of the labels, with commas between them; st-train fills it in"] = ""
    width: Annotated[int, "channels of the generator at full resolution"] = 16
    blocks: Annotated[int, "residual blocks of the encoder, and of the decoder"] = 2
    embedding: Annotated[int, "numbers that tell a style"] = 32
    dropout: Annotated[float, "share of the decoder's channels that are left out in training"] = 0.0
    discriminator_width: Annotated[int, "channels of the discriminator on each layer of features"] = 32
    adversarial: Annotated[str, "adversarial loss: hinge, vanilla (cross-entropy) or lsgan"] = "hinge"
    adversarial_weight: Annotated[float, "weight of the adversarial loss"] = 1.0
    label_weight: Annotated[float, "weight of being taken for the right label"] = 0.5
    content_weight: Annotated[float, "weight of what is lost of the photograph"] = 0.3
    range_weight: Annotated[float, "weight of values outside [0, 1]"] = 1.0
    backbone: Annotated[str, "frozen network whose features tell content and style"] = "slim"
    content_layer: Annotated[str, "layer whose features keep the content"] = "relu4_1"
    style_layers: Annotated[str, "layers that the discriminator and the reader of reference pictures see"] = (
        "relu1_1,relu2_1,relu3_1,relu4_1"
    )
    reference_share: Annotated[float, "share of the pictures trained by a reference; 0: labels only"] = 0.25
    augment: Annotated[str, "changes for the discriminator: color, translation, cutout"] = "translation"
    lr_g: Annotated[float, "learning rate of the generator (source: 2e-4)"] = 3e-4
    lr_d: Annotated[float, "learning rate of the discriminator (source: 2e-4)"] = 1e-3


class Encoder(nn.Module):
    """G_E: a picture to features at a quarter of its resolution, and shallow ones at the full."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        self.shallow = _conv(3, width)
        self.down = nn.Sequential(
            InstanceNorm(), nn.ReLU(), nn.Conv2d(width, 2 * width, 4, 2, 1),
            InstanceNorm(), nn.ReLU(), nn.Conv2d(2 * width, 4 * width, 4, 2, 1), InstanceNorm(),
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), _conv(4 * width, 4 * width), InstanceNorm(), nn.ReLU(),
                _conv(4 * width, 4 * width), InstanceNorm(),
            )
            for _ in range(blocks)
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1], sides multiples of 4, to (N, 4 width, H/4, W/4) and (N, width, H, W)."""
        shallow = self.shallow(2 * images - 1)
        x = self.down(shallow)
        for block in self.blocks:
            x = x + block(x)
        return x, shallow


class Decoder(nn.Module):
    """G_S: what to add to a picture, from its features and an embedding of a style."""

    def __init__(self, width: int, blocks: int, embedding: int, dropout: float):
        super().__init__()
        deep, half = 4 * width, 2 * width
        self.convs = nn.ModuleList(_conv(deep, deep) for _ in range(2 * blocks))
        self.convs += [_conv(deep, half), _conv(half, width), _conv(2 * width, width)]
        self.blocks, self.dropout = blocks, nn.Dropout2d(dropout)
        self.out = normal_(_conv(width, 3), 0.001)
        # The style perception: scale and shift of every normalised layer.
        self.widths = [2 * conv.out_channels for conv in self.convs]
        self.perception = nn.Linear(embedding, sum(self.widths))
        nn.init.normal_(self.perception.weight, 0, 0.3 / embedding**0.5)
        nn.init.zeros_(self.perception.bias)

    def forward(self, features: Tensor, shallow: Tensor, embedding: Tensor) -> Tensor:
        """Features as the encoder gives them, embedding (N or 1, embedding), to (N, 3, H, W)."""
        changes = self.perception(embedding).split(self.widths, 1)

        def layer(number: int, x: Tensor) -> Tensor:
            return conditional_instance_norm(self.convs[number](x), *changes[number].chunk(2, 1))

        x = features
        for i in range(0, 2 * self.blocks, 2):
            x = x + layer(i + 1, self.dropout(F.relu(layer(i, x))))
        for i in (-3, -2):
            x = F.relu(layer(i, F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.out(F.relu(layer(-1, torch.cat([x, shallow], 1)))).float()


class Judge(nn.Module):
    """The discriminator: how real is each place as one of a label, and which label is the picture of?

    It sees features of a frozen network, each layer through convolutions of its own. Channels are brought to mean 0 and
    deviation 1 by what they are in real pictures, on average over the latest.
    """

    def __init__(self, channels: list[int], width: int, labels: int):
        """channels: those of each layer of the features."""
        super().__init__()
        self.trunks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(count, width, 3, padding=1), nn.LeakyReLU(0.2),
                nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2),
            )
            for count in channels
        )  # fmt: skip
        self.real = nn.ModuleList(nn.Conv2d(width, labels, 1) for _ in channels)
        self.which = nn.Linear(width * len(channels), labels)
        for i, count in enumerate(channels):
            self.register_buffer(f"mean_{i}", torch.zeros(count))
            # No variance: of large features, 16 bits would not hold it.
            self.register_buffer(f"deviation_{i}", torch.ones(count))
        self.register_buffer("batches", torch.zeros(()))

    @torch.no_grad()
    def learn(self, features: list[Tensor]) -> None:
        """Take in the means and deviations of the features of real pictures."""
        self.batches += 1
        for i, layer in enumerate(features):
            found = torch.std_mean(layer.float(), (0, 2, 3), correction=0)
            for name, now in zip(("deviation", "mean"), found):
                known = self.get_buffer(f"{name}_{i}")
                known += (now - known) / self.batches.clamp(max=200)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Layers (N, C, h, w) to logits (N, labels, places) of being real and (N, labels) of the label."""
        real, pooled = [], []
        for i, layer in enumerate(features):
            mean, deviation = (self.get_buffer(f"{name}_{i}")[:, None, None] for name in ("mean", "deviation"))
            x = self.trunks[i]((layer.float() - mean) / (deviation.square() + 1e-5).sqrt())
            real.append(self.real[i](x).float().flatten(2))
            pooled.append(x.mean((2, 3)))
        return torch.cat(real, 2), self.which(torch.cat(pooled, 1)).float()


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, padding_mode="reflect")


class CultureGAN(Method):
    """Paints in the styles of its labels, in mixtures of them, and like a picture."""

    keep = ("encoder", "decoder", "styles", "reference", "discriminator")
    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        self.labels = config.labels.split(",") if config.labels else [""]
        self._layers = [layer.strip() for layer in config.style_layers.split(",") if layer.strip()]
        parse(config.augment)
        if config.adversarial not in ADVERSARIAL:
            raise errors.UsageError(f"adversarial={config.adversarial}: {', '.join(ADVERSARIAL)} expected")
        if len(set(self.labels)) < len(self.labels):
            raise errors.UsageError(f"labels={config.labels}: a name twice")
        if min(config.width, config.embedding, config.discriminator_width) < 1 or config.blocks < 0:
            raise errors.UsageError("widths and embedding must be 1 or more, and blocks not negative")
        if not (0 <= config.dropout < 1 and 0 <= config.reference_share <= 1):
            raise errors.UsageError("dropout must be from 0 to below 1, and reference_share from 0 to 1")
        backbones.check(config.backbone, [config.content_layer, *self._layers])
        if not self._layers:
            raise errors.UsageError("style_layers names no layer")
        self._frozen = backbones.load(config.backbone).to(memory_format=torch.channels_last)
        with torch.no_grad():
            channels = [layer.shape[1] for layer in self._seen(torch.zeros(1, 3, 32, 32))]
        self.nets = nn.ModuleDict({
            "encoder": Encoder(config.width, config.blocks),
            "decoder": Decoder(config.width, config.blocks, config.embedding, config.dropout),
            "styles": nn.Embedding(len(self.labels), config.embedding),
            "reference": nn.Sequential(nn.Linear(2 * sum(channels), 64), nn.ReLU(), nn.Linear(64, config.embedding)),
            "discriminator": Judge(channels, config.discriminator_width, len(self.labels)),
        })  # fmt: skip

    def adopt(self, config, tensors):
        """What belongs to a label goes with its name; labels that the model does not know start as they are here."""
        theirs = (config.get("labels") or "").split(",")
        if theirs == self.labels:
            return tensors
        own, fitted = self.nets.state_dict(), dict(tensors)
        for key, value in tensors.items():
            of_labels = key.startswith(("styles.", "discriminator.real.", "discriminator.which."))
            if of_labels and key in own:
                rows = own[key].to(value.dtype, copy=True)
                if rows.shape[1:] != value.shape[1:]:
                    continue  # of other sizes: told where it is loaded
                for i, name in enumerate(self.labels):
                    if name in theirs:
                        rows[i] = value[theirs.index(name)]
                fitted[key] = rows
        return fitted

    def optimizers(self):
        def adam(lr: float, *networks: str) -> torch.optim.Adam:
            return torch.optim.Adam([p for key in networks for p in self.nets[key].parameters()], lr, (0.5, 0.999))

        return {
            "generator": adam(self.config.lr_g, "encoder", "decoder", "styles", "reference"),
            "discriminator": adam(self.config.lr_d, "discriminator"),
        }

    def _features(self, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
        return self._frozen.to(images.device)(images, layers)

    def _seen(self, images: Tensor) -> list[Tensor]:
        """Return the features of pictures by which styles are told."""
        found = self._features(images, self._layers)
        return [found[layer] for layer in self._layers]

    def _look(self, images: Tensor) -> Tensor:
        """Return what these tell of the style of pictures, (N, numbers): the same size in every layer."""
        told = (torch.cat(stats.mean_std(layer), 1) for layer in self._seen(images))
        return torch.cat([F.layer_norm(x, x.shape[1:]) for x in told], 1)

    def _content(self, images: Tensor) -> Tensor:
        return instance_norm(self._features(images, [self.config.content_layer])[self.config.content_layer].float())

    def _paint(self, images: Tensor, embedding: Tensor) -> Tensor:
        """Return pictures, about in [0, 1], of photographs and the embeddings of styles (N or 1, embedding)."""
        return images + self.nets["decoder"](*self.nets["encoder"](images), embedding)

    def _embeddings(self, batch) -> Tensor:
        """Return the embedding of each picture of a batch: its label's, or that of the real picture beside it."""
        known = self.nets["styles"](batch["label"])
        with torch.no_grad():
            look = self._look(batch["labelled"])
        chosen = torch.rand(len(look), 1) < self.config.reference_share
        return torch.where(chosen.to(known.device), self.nets["reference"](look).to(known.dtype), known)

    def _judged(self, images: Tensor, label: Tensor, *, learn: bool = False) -> tuple[Tensor, Tensor]:
        """Return the discriminator's logits for pictures changed as `augment` says: of one label, and of each.

        learn: these are real pictures, by which it is to know others.
        """
        features = self._seen(augment(images, self.config.augment))
        if learn:
            self.nets["discriminator"].learn(features)
        real, which = self.nets["discriminator"](features)
        return _of(real, label), which

    def _generator_losses(self, batch, made: Tensor) -> dict[str, Tensor]:
        config = self.config
        fake, which = self._judged(made, batch["label"])
        with torch.no_grad():
            kept = self._content(batch["content"])
        named = {
            "adversarial": losses.generator_loss(fake, config.adversarial),
            "label": F.cross_entropy(which, batch["label"]),
            "content": F.mse_loss(self._content(made), kept),
            "range": losses.out_of_range(made),
        }
        total = sum(getattr(config, f"{name}_weight") * value for name, value in named.items())
        return {"loss": total} | named | {"label_accuracy": _share_right(which, batch["label"])}

    def train_step(self, batch, optimizers, step):
        made = self._paint(batch["content"], self._embeddings(batch))
        real, which = self._judged(batch["labelled"], batch["label"], learn=True)
        fake, _ = self._judged(made.detach(), batch["label"])
        judged = {
            "discriminator": losses.discriminator_loss(real, fake, self.config.adversarial),
            "discriminator_label": F.cross_entropy(which, batch["label"]),
        }
        total = judged["discriminator"] + self.config.label_weight * judged["discriminator_label"]
        self.update(optimizers["discriminator"], total)
        with frozen(self.nets["discriminator"]):
            named = self._generator_losses(batch, made)
        self.update(optimizers["generator"], named["loss"])
        judged["accuracy"] = losses.accuracy(real, fake, self.config.adversarial)
        return named | judged | {"diversity": losses.diversity(made)}

    @torch.no_grad()
    def validate(self, batch):
        made = self._paint(batch["content"], self.nets["styles"](batch["label"]))
        named = self._generator_losses(batch, made)
        named["style"] = losses.energy_distance(self._look(batch["labelled"]), self._look(made))
        total = self.config.content_weight * named["content"] + named["style"]
        return named | {"loss": total, "diversity": losses.diversity(made)}

    def sample(self, batch):
        """Show the photographs in each label in turn, side by side."""
        painted = [self.apply(batch["content"], style=self.own_style(name)) for name in self.labels]
        return torch.cat(painted, -1)

    def own_style(self, name):
        if name not in self.labels:
            raise errors.DoesNotFit(f"no label {name!r} in this model: it has {', '.join(self.labels)}")
        return {"embedding": self.nets["styles"].weight[self.labels.index(name)].detach()}

    def encode_style(self, images, weights):
        """Return the embedding that is read from reference pictures, each weighted, as {"embedding": (numbers,)}."""
        if not self.config.reference_share:
            raise errors.UsageError("this model was trained by labels alone (reference_share=0): it takes no picture")
        each = [{"embedding": self.nets["reference"](self._look(image))[0]} for image in images]
        return stats.merge(each, weights)

    def apply(self, image, *, style=None, alpha=1.0):
        """Paint (N, 3, H, W) RGB in [0, 1].

        style: what `own_style` or `encode_style` return, or a mixture of such; None: image i is painted in the style
        of label i, counted round. alpha: the share of the painting; the rest is the photograph.
        """
        if style is None:
            embedding = self.nets["styles"](torch.arange(len(image), device=image.device) % len(self.labels))
        else:
            embedding = style["embedding"].to(image.device).float().view(1, -1)
        return torch.lerp(image, self._paint(image, embedding).clamp(0, 1), alpha)

    def discriminate(self, images):
        """Return how real pictures are as those of the labels that they are taken for: the mean over places, (N,)."""
        real, which = self.nets["discriminator"](self._seen(images))
        return (real.mean(2) * which.softmax(1)).sum(1)


def _of(logits: Tensor, label: Tensor) -> Tensor:
    """Return those logits (N, labels, places) that are of each picture's label, (N, places)."""
    return logits[torch.arange(len(label), device=label.device), label]


def _share_right(which: Tensor, label: Tensor) -> Tensor:
    return (which.argmax(1) == label).float().mean()
