"""johnson: a feed-forward network for one style, or for a bank of named styles that can be mixed.

Paper: arXiv:1603.08155 (Johnson, Alahi and Fei-Fei, 2016), with instance normalisation (arXiv:1607.08022) and, for
several styles, a scale and a shift of their own in every normalisation (arXiv:1610.07629). Differences: the losses are
relative (over the mean square of their targets), so that a weight means the same for any backbone; beside the Gram
matrices the means and deviations of the features are matched; the network is narrower, so that it trains on a CPU in
a sitting (`widths=32,64,128` is the paper's).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, errors, losses, stats
from styletools.methods import Graphs, Method, read_widths
from styletools.nn.resnet import Repainter

APPLIES_TO = "image"
TRAINS_ON = "content+style"
LAYOUTS = ("fast_neural_style",)

# What fast_neural_style calls the layers beside the residual blocks, and what we call them.
PUBLISHED = {
    "conv1.conv2d": "down.0.conv", "conv2.conv2d": "down.1.conv", "conv3.conv2d": "down.2.conv",
    "in1": "down.0.norm", "in2": "down.1.norm", "in3": "down.2.norm",
    "deconv1.conv2d": "up.0.conv", "deconv2.conv2d": "up.1.conv", "deconv3.conv2d": "out",
    "in4": "up.0.norm", "in5": "up.1.norm",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    styles: Annotated[str, "names of the styles, with commas between them; st-train fills it in"] = ""
    widths: Annotated[str, "channels at full, half and quarter resolution"] = "16,32,64"
    blocks: Annotated[int, "residual blocks"] = 5
    kernel: Annotated[int, "side of the first and the last convolution"] = 9
    backbone: Annotated[str, "network that judges content and style in training"] = "slim"
    content_layer: Annotated[str, "layer whose features keep the content"] = "relu4_1"
    style_layers: Annotated[str, "layers whose statistics are the style"] = "relu1_1,relu2_1,relu3_1,relu4_1"
    style_size: Annotated[int, "short side of the style images in training"] = 512
    content_weight: Annotated[float, "weight of the content loss"] = 1.0
    style_weight: Annotated[float, "weight of the means and deviations"] = 10.0
    gram_weight: Annotated[float, "weight of the Gram matrices"] = 10.0
    range_weight: Annotated[float, "weight of values outside [0, 1]"] = 1.0
    tv_weight: Annotated[float, "weight of the total variation"] = 0.05
    grid_weight: Annotated[float, "weight of a pattern that repeats every four pixels"] = 20.0
    lr: Annotated[float, "learning rate of Adam"] = 2e-3


class Johnson(Method):
    """Paints in the styles that it was trained for, and in no other."""

    keep = ("network",)
    multiple = 4
    tiling = True

    def __init__(self, config: Config):
        self.config = config
        self.names = config.styles.split(",") if config.styles else [""]
        self._style_layers = [layer.strip() for layer in config.style_layers.split(",") if layer.strip()]
        backbones.check(config.backbone, [config.content_layer, *self._style_layers])
        if not self._style_layers:
            raise errors.UsageError("style_layers names no layer")
        if len(set(self.names)) < len(self.names):
            raise errors.UsageError(f"styles={config.styles}: a name twice")
        if config.blocks < 0 or config.kernel < 1 or config.kernel % 2 == 0:
            raise errors.UsageError("kernel must be odd, and blocks not negative")
        widths = read_widths(config.widths, Config.widths, 3)
        self.nets = nn.ModuleDict({"network": Repainter(widths, config.blocks, len(self.names), config.kernel)})
        self._judge, self._images, self._targets = None, [], None

    def optimizers(self):
        return {"network": torch.optim.Adam(self.nets["network"].parameters(), lr=self.config.lr, betas=(0.9, 0.99))}

    def take_styles(self, images):
        if len(images) != len(self.names):
            raise errors.UsageError(f"{len(images)} style images for a model of {len(self.names)} styles")
        self._images, self._targets = list(images), None

    def _features(self, images: Tensor, layers) -> dict[str, Tensor]:
        if self._judge is None:
            self._judge = backbones.load(self.config.backbone, device=self.device)
            self._judge.to(memory_format=torch.channels_last)
        return self._judge(images, layers)

    def _statistics(self, features: dict[str, Tensor], lifted: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return per style layer the mean, the deviation and the Gram matrix of the judge's features."""
        found = {}
        for layer in self._style_layers:
            found[f"{layer}.mean"], found[f"{layer}.std"] = stats.mean_std(lifted[layer])
            if self.config.gram_weight:
                found[f"{layer}.gram"] = self._gram(layer, features[layer])
        return found

    def _gram(self, layer: str, features: Tensor) -> Tensor:
        """Return the Gram matrices of features, in the lifted space but for the ReLU at its end."""
        second = stats.moment(features)
        if layer in self._judge.heads and layer != "relu1_1":
            head = self._judge.heads[layer]
            weight, bias = head.weight.flatten(1), head.bias
            with torch.autocast(second.device.type, enabled=False):
                _, second = stats.affine_statistics(stats.mean(features), second, weight, bias)
        return stats.gram_from_moment(second)

    @torch.no_grad()
    def _describe(self, image: Tensor) -> dict[str, Tensor]:
        features = self._features(image, self._style_layers)
        return self._statistics(features, self._judge.lift_deep(features))

    def _wanted(self, batch, chosen: Tensor) -> dict[str, Tensor]:
        """Return the target statistics for each image of the batch, whose styles are `chosen`."""
        if not self._images:  # nobody gave them whole: the crops of the batch, on average
            return {key: value.mean(0, keepdim=True) for key, value in self._describe(batch["style"]).items()}
        if self._targets is None:
            each = [self._describe(_resize(image.to(self.device), self.config.style_size)) for image in self._images]
            self._targets = {key: torch.cat([one[key] for one in each]) for key in each[0]}
        return {key: value[chosen] for key, value in self._targets.items()}

    def _losses(self, batch, first: int) -> dict[str, Tensor]:
        """The losses; image i is painted in style `first` + i, counted round."""
        content, config = batch["content"], self.config
        chosen = (first + torch.arange(len(content), device=content.device)) % len(self.names)
        wanted = self._wanted(batch, chosen)
        with torch.no_grad():
            kept = self._judge.lift_deep(self._features(content, [config.content_layer]))[config.content_layer]
        output = self.nets["network"](content, F.one_hot(chosen, len(self.names)).float())
        features = self._features(output, [*self._style_layers, config.content_layer])
        lifted = self._judge.lift_deep(features)
        found = self._statistics(features, lifted)

        def relative(kind: str) -> Tensor:
            pairs = [(found[f"{layer}.{kind}"], wanted[f"{layer}.{kind}"]) for layer in self._style_layers]
            return sum(losses.relative(a, b) for a, b in pairs) / len(pairs)

        named = {
            "content": losses.relative(lifted[config.content_layer], kept),
            "style": relative("mean") + relative("std"),
            "gram": relative("gram") if config.gram_weight else output.new_zeros(()),
            "range": losses.out_of_range(output),
            "tv": losses.total_variation(output),
            "grid": losses.grid(output, content),
        }
        total = sum(getattr(config, f"{name}_weight") * value for name, value in named.items())
        return {"loss": total} | named

    def train_step(self, batch, optimizers, step):
        named = self._losses(batch, step * len(batch["content"]))
        self.update(optimizers["network"], named["loss"])
        return named

    @torch.no_grad()
    def validate(self, batch):
        return self._losses(batch, 0)

    def sample(self, batch):
        return self.apply(batch["content"])

    def own_style(self, name):
        if name not in self.names:
            raise errors.DoesNotFit(f"no style {name!r} in this model: it has {', '.join(self.names)}")
        return {"mixture": torch.eye(len(self.names), device=self.device)[self.names.index(name)]}

    def apply(self, image, *, style=None, alpha=1.0):
        """Restyle (N, 3, H, W) RGB in [0, 1].

        style: what `own_style` returns, or a mixture of such; None: image i is painted in style i, counted round.
        alpha: the share of the network's picture; the rest is the photograph.
        """
        if style is None:
            chosen = torch.arange(len(image), device=image.device) % len(self.names)
            mixture = F.one_hot(chosen, len(self.names)).float()
        else:
            mixture = style["mixture"].to(image.device).float().view(1, -1)
        return torch.lerp(image, self.nets["network"](image, mixture).clamp(0, 1), alpha)

    def graphs(self):
        def paint(image, mixture):
            return (self.nets["network"](image / 255, mixture.view(1, -1)) * 255).clamp(0, 255)

        return Graphs(paint, styles={name: self.own_style(name) for name in self.names})

    @staticmethod
    def detect(state_dict):
        return LAYOUTS[0] if {f"{theirs}.weight" for theirs in PUBLISHED} <= set(state_dict) else ""

    @staticmethod
    def convert(state_dict):
        """Convert a model of pytorch/examples' fast_neural_style, which counts colours from 0 to 255."""
        blocks = 0
        while f"res{blocks + 1}.conv1.conv2d.weight" in state_dict:
            blocks += 1
        tensors = {}
        for theirs, ours in _names(blocks).items():
            weight, bias = (state_dict[f"{theirs}.{kind}"].float() for kind in ("weight", "bias"))
            if ours.endswith("norm"):
                tensors |= {f"network.{ours}.scale": weight[None] - 1, f"network.{ours}.shift": bias[None]}
                continue
            if ours == "down.0.conv":  # it takes 255 x; ours takes x - 0.5
                weight, bias = 255 * weight, (bias + 127.5 * weight.double().sum((1, 2, 3))).float()
            elif ours == "out":
                weight, bias = weight / 255, bias / 255 - 0.5
            tensors |= {f"network.{ours}.weight": weight, f"network.{ours}.bias": bias}
        widths = [len(state_dict[f"conv{i}.conv2d.weight"]) for i in (1, 2, 3)]
        kernel = state_dict["conv1.conv2d.weight"].shape[-1]
        return Config(widths=",".join(map(str, widths)), blocks=blocks, kernel=kernel), tensors

    def publish(self, layout):
        """Return the network as fast_neural_style has it: one style, five blocks, first and last convolutions of 9."""
        config = self.config
        if (len(self.names), config.blocks, config.kernel) != (1, 5, 9):
            raise errors.DoesNotFit(
                f"{layout} holds one style, 5 blocks and a kernel of 9; this model {len(self.names)}, "
                f"{config.blocks} and {config.kernel}"
            )
        own, state = self.nets["network"].state_dict(), {}
        for theirs, ours in _names(config.blocks).items():
            if ours.endswith("norm"):
                weight, bias = own[f"{ours}.scale"][0] + 1, own[f"{ours}.shift"][0]
            else:
                weight, bias = (own[f"{ours}.{kind}"] for kind in ("weight", "bias"))
            if ours == "down.0.conv":
                weight, bias = weight / 255, (bias - 0.5 * weight.double().sum((1, 2, 3))).float()
            elif ours == "out":
                weight, bias = weight * 255, (bias + 0.5) * 255
            state |= {f"{theirs}.weight": weight.clone(), f"{theirs}.bias": bias.clone()}
        return state


def _names(blocks: int) -> dict[str, str]:
    """Return what fast_neural_style calls the layers of a network of so many blocks: {theirs: ours}."""
    names = dict(PUBLISHED)
    for i in range(blocks):
        for number, half in ((1, "first"), (2, "second")):
            names[f"res{i + 1}.conv{number}.conv2d"] = f"{half}.{i}.conv"
            names[f"res{i + 1}.in{number}"] = f"{half}.{i}.norm"
    return names


def _resize(image: Tensor, short: int) -> Tensor:
    """Scale (1, 3, H, W) so that its short side has `short` pixels."""
    height, width = (max(round(side * short / min(image.shape[-2:])), 1) for side in image.shape[-2:])
    return F.interpolate(image, size=(height, width), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
