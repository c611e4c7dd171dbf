"""Starting a narrow VGG from a wide one, layer by layer, in closed form.

A narrow layer takes over those channels of the wide one from which the others are best predicted, and learns by linear
regression to compute them from what the narrow layers before it give.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools.nn.vgg import VGG

SAMPLES = 40_000


@torch.no_grad()
def start_narrow(network: VGG, teachers: Sequence[VGG], images: Tensor) -> dict[str, Tensor]:
    """Set the convolutions of `network` so that it resembles the teachers on images (N, 3, H, W) in [0, 1].

    A convolution learns from the first teacher that has it, and must not be wider than that one's. Returns {layer:
    (N, C, h, w)}: what `network` then makes of the images.
    """
    wanted: dict[str, Tensor] = {}
    for teacher in teachers:
        hooks = [
            conv.register_forward_hook(functools.partial(_note, wanted, name)) for name, conv in teacher.convs.items()
        ]
        teacher(images, [teacher.layers[-1]])
        for hook in hooks:
            hook.remove()
    x, block, found = (images - network.mean) / network.std, "1", {}
    for name, conv in network.convs.items():
        if name[4] != block:
            x, block = F.max_pool2d(x, 2), name[4]
        before = wanted.pop(name)
        chosen = _representatives(before.relu().transpose(0, 1).flatten(1), conv.out_channels)
        patches = F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
        weight, bias = regress(patches, before[:, chosen].transpose(0, 1).flatten(1))
        conv.weight.copy_(weight.view_as(conv.weight))
        conv.bias.copy_(bias)
        x = F.relu(conv(x))
        found[name.replace("conv", "relu")] = x
    return found


def regress(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ridge regression (weights (out, in), bias (out,)) of outputs (out, n) on inputs (in, n)."""
    stride = max(inputs.shape[1] // SAMPLES, 1)
    x, y = inputs[:, ::stride].double(), outputs[:, ::stride].double()
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    covariance = (x - x_mean) @ (x - x_mean).T / x.shape[1]
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(x), dtype=torch.float64, device=x.device)
    weight = torch.linalg.solve(covariance + ridge, (x - x_mean) @ (y - y_mean).T / x.shape[1]).T
    return weight.float(), (y_mean - weight @ x_mean)[:, 0].float()


def _note(found: dict, name: str, module, inputs, output: Tensor) -> None:
    """A forward hook: keep what a convolution gave, unless an earlier teacher has said it."""
    found.setdefault(name, output)


def _representatives(features: Tensor, count: int) -> list[int]:
    """Pick the `count` channels of (C, pixels) from which the others are best predicted linearly, greedily.

    Pivoted Cholesky decomposition of their covariance.
    """
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
