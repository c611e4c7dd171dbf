"""gatys: the picture itself is optimised until its features have the content's layout and the style's correlations.

Paper: arXiv:1508.06576 (Gatys, Ecker and Bethge, 2015). Differences: every loss is relative (the squared error
over the mean square of its target), so that layers and backbones of any width count alike and a weight means the
same for all of them; beside the Gram matrices, whose few large entries drown the rest, each channel's mean and
deviation counts (arXiv:1703.06868); the content layer is relu4_1 instead of relu4_2, since published cuts of VGG-19
end there; the work goes from coarse to fine, with the same target statistics at all sizes, which paints in large
strokes first; L-BFGS takes slow changes over the picture for the likelier ones; features are in bfloat16 where that
is fast; and VGG-19 does the last size where its weights are at hand.
"""

import copy
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, errors, log, losses, stats, streams
from styletools.backbones._backbone import Backbone
from styletools.methods import Method
from styletools.nn.precision import has_fast_bfloat16

APPLIES_TO = "image+style"
TRAINS_ON = "nothing"

SMALLEST = 64  # a coarser size whose short side would have fewer pixels is left out
HISTORY = 10  # pairs that L-BFGS remembers: each costs two pictures of memory and four passes over them a step
SLACK = 1.2  # a step may raise the loss by this factor: to insist on less costs more than it saves
FIRST = 0.01  # how far the first step of L-BFGS, which knows no curvature, moves values on average
LONGEST = 0.1  # how far any step does at most (RMS)
FINISH = "vgg19"  # what `finish=auto` means for slim, which stands in for it


@dataclass(frozen=True)
class Config:
    backbone: Annotated[str, "network that extracts the features"] = "slim"
    finish: Annotated[str, "network for the last size; auto: vgg19 after slim, if its weights are there; none"] = "auto"
    content_layer: Annotated[str, "layer whose features keep the content"] = "relu4_1"
    style_layers: Annotated[str, "layers whose Gram matrices are the style"] = "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1"
    content_weight: Annotated[float, "weight of the content loss"] = 1.0
    style_weight: Annotated[float, "weight of the Gram matrices"] = 30.0
    spread_weight: Annotated[float, "weight of the features' means and deviations"] = 30.0
    tv_weight: Annotated[float, "weight of the total variation"] = 0.1
    steps: Annotated[int, "evaluations of the losses, over all sizes"] = 100
    optimizer: Annotated[str, "lbfgs or adam"] = "lbfgs"
    lr: Annotated[float, "step size; 0: 1 for lbfgs, 0.02 for adam"] = 0.0
    start: Annotated[str, "first picture: content, noise, or the path of an image"] = "content"
    scales: Annotated[int, "sizes from coarse to fine, each twice the one before"] = 3
    seed: Annotated[int, "seed of the noise to start from"] = 0
    precise: Annotated[bool, "features in float32 even where bfloat16 is faster"] = False


@dataclass
class _Space:
    """A backbone, the style layers that it has, and under which names a style record keeps their statistics."""

    network: Backbone
    layers: list[str]
    prefix: str = ""
    quick: Backbone | None = None  # the same in bfloat16
    metrics: dict[str, Tensor | None] = field(default_factory=dict)

    def style(self, layer: str, average: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a layer's statistics say of style: the moments, and means and deviations as (2, C).

        Means and deviations are those of the network that `lift` leads to. For W f + b they follow from mean and moment
        of f alone; for the ReLU after it they are taken as of normal values cut off at 0: lifting the features
        themselves took 2.4 times as long. The moments are those of f and a constant 1, whence W f + b is linear.
        """
        heads = self.network.heads
        if layer not in heads:
            return second, torch.stack([average, stats.std_from_moment(average, second)])
        weight, bias = heads[layer].weight.flatten(1), heads[layer].bias
        joint = torch.cat([torch.cat([second, average[:, None]], 1), torch.cat([average, average.new_ones(1)])[None]])
        mean = weight @ average + bias
        variance = ((weight @ (second - torch.outer(average, average))) * weight).sum(1)
        std = (variance.clamp_min(0) + stats.EPS).sqrt()
        return joint, torch.stack(stats.rectified_normal(mean, std))

    def metric(self, layer: str) -> Tensor | None:
        """Return WᵀW of the linear map that `lift` begins with, the constant 1 included; None where there is none."""
        if layer not in self.metrics:
            heads, metric = self.network.heads, None
            if layer in heads:
                weight = torch.cat([heads[layer].weight.flatten(1), heads[layer].bias[:, None]], 1)
                metric = weight.T @ weight
            self.metrics[layer] = metric
        return self.metrics[layer]


class Gatys(Method):
    """Style transfer by optimisation of the pixels: no training, any style, minutes instead of milliseconds."""

    half = False
    iterative = True

    def __init__(self, config: Config):
        self.config = config
        self.nets = nn.ModuleDict()
        self._spaces: dict[str, _Space] = {}
        self._style_layers = [layer.strip() for layer in config.style_layers.split(",") if layer.strip()]
        for name in {config.backbone, config.finish} - {"auto", "none"}:
            backbones.check(name, [config.content_layer])
            if config.style_layers != Config.style_layers:
                backbones.check(name, self._style_layers)
        if not self._style_layers:
            raise errors.UsageError("style_layers names no layer")
        if config.optimizer not in ("lbfgs", "adam"):
            raise errors.UsageError(f"optimizer={config.optimizer}: lbfgs or adam expected")
        if config.steps < 1 or config.scales < 1:
            raise errors.UsageError("steps and scales must be at least 1")

    def to(self, device):
        """Move to a device; returns itself."""
        self._spaces.clear()
        return super().to(device)

    def _space(self, name: str) -> _Space:
        """Return a backbone, loaded on first use, and settle which style layers there are."""
        if name not in self._spaces:
            network = backbones.load(name, device=self.device)
            layers = [layer for layer in self._style_layers if layer in network.layers]
            missing = ", ".join(layer for layer in self._style_layers if layer not in layers)
            if missing and self.config.style_layers == Config.style_layers:
                log.warning(f"{network.name} without {missing}: the weights stop at {network.layers[-1]}")
            elif missing:
                raise errors.Unavailable(
                    f"{missing} of {network.name} is not to be had: "
                    f"the weights in {network.source} stop at {network.layers[-1]}"
                )
            network = network.to(memory_format=torch.channels_last)
            space = _Space(network, layers, "" if name == self.config.backbone else f"{name}.")
            if not self.config.precise and has_fast_bfloat16(torch.device(self.device)):
                space.quick = copy.deepcopy(network).to(torch.bfloat16)
            self._spaces[name] = space
        return self._spaces[name]

    def _finisher(self) -> str:
        """Return the name of the network that does the last size."""
        config = self.config
        if config.finish == "auto":
            there = config.backbone == "slim" and backbones.at_hand(FINISH)
            return FINISH if there else config.backbone
        return config.backbone if config.finish == "none" else config.finish

    def _features(self, image: Tensor, space: _Space, exact: bool = False) -> dict[str, Tensor]:
        """Return the features that count; `exact`: in float32 in any case."""
        network = space.network if exact or space.quick is None else space.quick
        image = image.to(network.network.mean.dtype).contiguous(memory_format=torch.channels_last)
        return network(image, {*space.layers, self.config.content_layer})

    @torch.no_grad()
    def encode_style(self, images, weights):
        """Return {"<layer>.mean": (C,), "<layer>.moment": (C, C)} of style images, merged by `weights`.

        Where another network does the last size, its own are there, too: "<backbone>.<layer>.mean" and so on.
        """
        spaces = [self._space(name) for name in dict.fromkeys([self.config.backbone, self._finisher()])]
        records = []
        for image in images:
            record = {}
            for space in spaces:
                features = self._features(image.to(self.device), space, exact=True)
                for layer in space.layers:
                    record[f"{space.prefix}{layer}.mean"] = stats.mean(features[layer])[0]
                    record[f"{space.prefix}{layer}.moment"] = stats.moment(features[layer])[0]
            records.append(record)
        return stats.merge(records, weights)

    def apply(self, image, *, style=None, alpha=1.0):
        """Restyle (N, 3, H, W) RGB in [0, 1], one after another.

        style: what `encode_style` returns, or the statistics of the same layers and backbone from elsewhere; of those
        that tell nothing of the network for the last size, the first network does all. alpha: where between the
        content's own statistics (0: the picture comes back as it is) and the style's (1) the target lies. Raises
        DoesNotFit when the style lacks a layer or has other channels.
        """
        if not 0 <= alpha <= 1:
            raise errors.UsageError(f"alpha={alpha}: a number from 0 to 1 expected")
        if alpha == 0:
            return image.clone()
        style = style or {}
        names = [self.config.backbone]
        if (last := self._finisher()) not in names:
            if any(key.startswith(f"{last}.") for key in style):
                names.append(last)
            else:
                log.warning(f"the style says nothing of {last}: {names[0]} does all of the work")
        wanted = [self._wanted(self._space(name), style) for name in names]
        done = [self._restyle(one[None], [self._space(name) for name in names], wanted, alpha)
                for one in image.to(self.device)]  # fmt: skip
        return torch.cat(done).to(image.device)

    def _wanted(self, space: _Space, style: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return {layer: (mean (C,), raw second moment (C, C))} of a style record."""
        wanted = {}
        for layer in space.layers:
            keys = [f"{space.prefix}{layer}.{kind}" for kind in ("mean", "moment")]
            if not style.keys() >= {*keys}:
                held = sorted({key.rpartition(".")[0] for key in style if key.endswith(".moment")})
                raise errors.DoesNotFit(
                    f"the style has no statistics of {space.prefix}{layer} (it has {', '.join(held) or 'none'})"
                )
            average, second = (style[key].to(self.device).float() for key in keys)
            channels = space.network.network.convs[layer.replace("relu", "conv")].out_channels
            if average.shape != (channels,) or second.shape != (channels, channels):
                raise errors.DoesNotFit(
                    f"the style's statistics of {layer} are not of {space.network.name}, which has {channels} channels"
                )
            wanted[layer] = average, second
        return wanted

    def _restyle(self, content: Tensor, spaces: list[_Space], wanted: list[dict], alpha: float) -> Tensor:
        """Restyle one picture (1, 3, H, W), from the coarsest size to its own, which is the last network's."""
        height, width = content.shape[-2:]
        scales = self.config.scales
        while scales > 1 and min(height, width) >> (scales - 1) < SMALLEST:
            scales -= 1
        # Each size gets half as many steps again as the one before it, though a step there takes four times as long.
        shares = [1.5**i for i in range(scales)]
        counts = [round(self.config.steps * share / sum(shares)) for share in shares]
        counts[-1] = max(self.config.steps - sum(counts[:-1]), 1)
        picture, done = None, 0
        for i, count in enumerate(counts):
            size = (max(height >> (scales - 1 - i), 1), max(width >> (scales - 1 - i), 1))
            target = content if i == scales - 1 else _resize(content, size)
            picture = self._first(target) if picture is None else _resize(picture, size)
            which = -1 if i == scales - 1 else 0
            picture = self._optimise(picture, self._objective(target, spaces[which], wanted[which], alpha), count, done)
            done += count
        return picture

    def _first(self, content: Tensor) -> Tensor:
        """Return the picture to start from, of the content's size."""
        start = self.config.start
        if start == "content":
            return content.clone()
        if start == "noise":
            generator = torch.Generator().manual_seed(self.config.seed)
            return torch.rand(content.shape, generator=generator).to(content.device)
        return _resize(_open(start).to(content.device), content.shape[-2:])

    def _objective(self, content: Tensor, space: _Space, wanted: dict, alpha: float) -> Callable:
        """Return the function from a picture to its losses, named, with the weighted sum as `total`."""
        config = self.config

        def describe(picture: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
            features = self._features(picture, space)
            kept = {config.content_layer: features[config.content_layer].float()}
            style = {layer: space.style(layer, *_Moments.apply(features[layer])) for layer in wanted}
            return space.network.lift(kept)[config.content_layer], style

        with torch.no_grad():
            layout, own = describe(content)
            targets = {
                layer: [torch.lerp(a, b, alpha) for a, b in zip(own[layer], space.style(layer, *wanted[layer]))]
                for layer in wanted
            }

        def objective(picture: Tensor) -> dict[str, Tensor]:
            found, style = describe(picture)
            grams = [_gram_error(style[layer][0], target[0], space.metric(layer)) for layer, target in targets.items()]
            spreads = [losses.relative(style[layer][1][None], target[1][None]) for layer, target in targets.items()]
            named = {
                "content": losses.relative(found, layout),
                "style": sum(grams) / len(grams),
                "spread": sum(spreads) / len(spreads),
                "tv": losses.total_variation(picture),
            }
            total = sum(getattr(config, f"{name}_weight") * value for name, value in named.items())
            return {"total": total} | named

        return objective

    def _optimise(self, picture: Tensor, objective: Callable, steps: int, done: int) -> Tensor:
        """Return the best of the pictures that `steps` evaluations of the objective lead through."""
        search = (_adam if self.config.optimizer == "adam" else _lbfgs)(picture, self.config.lr)
        best, lowest, found = picture, float("inf"), None
        for step in range(1, steps + 1):
            proposed = search.send(found).detach().clone(memory_format=torch.contiguous_format).requires_grad_()
            with torch.enable_grad(), torch.autocast(proposed.device.type, enabled=False):
                named = objective(proposed)
                # A sum over pixels, not a mean: curvatures stay far from the smallest numbers of float32.
                (gradient,) = torch.autograd.grad(named["total"] * proposed.numel(), proposed)
            seen = {name: float(value.detach()) for name, value in named.items()}
            total = seen.pop("total")
            if not total < float("inf"):
                log.warning(f"the loss became {total} at step {done + step}; the best picture until then is kept")
                break
            if total < lowest:
                best, lowest = proposed.detach(), total
            if self.progress is not None:
                self.progress(done + step, self.config.steps, seen)
            found = total, gradient
        return best


# What proposes pictures: generators that yield one, and are sent its loss and gradient.
_Search = Generator[Tensor, tuple[float, Tensor], None]


def _adam(picture: Tensor, lr: float) -> _Search:
    """Propose pictures by Adam."""
    picture = picture.detach().clone()
    optimizer = torch.optim.Adam([picture], lr or 0.02)
    while True:
        _, picture.grad = yield picture
        optimizer.step()
        picture.clamp_(0, 1)


def _lbfgs(picture: Tensor, lr: float) -> _Search:
    """Propose pictures by L-BFGS, with steps that are taken back and shortened where the loss rises too far."""
    loss, gradient = yield picture
    soften, first, pairs = _softening(picture), FIRST, []
    while True:
        direction = _direction(gradient, pairs, soften)
        if pairs:
            direction *= min(lr or 1.0, LONGEST / float(direction.square().mean().sqrt().clamp_min(1e-12)))
        else:
            direction *= first * (lr or 1.0) / float(direction.abs().mean().clamp_min(1e-30))
        for share in (1, 0.4, 0.1, 0.01):
            proposed = torch.clamp(picture + share * direction, 0, 1)
            next_loss, next_gradient = yield proposed
            if next_loss <= SLACK * loss:
                break
        else:
            # Nothing is gained along this way: what was learnt of the curvature misleads.
            first, pairs = first / 2 if not pairs else first, []
            continue
        moved, turned = proposed - picture, next_gradient - gradient
        product = float((moved * turned).sum())
        if product > 1e-6 * float(moved.norm() * turned.norm()):
            pairs = [*pairs, (moved, turned, product)][-HISTORY:]
        picture, loss, gradient = proposed, next_loss, next_gradient


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]], soften: Callable) -> Tensor:
    """Return the way down that L-BFGS takes (the two loops of Nocedal, 1980); pairs: moved, turned, their product."""
    direction, shares = -gradient, []
    for moved, turned, product in reversed(pairs):
        shares.append(float((moved * direction).sum()) / product)
        direction.sub_(turned, alpha=shares[-1])
    direction = soften(direction)
    if pairs:
        _, turned, product = pairs[-1]
        direction *= product / float((turned * soften(turned)).sum())
    for (moved, turned, product), share in zip(pairs, reversed(shares)):
        direction.add_(moved, alpha=share - float((turned * direction).sum()) / product)
    return direction


def _softening(picture: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the map that divides each wave of a picture by its frequency.

    As the first guess of the inverse curvature it makes L-BFGS several times as fast: the gradient of the pixels is
    mostly fine noise, while colours and large strokes are far from where they shall be.
    """
    height, width = picture.shape[-2:]
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    floor = 1 / max(height, width)
    scale = (rows[:, None].square() + columns.square() + floor**2).rsqrt().to(picture.device)
    return lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * scale, s=(height, width))


class _Moments(torch.autograd.Function):
    """Mean (C,) and raw second moment (C, C) of (1, C, H, W), in float32 though features and products be in 16 bits.

    With the gradient in closed form and no copy of channels-last features: a sixth of the time of autograd's.
    """

    PART = 1024  # rows whose products are summed in 16 bits

    @staticmethod
    def forward(ctx, features):
        rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        ctx.save_for_backward(rows)
        ctx.shape = features.shape
        whole = len(rows) // _Moments.PART * _Moments.PART
        parts = rows[:whole].view(-1, _Moments.PART, rows.shape[1])
        rest = rows[whole:]
        total = (parts.transpose(1, 2) @ parts).float().sum(0) + (rest.T @ rest).float()
        return rows.float().mean(0), total / len(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, for_mean, for_moment):
        (rows,) = ctx.saved_tensors
        _, channels, height, width = ctx.shape
        slope = ((for_moment + for_moment.T) / len(rows)).to(rows.dtype)
        gradient = torch.addmm((for_mean / len(rows)).to(rows.dtype), rows, slope)
        return gradient.view(1, height, width, channels).permute(0, 3, 1, 2)


def _gram_error(found: Tensor, target: Tensor, metric: Tensor | None) -> Tensor:
    """Return the squared error of the Gram matrix (without the last ReLU of `lift`) over that of the target itself.

    |W D Wᵀ|² is the trace of D WᵀW D WᵀW, which needs no matrix of the wide network's size. metric: WᵀW; None: W is 1.
    """
    if metric is None:
        return losses.relative(found[None], target[None])
    error, whole = (found - target) @ metric, target @ metric
    return (error * error.T).sum() / (whole * whole.T).sum().clamp_min(1e-12)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def _open(path: str) -> Tensor:
    """Read an image file as (1, 3, H, W) RGB in [0, 1], transparent parts over white."""
    pixels = streams.flat_rgb(streams.open_image(path))
    full = 255 if pixels.itemsize == 1 else 65535
    return torch.from_numpy(pixels.astype("float32")).permute(2, 0, 1)[None] / full
