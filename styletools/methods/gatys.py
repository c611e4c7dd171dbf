"""gatys: the picture itself is optimised until its features have the content's layout and the style's correlations.

Paper: arXiv:1508.06576 (Gatys, Ecker and Bethge, 2015). Differences: every loss is relative (the squared error
over the mean square of its target), so that layers and backbones of any width count alike and a weight means the
same for all of them; beside the Gram matrices, whose few large entries drown the rest, each channel's mean and
deviation counts (arXiv:1703.06868); the content layer is relu4_1 instead of relu4_2, since published cuts of VGG-19
end there; the work goes from coarse to fine, with the same target statistics at all sizes, which paints in large
strokes first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, errors, log, losses, stats, streams
from styletools.methods import Method

APPLIES_TO = "image+style"
TRAINS_ON = "nothing"

SMALLEST = 64  # a coarser size whose short side would have fewer pixels is left out
HISTORY = 20  # pairs that L-BFGS remembers: each costs two pictures of memory and four passes over them a step


@dataclass(frozen=True)
class Config:
    backbone: Annotated[str, "network that extracts the features"] = "slim"
    content_layer: Annotated[str, "layer whose features keep the content"] = "relu4_1"
    style_layers: Annotated[str, "layers whose Gram matrices are the style"] = "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1"
    content_weight: Annotated[float, "weight of the content loss"] = 1.0
    style_weight: Annotated[float, "weight of the Gram matrices"] = 30.0
    spread_weight: Annotated[float, "weight of the features' means and deviations"] = 30.0
    tv_weight: Annotated[float, "weight of the total variation"] = 0.1
    steps: Annotated[int, "evaluations of the losses, over all sizes"] = 300
    optimizer: Annotated[str, "lbfgs or adam"] = "lbfgs"
    lr: Annotated[float, "step size; 0: 1 for lbfgs, 0.02 for adam"] = 0.0
    start: Annotated[str, "first picture: content, noise, or the path of an image"] = "content"
    scales: Annotated[int, "sizes from coarse to fine, each twice the one before"] = 3
    seed: Annotated[int, "seed of the noise to start from"] = 0


class Gatys(Method):
    """Style transfer by optimisation of the pixels: no training, any style, minutes instead of milliseconds."""

    half = False
    iterative = True

    def __init__(self, config: Config):
        self.config = config
        self.nets = nn.ModuleDict()
        self._backbone = None
        self._style_layers = [layer.strip() for layer in config.style_layers.split(",") if layer.strip()]
        backbones.check(config.backbone, [config.content_layer])
        if config.style_layers != Config.style_layers:
            backbones.check(config.backbone, self._style_layers)
        if not self._style_layers:
            raise errors.UsageError("style_layers names no layer")
        if config.optimizer not in ("lbfgs", "adam"):
            raise errors.UsageError(f"optimizer={config.optimizer}: lbfgs or adam expected")
        if config.steps < 1 or config.scales < 1:
            raise errors.UsageError("steps and scales must be at least 1")

    def _network(self):
        """Return the backbone, loaded on first use, and settle which style layers there are."""
        if self._backbone is None:
            network = backbones.load(self.config.backbone, device=self.device)
            missing = [layer for layer in self._style_layers if layer not in network.layers]
            if missing and self.config.style_layers == Config.style_layers:
                self._style_layers = [layer for layer in self._style_layers if layer not in missing]
                log.warning(f"{network.name} without {', '.join(missing)}: the weights stop at {network.layers[-1]}")
            elif missing:
                raise errors.Unavailable(
                    f"{', '.join(missing)} of {network.name} is not to be had: "
                    f"the weights in {network.source} stop at {network.layers[-1]}"
                )
            self._backbone = network.to(memory_format=torch.channels_last)
        return self._backbone.to(self.device)

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        layers = {*self._style_layers, self.config.content_layer}
        return {layer: x.float() for layer, x in self._network()(image, layers).items()}

    @torch.no_grad()
    def encode_style(self, images, weights):
        """Return {"<layer>.mean": (C,), "<layer>.moment": (C, C)} of style images, merged by `weights`."""
        self._network()
        records = []
        for image in images:
            features = self._features(image.to(self.device))
            record = {}
            for layer in self._style_layers:
                record[f"{layer}.mean"] = stats.mean(features[layer])[0]
                record[f"{layer}.moment"] = stats.moment(features[layer])[0]
            records.append(record)
        return stats.merge(records, weights)

    def apply(self, image, *, style=None, alpha=1.0):
        """Restyle (N, 3, H, W) RGB in [0, 1], one after another.

        style: what `encode_style` returns, or the statistics of the same layers and backbone from elsewhere.
        alpha: where between the content's own statistics (0: the picture comes back as it is) and the style's
        (1) the target lies. Raises DoesNotFit when the style lacks a layer or has other channels.
        """
        if not 0 <= alpha <= 1:
            raise errors.UsageError(f"alpha={alpha}: a number from 0 to 1 expected")
        if alpha == 0:
            return image.clone()
        self._network()
        wanted = {layer: self._statistics(style or {}, layer) for layer in self._style_layers}
        done = [self._restyle(one[None], wanted, alpha) for one in image.to(self.device)]
        return torch.cat(done).to(image.device)

    def _statistics(self, style: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
        """Return mean (C,) and raw second moment (C, C) of one layer of a style record."""
        if f"{layer}.mean" not in style or f"{layer}.moment" not in style:
            held = sorted({key.rpartition(".")[0] for key in style if key.endswith(".moment")})
            raise errors.DoesNotFit(f"the style has no statistics of {layer} (it has {', '.join(held) or 'none'})")
        average, second = (style[f"{layer}.{kind}"].to(self.device).float() for kind in ("mean", "moment"))
        channels = self._network().network.convs[layer.replace("relu", "conv")].out_channels
        if average.shape != (channels,) or second.shape != (channels, channels):
            raise errors.DoesNotFit(
                f"the style's statistics of {layer} are not of {self.config.backbone}, which has {channels} channels"
            )
        return average, second

    def _style(self, layer: str, average: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a layer's statistics say of style: the moments, and means and deviations as (2, C).

        Means and deviations are those of the network that `lift` leads to. For W f + b they follow from mean and moment
        of f alone; for the ReLU after it they are taken as of normal values cut off at 0: lifting the features
        themselves took 2.4 times as long. The moments are those of f and a constant 1, whence W f + b is linear.
        """
        heads = self._network().heads
        if layer not in heads:
            return second, torch.stack([average, stats.std_from_moment(average, second)])
        weight, bias = heads[layer].weight.flatten(1), heads[layer].bias
        joint = torch.cat([torch.cat([second, average[:, None]], 1), torch.cat([average, average.new_ones(1)])[None]])
        mean = weight @ average + bias
        variance = ((weight @ (second - torch.outer(average, average))) * weight).sum(1)
        std = (variance.clamp_min(0) + stats.EPS).sqrt()
        return joint, torch.stack(stats.rectified_normal(mean, std))

    def _metric(self, layer: str) -> Tensor | None:
        """Return WᵀW of the linear map that `lift` begins with, the constant 1 included; None where there is none."""
        heads = self._network().heads
        if layer not in heads:
            return None
        weight = torch.cat([heads[layer].weight.flatten(1), heads[layer].bias[:, None]], 1)
        return weight.T @ weight

    def _restyle(self, content: Tensor, wanted: dict[str, tuple[Tensor, Tensor]], alpha: float) -> Tensor:
        """Restyle one picture (1, 3, H, W), from the coarsest size to its own."""
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
            picture = self._optimise(picture, self._objective(target, wanted, alpha), count, done)
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

    def _objective(self, content: Tensor, wanted: dict[str, tuple[Tensor, Tensor]], alpha: float) -> Callable:
        """Return the function from a picture to its losses, named, with the weighted sum as `total`."""
        config, network = self.config, self._network()

        def describe(picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            features = self._features(picture)
            kept = {config.content_layer: features[config.content_layer]}
            style = {
                layer: self._style(layer, stats.mean(features[layer])[0], stats.moment(features[layer])[0])
                for layer in wanted
            }
            return network.lift(kept)[config.content_layer], style

        with torch.no_grad():
            layout, own = describe(content)
            targets = {
                layer: [torch.lerp(a, b, alpha) for a, b in zip(own[layer], self._style(layer, *wanted[layer]))]
                for layer in wanted
            }
            metrics = {layer: self._metric(layer) for layer in wanted}

        def objective(picture: Tensor) -> dict[str, Tensor]:
            found, style = describe(picture)
            grams = [_gram_error(style[layer][0], target[0], metrics[layer]) for layer, target in targets.items()]
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
        picture = picture.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        pixels, seen = picture.numel(), {}

        def evaluate() -> Tensor:
            with torch.no_grad():
                picture.clamp_(0, 1)
            optimizer.zero_grad(set_to_none=True)
            named = objective(picture)
            # A sum over pixels, not a mean: L-BFGS takes curvatures below 1e-10 for noise and forgets them.
            loss = named["total"] * pixels
            loss.backward()
            seen.update({name: float(value.detach()) for name, value in named.items()})
            return loss

        optimizer, since = self._optimizer(picture), 0
        best, lowest = picture.detach().clone(), float("inf")
        for step in range(1, steps + 1):
            before = picture.detach().clamp(0, 1)
            since += 1
            optimizer.param_groups[0]["lr"] = self._rate(since, pixels)
            with torch.enable_grad(), torch.autocast(picture.device.type, enabled=False):
                optimizer.step(evaluate)
            total = seen.pop("total")
            if not total < float("inf"):
                log.warning(f"the loss became {total} at step {done + step}; the best picture until then is kept")
                break
            if total < lowest:
                best, lowest = before, total  # the picture that was evaluated, not what the step made of it
            elif total > 2 * lowest:
                # Steps of a fixed size go astray now and then: back to the best, and learn the curvature anew.
                with torch.no_grad():
                    picture.copy_(best)
                optimizer, since = self._optimizer(picture), 0
            if self.progress is not None:
                self.progress(done + step, self.config.steps, dict(seen))
        return best

    def _optimizer(self, picture: Tensor) -> torch.optim.Optimizer:
        if self.config.optimizer == "adam":
            return torch.optim.Adam([picture])
        # One iteration a call is one evaluation; it remembers between calls.
        return torch.optim.LBFGS([picture], max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0)

    def _rate(self, step: int, pixels: int) -> float:
        """Return the step size for step 1, 2, ... of one size."""
        if self.config.optimizer == "adam":
            return self.config.lr or 0.02
        # The first step of L-BFGS knows no curvature and is scaled to an L1 norm of 1: times this it moves values by
        # 0.01 on average. Much less would teach it rounding errors instead of curvature, and the next steps explode.
        return 0.01 * pixels if step == 1 else self.config.lr or 1.0


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
