"""distill: a narrow network learns to reproduce VGG-19's features (the backbone `slim`).

Paper: arXiv:2003.08436 (Wang et al., 2020), from which the idea of a 1x1 map per layer comes; the rest is plain
feature regression. Where the teacher's weights stop early, `deep_teacher` stands in for the deeper layers.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from styletools import backbones, errors
from styletools.methods import Method, read_widths
from styletools.nn.narrow import regress, start_narrow
from styletools.nn.slim import HEADS, Slim
from styletools.nn.vgg import FULL_WIDTHS

APPLIES_TO = "nothing"
TRAINS_ON = "images"


@dataclass(frozen=True)
class Config:
    teacher: Annotated[str, "network whose features are to be reproduced"] = "vgg19"
    deep_teacher: Annotated[str, "network for the layers beyond the teacher's weights; empty: none"] = "cd16x"
    widths: Annotated[str, "channels of the five blocks"] = "16,64,112,128,128"
    deep_weight: Annotated[float, "weight of the layers that the deep teacher stands in for"] = 0.3
    lr: Annotated[float, "learning rate of Adam"] = 1e-3
    noise: Annotated[float, "largest deviation of the noise added to half of the images"] = 0.08


class Distill(Method):
    """Trains the student; it is used as the backbone `slim`, not applied."""

    def __init__(self, config: Config):
        self.config = config
        self.nets = nn.ModuleDict({"student": Slim(_widths(config.widths))})
        self._teachers = None

    @torch.no_grad()
    def initialize(self, batch):
        """Start layer by layer in closed form: the convolutions from the teachers', the heads by regression."""
        images, student = batch["images"], self.nets["student"]
        targets = self._targets(images)
        found = start_narrow(student.network, [teacher.network for teacher, _ in self._teachers], images)
        for layer, target in targets.items():
            weight, bias = regress(*(x.transpose(0, 1).flatten(1) for x in (found[layer], target)))
            student.heads[layer].weight.copy_(weight.view_as(student.heads[layer].weight))
            student.heads[layer].bias.copy_(bias)

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
        losses = self._losses(self._pairs((images + noise).clamp(0, 1)))
        self.update(optimizers["student"], losses["loss"])
        return losses

    @torch.no_grad()
    def validate(self, batch):
        pairs, correlations = self._pairs(batch["images"]), {}
        for layer, (found, target) in pairs.items():
            correlations[f"r.{layer}"] = torch.corrcoef(torch.stack([target.flatten(), found.flatten()]))[0, 1]
        return {"loss": self._losses(pairs)["loss"]} | correlations

    def _losses(self, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Return per layer the squared error over the teacher's variance (1 - R², over all channels), and their sum."""
        errors_by_layer = {
            layer: (found - target).square().mean() / target.var(dim=(0, 2, 3), correction=0).mean()
            for layer, (found, target) in pairs.items()
        }
        shallow = self._teachers[0][1]
        total = sum(e * (1.0 if layer in shallow else self.config.deep_weight) for layer, e in errors_by_layer.items())
        return {"loss": total} | errors_by_layer


def _widths(text: str) -> list[int]:
    """Return "16,32,64,128,128" as numbers. Raises UsageError for anything but five, none above VGG-19's."""
    found = read_widths(text, Config.widths, len(FULL_WIDTHS))
    if any(width > most for width, most in zip(found, FULL_WIDTHS)):
        raise errors.UsageError(f"widths={text}: numbers up to {','.join(map(str, FULL_WIDTHS))} expected")
    return found
