"""distill: a narrow network learns to reproduce VGG-19's features (the backbone `slim`).

Paper: arXiv:2003.08436 (Wang et al., 2020), from which the idea of a 1x1 map per layer comes; the rest is plain
feature regression. Where the teacher's weights stop early, `deep_teacher` stands in for the deeper layers.
"""

import functools
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import backbones, errors
from styletools.methods import Method
from styletools.nn.slim import HEADS, Slim

APPLIES_TO = "nothing"
TRAINS_ON = "images"


@dataclass(frozen=True)
class Config:
    teacher: Annotated[str, "network whose features are to be reproduced"] = "vgg19"
    deep_teacher: Annotated[str, "network for the layers beyond the teacher's weights; empty: none"] = "cd16x"
    lr: Annotated[float, "learning rate of Adam"] = 1e-3
    noise: Annotated[float, "largest deviation of the noise added to half of the images"] = 0.08


class Distill(Method):
    """Trains the student; it is used as the backbone `slim`, not applied."""

    def __init__(self, config: Config):
        self.config = config
        self.nets = nn.ModuleDict({"student": Slim()})
        self._teachers = None

    @torch.no_grad()
    def initialize(self, batch):
        """Start layer by layer in closed form: a subset of the teacher's channels, regressed on the student's inputs.

        The subset is the one that explains the layer's covariance best, picked greedily (pivoted Cholesky).
        """
        images = batch["images"]
        self._targets(images[:1])
        wanted = {}
        for teacher, layers in self._teachers:
            hooks = [
                conv.register_forward_hook(functools.partial(_note, wanted, name))
                for name, conv in teacher.network.convs.items()
            ]
            teacher(images, [layers[-1]])
            for hook in hooks:
                hook.remove()
        network = self.nets["student"].network
        x, block = (images - network.mean) / network.std, "1"
        for name, conv in network.convs.items():
            if name[4] != block:
                x, block = F.max_pool2d(x, 2), name[4]
            before = wanted.pop(name)
            chosen = _representatives(before.relu().transpose(0, 1).flatten(1), conv.out_channels)
            patches = F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
            weight, bias = _regress(patches, before[:, chosen].transpose(0, 1).flatten(1))
            conv.weight.copy_(weight.view_as(conv.weight))
            conv.bias.copy_(bias)
            x = F.relu(conv(x))
            layer = name.replace("conv", "relu")
            if layer in HEADS:
                head, teacher = self.nets["student"].heads[layer], self._targets(images)[layer]
                weight, bias = _regress(x.transpose(0, 1).flatten(1), teacher.transpose(0, 1).flatten(1))
                head.weight.copy_(weight.view_as(head.weight))
                head.bias.copy_(bias)

    def optimizers(self):
        return {"student": torch.optim.Adam(self.nets["student"].parameters(), lr=self.config.lr, betas=(0.9, 0.99))}

    def _targets(self, images: Tensor) -> dict[str, Tensor]:
        """Return the teachers' features of the layers in HEADS that can be had."""
        if self._teachers is None:
            teacher = backbones.load(self.config.teacher, device=self.device)
            shallow = [layer for layer in HEADS if layer in teacher.layers]
            self._teachers = [(teacher, shallow)]
            deep = [layer for layer in HEADS if layer not in shallow]
            if deep and not self.config.deep_teacher:
                raise errors.Unavailable(f"the weights of {teacher.name} have no {deep[0]}; give deep_teacher=NAME")
            if deep:
                self._teachers.append((backbones.load(self.config.deep_teacher, device=self.device), deep))
            for network, _ in self._teachers:
                network.to(memory_format=torch.channels_last)
        found = {}
        with torch.no_grad():
            for teacher, layers in self._teachers:
                found |= {k: v.float() for k, v in teacher.lift(teacher(images, layers)).items()}
        return found

    def _pairs(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return {layer: (the student's features, the teachers')}, in float32."""
        targets, student = self._targets(images), self.nets["student"](images)
        return {layer: (student[layer].float(), target) for layer, target in targets.items()}

    def train_step(self, batch, optimizers, step):
        images = batch["images"]
        # Optimisation by pixels (gatys) shows the backbone noise that photographs do not have.
        strength = torch.rand(len(images), 1, 1, 1).to(images.device) * 2 - 1
        noise = torch.randn(images.shape).to(images.device) * strength.clamp_min(0) * self.config.noise
        losses = _errors(self._pairs((images + noise).clamp(0, 1)))
        loss = sum(losses.values())
        self.update(optimizers["student"], loss)
        return {"loss": loss} | losses

    @torch.no_grad()
    def validate(self, batch):
        pairs, correlations = self._pairs(batch["images"]), {}
        for layer, (found, target) in pairs.items():
            correlations[f"r.{layer}"] = torch.corrcoef(torch.stack([target.flatten(), found.flatten()]))[0, 1]
        return {"loss": sum(_errors(pairs).values())} | correlations


SAMPLES = 40_000


def _errors(pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return per layer the squared error over the teacher's variance (1 - R², summed over channels)."""
    return {
        layer: (found - target).square().mean() / target.var(dim=(0, 2, 3), correction=0).mean()
        for layer, (found, target) in pairs.items()
    }


def _note(found: dict, name: str, module, inputs, output: Tensor) -> None:
    """A forward hook: keep what a convolution gave, unless an earlier teacher has said it."""
    found.setdefault(name, output)


def _representatives(features: Tensor, count: int) -> list[int]:
    """Pick the `count` channels of (C, pixels) from which the others are best predicted linearly, greedily."""
    residual = torch.cov(features).double()
    chosen = []
    for _ in range(count):
        # What each channel would explain of all the residual variance, were it chosen next.
        gain = residual.square().sum(0) / residual.diagonal().clamp_min(1e-9)
        gain[chosen] = -1
        pick = int(gain.argmax())
        chosen.append(pick)
        column = residual[:, pick].clone()
        residual -= torch.outer(column, column) / residual[pick, pick].clamp_min(1e-9)
    return chosen


def _regress(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ridge regression (weights (out, in), bias (out,)) of outputs (out, n) on inputs (in, n)."""
    stride = max(inputs.shape[1] // SAMPLES, 1)
    x, y = inputs[:, ::stride].double(), outputs[:, ::stride].double()
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    covariance = (x - x_mean) @ (x - x_mean).T / x.shape[1]
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(x), dtype=torch.float64, device=x.device)
    weight = torch.linalg.solve(covariance + ridge, (x - x_mean) @ (y - y_mean).T / x.shape[1]).T
    return weight.float(), (y_mean - weight @ x_mean)[:, 0].float()
