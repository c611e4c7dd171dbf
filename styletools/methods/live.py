"""live: any painting as style, at video rate on a CPU.

A style encoder (a narrow VGG, read as mean and deviation of its layers) turns a style image into a *style
code*; a trunk at a quarter of the resolution repaints the photograph, its normalisation layers scaled and
shifted by that code. Ideas: conditional instance normalisation, arXiv:1610.07629; predicting it for any
style, arXiv:1705.06830; mean and deviation as the style, arXiv:1703.06868; sub-pixel output, arXiv:1609.05158.
Differences: half of the normalisations are replaced by a gain from the code, and the residual blocks are narrow
inside. The style loss of each layer is divided by how far the untouched photograph is from the style, the content
loss by how far a picture that shows something else would be: both are those that the result is scored by. The encoder
looks at what becomes of a test picture with the code that it guesses, and corrects it, as arXiv:2104.02699 corrects
codes of a generator.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, errors, log, losses, stats
from styletools.methods import TEXTURE, Graphs, Method, read_widths
from styletools.nn.mirror import extended
from styletools.nn.narrow import start_narrow
from styletools.nn.norm import conditional_instance_norm
from styletools.nn.precision import has_fast_bfloat16
from styletools.nn.vgg import VGG, VGG19
from styletools.optim import SOAP

APPLIES_TO = "image+style"
TRAINS_ON = "content+styles"

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
WIDTHS = (16, 32, 64, 128)  # channels of the blocks of the style encoder
HIDDEN, RANK = 896, 160  # width of what turns statistics into a code, and of what its second layer goes through
PROBE = 128  # pixels a side of the picture on which the encoder tries a code
LOOKS = 4  # at what becomes of it, each followed by a correction
FARTHEST = 1.0  # that a code is corrected: paintings and photographs need less, and what is neither would run away
LEAVES = 600  # discs that it is made of
CORRECTION = 160  # width of what turns that into one
LEAST = 0.3  # of the typical distance of two styles: a photograph nearer to its style than that counts as so far
NOISE = 2 / 255  # deviation of what a camera adds, and what would shimmer in a video
STEPS, REFINING = 60, 0.05  # of refining a code, and how far the first one moves each number
OPTIMIZERS = {"adam": functools.partial(torch.optim.Adam, betas=(0.9, 0.99)), "soap": SOAP}


@dataclass(frozen=True)
class Config:
    channels: Annotated[int, "width of the trunk"] = 64
    widths: Annotated[str, "widths inside of the trunk's residual blocks"] = "16,32,32,32,16"
    backbone: Annotated[str, "network that judges content and style in training"] = "slim"
    content_weight: Annotated[float, "weight of the content loss"] = 3.0
    style_weight: Annotated[float, "weight of the style loss"] = 14.0
    identity_weight: Annotated[float, "weight of rebuilding a photograph from its own style"] = 2.0
    range_weight: Annotated[float, "weight of values outside [0, 1]"] = 1.0
    tv_weight: Annotated[float, "weight of the total variation"] = 0.05
    grid_weight: Annotated[float, "weight of a pattern that repeats every four pixels"] = 50.0
    noise_weight: Annotated[float, "weight of the gain of noise in the photograph, squared"] = 0.03
    correction_weight: Annotated[float, "weight of how far the encoder corrects its first guess, squared"] = 0.5
    recolour: Annotated[float, "share of the style images that are given other colours, and that are sharpened"] = 0.4
    mixed: Annotated[float, "share of the styles that are a mixture of two images' statistics"] = 0.25
    optimizer: Annotated[str, "adam, or soap: dearer steps, which gain more where adam has long been at work"] = "adam"
    lr: Annotated[float, "learning rate"] = 1e-3


class Trunk(nn.Module):
    """Photograph and code to picture, at a quarter of the resolution.

    The code is (N, code_size): for the stem, each block and the head, one after the other, a scale and a shift per
    channel of its normalisation, and behind those of a block a gain per channel of its branch. No convolution before a
    normalisation has a bias, and no branch one: what is the same in all of a channel is taken away by the next
    normalisation.
    """

    def __init__(self, channels: int, widths: Sequence[int]):
        super().__init__()
        half = channels // 2
        self.stem = _conv(48, channels)
        self.first = nn.ModuleList(_conv(channels, width) for width in widths)
        self.second = nn.ModuleList(_conv(width, channels) for width in widths)
        self.head = _conv(channels, half)
        self.out = nn.Conv2d(half, 12, 3, padding=1, padding_mode="reflect")
        branches = [part for width in widths for part in (width, width, channels)]
        self.parts = [channels, channels, *branches, half, half]
        self.code_size = sum(self.parts)
        with torch.no_grad():
            # The four sub-pixels of a colour start equal, so that no grid is there to be unlearnt (arXiv:1707.02937).
            kernel = torch.empty(3, half, 3, 3)
            nn.init.kaiming_normal_(kernel, nonlinearity="linear")
            self.out.weight.copy_(kernel.repeat_interleave(4, 0) * 0.3)

    def forward(self, images: Tensor, code: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], H and W multiples of 4 and at least 8, and (N or 1, code_size) to a picture."""
        code = iter(code.split(self.parts, 1))
        x = self.stem(F.pixel_unshuffle(images - 0.5, 4))
        x = F.relu(conditional_instance_norm(x, next(code), next(code)))
        for first, second in zip(self.first, self.second):
            y = F.relu(conditional_instance_norm(first(x), next(code), next(code)))
            x = torch.addcmul(x, second(y), 1 + next(code)[:, :, None, None].to(x.dtype))
        # Two steps up: a straight x4 shuffle leaves a grid of 4 pixels.
        x = self.head(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = F.relu(conditional_instance_norm(x, next(code), next(code)))
        return F.pixel_shuffle(self.out(x), 2).float() + 0.5

    def paint(self, levels: Tensor, code: Tensor) -> Tensor:
        """The same as `forward` for one picture in [0, 255], in steps that lose less in 16 bits: for graphs.

        Levels are exact in bfloat16, and values are centred before they are rounded.
        """
        code = iter(code.view(1, -1, 1, 1).split(self.parts, 1))

        def normalized(x: Tensor, eps: float = 1e-5) -> Tensor:
            scale, shift = next(code), next(code)
            return _normalize(x, scale, shift, eps) - _rectified_mean(scale, shift)

        x = normalized(self.stem(F.pixel_unshuffle(levels - 128, 4)), 1e-5 * 255**2)
        for first, second in zip(self.first, self.second):
            x = x + second(normalized(first(x))) * (1 + next(code))
        x = self.head(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = self.out(_normalize(x, next(code), next(code)))
        return (F.pixel_shuffle(x, 2) * 255 + 127.5).clamp(0, 255)


def _normalize(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Conditional instance normalisation, then ReLU; scale and shift are (1, C, 1, 1)."""
    return F.relu(F.instance_norm(x, eps=eps) * (1 + scale) + shift)


def _rectified_mean(scale: Tensor, shift: Tensor) -> Tensor:
    """Return about the mean of what `_normalize` returns, as if it were normally distributed before the ReLU."""
    return (shift + torch.sqrt(shift * shift + (1 + scale) * (1 + scale) * (2 / math.pi))) / 2


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="reflect", bias=False)


class StyleEncoder(nn.Module):
    """A style image to its code: the statistics of a narrow VGG, and a few linear layers that guess.

    Then the code is tried on a picture that is always the same, and two linear layers correct it by how the statistics
    of what comes out differ from those that are wanted.
    """

    def __init__(self, code_size: int):
        super().__init__()
        self.network = VGG(VGG19, WIDTHS, last="relu4_1")
        statistics = 2 * sum(WIDTHS[:4])
        self.register_buffer("centre", torch.zeros(statistics))
        self.register_buffer("spread", torch.ones(statistics))
        self.register_buffer("probe", torch.zeros(1, 3, PROBE, PROBE))
        self.hidden = nn.Linear(statistics, HIDDEN)
        self.deeper = nn.Sequential(nn.Linear(HIDDEN, RANK, bias=False), nn.Linear(RANK, HIDDEN))
        self.code = nn.Linear(HIDDEN, code_size)
        self.wrong = nn.Linear(statistics, CORRECTION)
        self.gate = nn.Linear(HIDDEN, CORRECTION)
        self.correction = nn.Linear(CORRECTION, code_size)
        nn.init.normal_(self.code.weight, 0, 0.01)
        for layer in (self.deeper[1], self.gate, self.correction):
            nn.init.zeros_(layer.weight)
        for layer in (self.deeper[1], self.code, self.gate, self.correction):
            nn.init.zeros_(layer.bias)

    def statistics(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return mean and deviation of every channel of STYLE_LAYERS."""
        features = self.network(images, STYLE_LAYERS)
        return {layer: stats.mean_std(features[layer]) for layer in STYLE_LAYERS}

    def normal(self, statistics: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Return statistics as (N, statistics), about as `initialize` found them with mean 0 and deviation 1."""
        return (torch.cat([each for pair in statistics.values() for each in pair], 1) - self.centre) / self.spread

    def forward(self, statistics: dict[str, tuple[Tensor, Tensor]], trunk: Trunk) -> tuple[Tensor, Tensor]:
        """Return the code with which such a trunk gives pictures these statistics, and the first guess: in float32."""
        wanted = self.normal(statistics)
        hidden = F.leaky_relu(self.hidden(wanted), 0.1)
        hidden = hidden + F.leaky_relu(self.deeper(hidden), 0.1)
        code = guess = self.code(hidden).float()
        gate = 1 + self.gate(hidden)  # what helps against an error differs from style to style
        probes = self.probe.expand(len(wanted), -1, -1, -1)
        for _ in range(LOOKS):
            with torch.no_grad():  # a correction need not be to the liking of the next look
                found = self.normal(self.statistics(trunk(probes, code).clamp(0, 1)))
            code = code + self.correction(gate * F.leaky_relu(self.wrong(found - wanted), 0.1)).float()
            if not self.training:  # while learning, it must find the way back
                code = guess + (code - guess).clamp(-FARTHEST, FARTHEST)
        return code, guess


class Live(Method):
    """Arbitrary style transfer by a code of scales and shifts."""

    keep = ("trunk", "encoder")
    coarse = ("encoder",)
    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        if config.optimizer not in OPTIMIZERS:
            raise errors.UsageError(f"optimizer={config.optimizer}: {' or '.join(OPTIMIZERS)} expected")
        self.config = config
        trunk = Trunk(config.channels, read_widths(config.widths, Config.widths))
        self.nets = nn.ModuleDict(
            {"trunk": trunk, "encoder": StyleEncoder(trunk.code_size), "scales": _Scales(len(STYLE_LAYERS))}
        )
        self._judge = None
        self._fitted = self._seen = ()  # the photographs that a code was fitted to last, and what the judge saw of them

    def initialize(self, batch):
        """Start the encoder from slim, and its input from mean 0 and deviation 1, as measured on a first batch."""
        encoder = self.nets["encoder"]
        start_narrow(encoder.network, [backbones.load("slim", device=self.device).network], batch["style"])
        encoder.probe.copy_(_dead_leaves(PROBE))
        with torch.no_grad():
            statistics = encoder.normal(encoder.statistics(batch["style"]))
            encoder.centre.copy_(statistics.mean(0))
            encoder.spread.copy_(statistics.std(0) + 0.05 * statistics.std(0).mean() + 1e-3)

    def optimizers(self):
        encoder = self.nets["encoder"]
        pretrained = list(encoder.network.parameters())
        fresh = [each for name, each in self.nets.named_parameters() if not name.startswith("encoder.network.")]
        groups = [{"params": fresh, "lr": self.config.lr}, {"params": pretrained, "lr": 0.1 * self.config.lr}]
        return {"live": OPTIMIZERS[self.config.optimizer](groups)}

    def _look(self, images: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Return what the judge sees of images: relu4_1 in float32, and mean and deviation of every style layer."""
        if self._judge is None:
            self._judge = backbones.load(self.config.backbone, device=self.device)
            self._judge.to(memory_format=torch.channels_last)
        features = self._judge.lift_deep(self._judge(images, STYLE_LAYERS))
        return features["relu4_1"].float(), losses.mean_std_by_layer(features)

    def _encode(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to codes, (N, code_size)."""
        encoder = self.nets["encoder"]
        return encoder(encoder.statistics(images), self.nets["trunk"])[0]

    def _losses(self, batch, learn: bool, identity: bool = True) -> dict[str, Tensor]:
        """The losses; with `identity` the first photograph is given itself as style, and must come back."""
        content, style = batch["content"], batch["style"].clone()
        if learn:
            style = _recoloured(_sharpened(style, self.config.recolour), self.config.recolour)
        if identity:
            style[0] = content[0]
        encoder = self.nets["encoder"]
        wanted = encoder.statistics(style)
        with torch.no_grad():
            seen = self._look(content)
            _, targets = self._look(style)
            if learn:
                self.nets["scales"].learn(targets)
        if learn:
            wanted, targets = _some_mixed([wanted, targets], self.config.mixed, keep=1 if identity else 0)
        code, guess = encoder(wanted, self.nets["trunk"])
        output, named = self._compare(content, seen, code, targets)
        named["correction"] = (code - guess).square().mean()
        if identity:
            named["identity"] = (output[:1] - content[:1]).abs().mean()
        return {"loss": self._total(named)} | named

    def _total(self, named: dict[str, Tensor]) -> Tensor:
        return sum(getattr(self.config, f"{name}_weight") * value for name, value in named.items())

    def _compare(self, content, seen, code, targets) -> tuple[Tensor, dict[str, Tensor]]:
        """Return pictures made of photographs, of which the judge has `seen` so much, and what is wrong with them."""
        (shown, before), output = seen, self.nets["trunk"](content, code)
        deep, found = self._look(output)
        left = [
            losses.mean_std_distance(found[k], targets[k])
            / losses.mean_std_distance(before[k], targets[k]).clamp_min(LEAST * typical)
            for k, typical in zip(STYLE_LAYERS, self.nets["scales"].distance)
        ]
        gone = (deep - shown).square().mean((1, 2, 3))
        return output, {
            "content": (gone / _unrelated(before["relu4_1"], targets["relu4_1"])).mean(),
            "style": torch.stack(left).mean(),
            "range": losses.out_of_range(output),
            "tv": losses.total_variation(output),
            "grid": losses.grid(output, content),
            "noise": self._noise_gain(content, code, output),
        }

    def _noise_gain(self, content: Tensor, code: Tensor, output: Tensor) -> Tensor:
        """Return how much larger faint noise comes out than it went in, squared, over half of the batch."""
        half = slice(len(content) // 2, None)
        noise = torch.randn(content[half].shape).to(content.device) * NOISE
        change = self.nets["trunk"](content[half] + noise, code[half] if len(code) > 1 else code) - output[half]
        return change.square().mean() / NOISE**2

    def train_step(self, batch, optimizers, step):
        named = self._losses(batch, learn=True, identity=step % 2 == 0)
        self.update(optimizers["live"], named["loss"])
        return named

    @torch.no_grad()
    def validate(self, batch):
        return self._losses(batch, learn=False)

    def encode_style(self, images, weights):
        codes = [{"code": self._encode(image)[0]} for image in images]
        return stats.merge(codes, weights)

    def refine(self, record, images, weights, photographs):
        """Follow the gradient of the losses from the code that the encoder guesses, a photograph a step."""
        if self._judge is None and not backbones.at_hand(self.config.backbone):
            log.info(f"the weights of {self.config.backbone} are not at hand: {backbones.DEFAULT} judges")
            self.config = dataclasses.replace(self.config, backbone=backbones.DEFAULT)
        self.nets.requires_grad_(False)
        torch.manual_seed(0)  # for the noise, so that the same record comes out
        code = record["code"].detach().float().view(1, -1).clone().requires_grad_()
        optimizer = torch.optim.Adam([code], lr=REFINING, betas=(0.8, 0.99))
        with torch.autocast(code.device.type, torch.bfloat16, enabled=has_fast_bfloat16(code.device)):
            with torch.no_grad():
                looks = [{layer: torch.stack(pair) for layer, pair in self._look(image)[1].items()} for image in images]
                targets = stats.merge(looks, weights)
                if self._fitted is not photographs:
                    self._fitted, self._seen = photographs, [self._look(photograph) for photograph in photographs]
                seen = self._seen
                apart = [[losses.mean_std_distance(s[k], targets[k]).mean() for _, s in seen] for k in STYLE_LAYERS]
                self.nets["scales"].distance.copy_(torch.tensor(apart).mean(1))
            for step in range(STEPS):
                optimizer.param_groups[0]["lr"] = REFINING * (1 - step / STEPS)
                number = step % len(photographs)
                _, named = self._compare(photographs[number], seen[number], code, targets)
                optimizer.zero_grad()
                self._total(named).backward()
                optimizer.step()
        return {"code": code.detach()[0]}

    def apply(self, image, *, style=None, alpha=1.0):
        code = style["code"].to(image.device).view(1, -1)
        if alpha != 1.0:
            # Towards the code of the photograph itself, with which it is rebuilt as it is.
            code = torch.lerp(self._encode(_with_texture(image)), code, alpha)
        return self.nets["trunk"](image, code).clamp(0, 1)

    def graphs(self):
        def encode(image):
            return {"code": self._encode(image / 255)[0]}

        return Graphs(self.nets["trunk"].paint, encode, alpha="style")


def _with_texture(image: Tensor) -> Tensor:
    """Return a photograph mirrored where it is too small to take its style from; a part of one is left as it is."""
    return image if stats.are_taken() else extended(image, [max(side, TEXTURE) for side in image.shape[-2:]])


def _dead_leaves(side: int) -> Tensor:
    """Return (1, 3, side, side) in [0, 1], in steps of 1/256: discs in front of one another, some shaded, some striped.

    Sizes are spread as those of things in photographs are, so that it is as coarse and as fine (the dead leaves model:
    Lee, Mumford, Huang, 2001).
    """
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    picture = torch.full((3, side, side), 0.5)
    least, most = side / 50, side / 2.5
    for _ in range(LEAVES):
        size, left, top, grey, shade, stripe, turn, tilt, pitch, *tint = torch.rand(12, generator=generator).tolist()
        radius = (size / least**2 + (1 - size) / most**2) ** -0.5
        across, down = (x - (1.2 * left - 0.1) * side), (y - (1.2 * top - 0.1) * side)
        colour = grey + 0.35 * (torch.tensor(tint) - 0.5)[:, None, None]
        slope = across * math.cos(turn * math.tau) + down * math.sin(turn * math.tau)
        waves = across * math.cos(tilt * math.tau) + down * math.sin(tilt * math.tau)
        leaf = colour + 0.15 * shade * slope / radius + 0.12 * stripe**2 * torch.sin((0.2 + 1.3 * pitch) * waves)
        picture = torch.where(across**2 + down**2 < radius**2, leaf, picture)
    return (picture.clamp(0, 1)[None] * 256).round() / 256


def _unrelated(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean squared difference of features of these (means, deviations), (N, C), that know no other: (N,)."""
    return ((a[0] - b[0]).square() + a[1].square() + b[1].square()).mean(1)


def _recoloured(images: Tensor, share: float) -> Tensor:
    """Return images of which a random share has other colours: hue, saturation, contrast and brightness.

    There are more ways to colour a picture than paintings to learn from. A few become negatives, and a few black and
    white with little between.
    """
    count = len(images)
    grey = images.mean(1, keepdim=True)
    mean = images.mean((1, 2, 3), keepdim=True)
    random = torch.rand(count, 7).to(images.device)[..., None, None, None]
    angle = (random[:, 0, :, 0, 0] * 2 - 1) * math.pi
    # A rotation about the grey axis turns hues and keeps the mean of the channels.
    cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
    third = torch.full((3, 3), 1 / 3, device=images.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=images.device) / math.sqrt(3)
    turn = cosine * torch.eye(3, device=images.device) + sine * cross + (1 - cosine) * third
    chroma = torch.einsum("nij,njhw->nihw", turn, images - grey)
    saturation, contrast = (0.6 + 1.2 * random[:, i] for i in (1, 2))
    brightness = (random[:, 3] - 0.5) * 0.3
    changed = mean + brightness + (grey - mean) * contrast + chroma * saturation
    changed = torch.where(random[:, 5] < 0.2, torch.sigmoid((grey - mean) * (4 + 8 * random[:, 6])), changed)
    changed = torch.where(random[:, 5] > 0.9, 1 - changed, changed).clamp(0, 1)
    return torch.where(random[:, 4] < share, changed, images)


def _sharpened(images: Tensor, share: float) -> Tensor:
    """Return images of which a random share is sharpened, as pictures scaled down are."""
    random = torch.rand(len(images), 2).to(images.device)[..., None, None, None]
    fine = images - F.avg_pool2d(F.pad(images, (1,) * 4, mode="reflect"), 3, 1)
    return torch.where(random[:, 0] < share, (images + 1.5 * random[:, 1] * fine).clamp(0, 1), images)


def _some_mixed(statistics: list[dict[str, tuple[Tensor, Tensor]]], share: float, keep: int) -> list[dict]:
    """Mix a random share of styles with the next one's: the statistics of both images put side by side.

    statistics: of one or more networks, {layer: (means, deviations)}, (N, C) each. keep: so many stay as they are.
    """
    count, device = next((len(x), x.device) for x, _ in statistics[0].values())
    random = torch.rand(count, 2).to(device)
    chosen = (random[:, :1] < share) & (torch.arange(count, device=device)[:, None] >= keep)
    part = torch.where(chosen, random[:, 1:], 0)

    def mixed(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        moments = [torch.lerp(x, x.roll(-1, 0), part) for x in (mean, std * std + mean * mean)]
        return moments[0], (moments[1] - moments[0].square()).clamp_min(stats.EPS).sqrt()

    return [{layer: mixed(*pair) for layer, pair in each.items()} for each in statistics]


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
