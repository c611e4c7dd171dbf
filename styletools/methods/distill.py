"""distill: a narrow network learns to reproduce VGG-19's features (the backbone `slim`).

Paper: arXiv:2003.08436 (Wang et al., 2020), from which the idea of a 1x1 map per layer comes; the rest is plain
feature regression. Where the teacher's weights stop early, `deep_teacher` stands in for the deeper layers.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from styletools import backbones, errors
from styletools.methods import Method
from styletools.nn.slim import HEADS, Slim

APPLIES_TO = "nothing"
TRAINS_ON = "images"


@dataclass(frozen=True)
class Config:
    teacher: Annotated[str, "network whose features are to be reproduced"] = "vgg19"
    deep_teacher: Annotated[str, "network for the layers beyond the teacher's weights; empty: none"] = "cd16x"
    lr: Annotated[float, "learning rate of Adam"] = 2e-3
    noise: Annotated[float, "largest deviation of the noise added to half of the images"] = 0.08


class Distill(Method):
    """Trains the student; it is used as the backbone `slim`, not applied."""

    def __init__(self, config: Config):
        self.config = config
        self.nets = nn.ModuleDict({"student": Slim()})
        self._teachers = None

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

    def _losses(self, images: Tensor) -> dict[str, Tensor]:
        """Per layer: the squared error over the teacher's variance (1 - R², summed over channels)."""
        targets = self._targets(images)
        student = self.nets["student"](images)
        losses = {}
        for layer, target in targets.items():
            error = (student[layer].float() - target).square().mean()
            losses[layer] = error / target.var(dim=(0, 2, 3), correction=0).mean()
        return losses

    def train_step(self, batch, optimizers, step):
        images = batch["images"]
        # Optimisation by pixels (gatys) shows the backbone noise that photographs do not have.
        strength = torch.rand(len(images), 1, 1, 1).to(images.device) * 2 - 1
        noise = torch.randn(images.shape).to(images.device) * strength.clamp_min(0) * self.config.noise
        losses = self._losses((images + noise).clamp(0, 1))
        loss = sum(losses.values())
        self.update(optimizers["student"], loss)
        return {"loss": loss} | losses

    @torch.no_grad()
    def validate(self, batch):
        losses, correlations = self._losses(batch["images"]), {}
        targets, student = self._targets(batch["images"]), self.nets["student"](batch["images"])
        for layer, target in targets.items():
            pair = torch.stack([target.flatten(), student[layer].float().flatten()])
            correlations[f"r.{layer}"] = torch.corrcoef(pair)[0, 1]
        return {"loss": sum(losses.values())} | correlations
