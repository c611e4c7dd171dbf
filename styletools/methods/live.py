"""live: any painting as style, at video rate on a CPU.

A style encoder (a narrow VGG, read as mean and deviation of its layers) turns a style image into a *style
code*; a trunk at a quarter of the resolution repaints the photograph, its normalisation layers scaled and
shifted by that code. Ideas: conditional instance normalisation, arXiv:1610.07629; predicting it for any
style, arXiv:1705.06830; mean and deviation as the style, arXiv:1703.06868; sub-pixel output, arXiv:1609.05158.
Differences: half of the normalisations are replaced by a gain and a bias from the code, since they cost more
than the convolutions; the style loss of each layer is divided by the typical distance of two paintings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, losses, stats
from styletools.methods import Graphs, Method
from styletools.nn.narrow import start_narrow
from styletools.nn.norm import conditional_instance_norm
from styletools.nn.vgg import VGG, VGG19

APPLIES_TO = "image+style"
TRAINS_ON = "content+styles"

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
LAYER_WEIGHTS = (0.4, 0.8, 1.2, 1.6)  # strokes and shapes live in the deeper layers; colours come of themselves
WIDTHS = (16, 32, 64, 128)  # channels of the blocks of the style encoder
NOISE = 2 / 255  # deviation of what a camera adds, and what would shimmer in a video


@dataclass(frozen=True)
class Config:
    channels: Annotated[int, "width of the trunk"] = 64
    blocks: Annotated[int, "residual blocks of the trunk"] = 5
    backbone: Annotated[str, "network that judges content and style in training"] = "slim"
    content_weight: Annotated[float, "weight of the content loss"] = 1.3
    style_weight: Annotated[float, "weight of the style loss"] = 30.0
    identity_weight: Annotated[float, "weight of rebuilding a photograph from its own style"] = 2.0
    range_weight: Annotated[float, "weight of values outside [0, 1]"] = 1.0
    tv_weight: Annotated[float, "weight of the total variation"] = 0.05
    grid_weight: Annotated[float, "weight of a pattern that repeats every four pixels"] = 50.0
    noise_weight: Annotated[float, "weight of the gain of noise in the photograph, squared"] = 0.03
    recolour: Annotated[float, "share of the style images that are given other colours"] = 0.4
    lr: Annotated[float, "learning rate of Adam"] = 1e-3


class Trunk(nn.Module):
    """Photograph and code to picture, at a quarter of the resolution.

    The code is (N, code_size): for every normalisation a scale and a shift per channel, for every residual
    branch a gain and a bias per channel, and a scale and a shift for the half-resolution head.
    """

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.channels, self.blocks = channels, blocks
        self.stem = nn.Conv2d(48, channels, 3, padding=1, padding_mode="reflect")
        self.first = nn.ModuleList(_conv(channels, channels) for _ in range(blocks))
        self.second = nn.ModuleList(_conv(channels, channels) for _ in range(blocks))
        self.head = _conv(channels, channels // 2)
        self.out = _conv(channels // 2, 12)
        self.code_size = 2 * channels * (1 + 2 * blocks) + channels
        with torch.no_grad():
            # The four sub-pixels of a colour start equal, so that no grid is there to be unlearnt (arXiv:1707.02937).
            kernel = torch.empty(3, channels // 2, 3, 3)
            nn.init.kaiming_normal_(kernel, nonlinearity="linear")
            self.out.weight.copy_(kernel.repeat_interleave(4, 0) * 0.3)

    def forward(self, images: Tensor, code: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], H and W multiples of 4 and at least 8, and (N or 1, code_size) to a picture."""
        width = self.channels
        pairs = code[:, : 2 * width * (1 + 2 * self.blocks)].view(len(code), -1, 2, width)
        head = code[:, -width:].view(len(code), 2, width // 2)
        x = self.stem(F.pixel_unshuffle(images - 0.5, 4))
        x = F.relu(conditional_instance_norm(x, pairs[:, 0, 0], pairs[:, 0, 1]))
        for i, (first, second) in enumerate(zip(self.first, self.second)):
            scale, shift = pairs[:, 1 + 2 * i].unbind(1)
            gain, bias = (p[:, :, None, None].to(x.dtype) for p in pairs[:, 2 + 2 * i].unbind(1))
            y = F.relu(conditional_instance_norm(first(x), scale, shift))
            x = torch.addcmul(x, second(y), 1 + gain) + bias
        # Two steps up: a straight x4 shuffle leaves a grid of 4 pixels.
        x = self.head(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = F.relu(conditional_instance_norm(x, head[:, 0], head[:, 1]))
        return F.pixel_shuffle(self.out(x), 2).float() + 0.5

    def paint(self, levels: Tensor, code: Tensor) -> Tensor:
        """The same as `forward` for one picture in [0, 255], in steps that lose less in 16 bits: for graphs.

        Levels are exact in bfloat16. What is the same in all of a channel is taken away by the next normalisation,
        through which all but the last goes: so there are no biases, and values are centred before they are rounded.
        """
        width = self.channels
        rows = code.view(-1, width)

        def row(number: int) -> Tensor:
            return rows[number].view(1, width, 1, 1)

        x = _without_bias(self.stem, F.pixel_unshuffle(levels - 128, 4))
        x = _normalize(x, row(0), row(1), 1e-5 * 255**2) - _rectified_mean(row(0), row(1))
        for i, (first, second) in enumerate(zip(self.first, self.second)):
            scale, shift = row(2 + 4 * i), row(3 + 4 * i)
            y = _normalize(_without_bias(first, x), scale, shift) - _rectified_mean(scale, shift)
            x = x + _without_bias(second, y) * (1 + row(4 + 4 * i))
        x = _without_bias(self.head, F.interpolate(x, scale_factor=2, mode="nearest"))
        head = rows[2 + 4 * self.blocks].view(2, 1, width // 2, 1, 1)
        x = self.out(_normalize(x, head[0], head[1]))
        return (F.pixel_shuffle(x, 2) * 255 + 127.5).clamp(0, 255)


def _without_bias(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), conv.weight)


def _normalize(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Conditional instance normalisation, then ReLU; scale and shift are (1, C, 1, 1)."""
    return F.relu(F.instance_norm(x, eps=eps) * (1 + scale) + shift)


def _rectified_mean(scale: Tensor, shift: Tensor) -> Tensor:
    """Return about the mean of what `_normalize` returns, as if it were normally distributed before the ReLU."""
    return (shift + torch.sqrt(shift * shift + (1 + scale) * (1 + scale) * (2 / math.pi))) / 2


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="reflect")


class StyleEncoder(nn.Module):
    """A style image to its code: the statistics of a narrow VGG, then two linear layers."""

    def __init__(self, code_size: int):
        super().__init__()
        self.network = VGG(VGG19, WIDTHS, last="relu4_1")
        statistics = 2 * sum(WIDTHS[:4])
        self.register_buffer("centre", torch.zeros(statistics))
        self.register_buffer("spread", torch.ones(statistics))
        self.hidden = nn.Linear(statistics, 384)
        self.code = nn.Linear(384, code_size)
        nn.init.normal_(self.code.weight, 0, 0.01)
        nn.init.zeros_(self.code.bias)

    def statistics(self, images: Tensor) -> Tensor:
        """Return mean and deviation of every channel of STYLE_LAYERS, as (N, statistics)."""
        features = self.network(images, STYLE_LAYERS)
        return torch.cat([torch.cat(stats.mean_std(features[layer]), 1) for layer in STYLE_LAYERS], 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, code_size) in float32."""
        statistics = (self.statistics(images) - self.centre) / self.spread
        return self.code(F.leaky_relu(self.hidden(statistics), 0.1)).float()


class Live(Method):
    """Arbitrary style transfer by a code of scales and shifts."""

    keep = ("trunk", "encoder")
    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        trunk = Trunk(config.channels, config.blocks)
        self.nets = nn.ModuleDict(
            {"trunk": trunk, "encoder": StyleEncoder(trunk.code_size), "scales": _Scales(len(STYLE_LAYERS))}
        )
        self._judge = None

    def initialize(self, batch):
        """Start the encoder from slim, and its input from mean 0 and deviation 1, as measured on a first batch."""
        encoder = self.nets["encoder"]
        start_narrow(encoder.network, [backbones.load("slim", device=self.device).network], batch["style"])
        with torch.no_grad():
            statistics = encoder.statistics(batch["style"])
            encoder.centre.copy_(statistics.mean(0))
            encoder.spread.copy_(statistics.std(0) + 0.05 * statistics.std(0).mean() + 1e-3)

    def optimizers(self):
        encoder = self.nets["encoder"]
        pretrained = list(encoder.network.parameters())
        fresh = [*self.nets["trunk"].parameters(), *encoder.hidden.parameters(), *encoder.code.parameters()]
        groups = [{"params": fresh, "lr": self.config.lr}, {"params": pretrained, "lr": 0.1 * self.config.lr}]
        return {"live": torch.optim.Adam(groups, betas=(0.9, 0.99))}

    def _features(self, images: Tensor, layers: Sequence[str] = STYLE_LAYERS) -> dict[str, Tensor]:
        """Return what the judge sees of images, in float32."""
        if self._judge is None:
            self._judge = backbones.load(self.config.backbone, device=self.device)
            self._judge.to(memory_format=torch.channels_last)
        return self._judge.lift_deep(self._judge(images, layers))

    def _losses(self, batch, learn: bool, identity: bool = True) -> dict[str, Tensor]:
        """The losses; with `identity` the first photograph is given itself as style, and must come back."""
        content, style = batch["content"], batch["style"].clone()
        if learn:
            style = _recoloured(style, self.config.recolour)
        if identity:
            style[0] = content[0]
        with torch.no_grad():
            content_features = self._features(content, ["relu4_1"])["relu4_1"]
            targets = losses.mean_std_by_layer(self._features(style))
            if learn:
                self.nets["scales"].learn(targets)
        code = self.nets["encoder"](style)
        output = self.nets["trunk"](content, code)
        features = self._features(output)
        found = losses.mean_std_by_layer(features)
        by_layer = torch.stack([losses.mean_std_distance(found[k], targets[k]).mean() for k in STYLE_LAYERS])
        relative = by_layer / self.nets["scales"].distance
        named = {
            "content": losses.adain_content(features["relu4_1"], content_features, targets["relu4_1"]),
            "style": (relative * relative.new_tensor(LAYER_WEIGHTS)).mean(),
            "range": losses.out_of_range(output),
            "tv": losses.total_variation(output),
            "grid": losses.grid(output, content),
            "noise": self._noise_gain(content, code, output),
        }
        if identity:
            named["identity"] = (output[:1] - content[:1]).abs().mean()
        total = sum(getattr(self.config, f"{name}_weight") * value for name, value in named.items())
        return {"loss": total} | named

    def _noise_gain(self, content: Tensor, code: Tensor, output: Tensor) -> Tensor:
        """Return how much larger faint noise comes out than it went in, squared, over half of the batch."""
        half = slice(len(content) // 2, None)
        noise = torch.randn(content[half].shape).to(content.device) * NOISE
        change = self.nets["trunk"](content[half] + noise, code[half]) - output[half]
        return change.square().mean() / NOISE**2

    def train_step(self, batch, optimizers, step):
        named = self._losses(batch, learn=True, identity=step % 2 == 0)
        self.update(optimizers["live"], named["loss"])
        return named

    @torch.no_grad()
    def validate(self, batch):
        return self._losses(batch, learn=False)

    def encode_style(self, images, weights):
        codes = [{"code": self.nets["encoder"](image)[0]} for image in images]
        return stats.merge(codes, weights)

    def apply(self, image, *, style=None, alpha=1.0):
        code = style["code"].to(image.device).view(1, -1)
        if alpha != 1.0:
            # Towards the code of the photograph itself, with which it is rebuilt as it is.
            code = torch.lerp(self.nets["encoder"](image), code, alpha)
        return self.nets["trunk"](image, code).clamp(0, 1)

    def graphs(self):
        def encode(image):
            return {"code": self.nets["encoder"](image / 255)[0]}

        return Graphs(self.nets["trunk"].paint, encode, alpha="style")


def _recoloured(images: Tensor, share: float) -> Tensor:
    """Return images of which a random share has other colours: hue, saturation, contrast and brightness.

    There are more ways to colour a picture than paintings to learn from.
    """
    count = len(images)
    grey = images.mean(1, keepdim=True)
    mean = images.mean((1, 2, 3), keepdim=True)
    random = torch.rand(count, 5).to(images.device)
    angle = (random[:, 0] * 2 - 1) * math.pi
    # A rotation about the grey axis turns hues and keeps the mean of the channels.
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    third = torch.full((3, 3), 1 / 3, device=images.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=images.device) / math.sqrt(3)
    turn = cosine * torch.eye(3, device=images.device) + sine * cross + (1 - cosine) * third
    chroma = torch.einsum("nij,njhw->nihw", turn, images - grey)
    saturation, contrast = (0.6 + 1.2 * random[:, i, None, None, None] for i in (1, 2))
    brightness = (random[:, 3, None, None, None] - 0.5) * 0.3
    changed = (mean + brightness + (grey - mean) * contrast + chroma * saturation).clamp(0, 1)
    chosen = (random[:, 4] < share)[:, None, None, None]
    return torch.where(chosen, changed, images)


class _Scales(nn.Module):
    """The typical distance of two style images per layer: a running mean over the batches of training."""

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("distance", torch.ones(count))
        self.register_buffer("batches", torch.zeros(()))

    def learn(self, targets: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Take in the statistics of one batch; one of a single image tells no distance."""
        if len(targets[STYLE_LAYERS[0]][0]) < 2:
            return
        now = torch.stack(
            [losses.mean_std_distance(targets[k], tuple(t.roll(1, 0) for t in targets[k])).mean() for k in STYLE_LAYERS]
        )
        self.batches += 1
        self.distance += (now - self.distance) / self.batches.clamp(max=500)
