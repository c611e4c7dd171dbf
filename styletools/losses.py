"""Losses of style transfer, free of any method. All return a scalar; inputs are (N, C, H, W) unless said."""

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import stats


def mean_std_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Return the squared distance between two (mean, std) pairs of (N, C), averaged over channels: (N,).

    The style loss of AdaIN (arXiv:1703.06868), per image.
    """
    return (a[0] - b[0]).square().mean(-1) + (a[1] - b[1]).square().mean(-1)


def relative(found: Tensor, target: Tensor) -> Tensor:
    """Return the squared difference over the mean square of the target, both per image, averaged over images.

    found: (N, ...); target: (N or 1, ...). 0 is reached, 1 is what all zeros would give: a weight of it means the same
    for any layer and backbone.
    """
    scale = target.detach().square().flatten(1).mean(1).clamp_min(1e-12)
    return ((found - target).square().flatten(1).mean(1) / scale).mean()


def adain_content(features: Tensor, content: Tensor, style: tuple[Tensor, Tensor]) -> Tensor:
    """Return the squared distance to the content's features when these are given the style's mean and deviation.

    What AdaIN's decoder is trained on (arXiv:1703.06868), over the style's mean variance: 0 for the content's layout
    in the style's statistics, about 2 for an unrelated layout. style: mean and deviation, (N, C) each.
    """
    target = stats.adapt(content.float(), *style)
    return ((features.float() - target).square().mean((1, 2, 3)) / style[1].square().mean(1)).mean()


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, horizontal plus vertical (anisotropic)."""
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs()
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs()
    return (horizontal.mean() if horizontal.numel() else images.new_zeros(())) + (
        vertical.mean() if vertical.numel() else images.new_zeros(())
    )


def out_of_range(images: Tensor) -> Tensor:
    """Return how far values lie outside [0, 1], on average."""
    return (torch.relu(images - 1) + torch.relu(-images)).mean()


def grid(images: Tensor, reference: Tensor, cell: int = 4, window: int = 12) -> Tensor:
    """Return how much more of a pattern that repeats every `cell` pixels there is than in `reference`, on average.

    Such a pattern is what up-sampling leaves. Within windows of cell x window pixels a side, it is the mean of each of
    the cell² positions against the mean of all of them; textures of other periods cancel. 0 where a side is shorter
    than a window.
    """
    if min(images.shape[-2:]) < cell * window:
        return images.new_zeros(())

    def pattern(x: Tensor) -> Tensor:
        height, width = (side // cell * cell for side in x.shape[-2:])
        means = F.avg_pool2d(F.pixel_unshuffle(x[..., :height, :width], cell), window, stride=window // 3)
        means = means.unflatten(1, (x.shape[1], cell * cell))
        return (means - means.mean(2, keepdim=True)).abs()

    return torch.relu(pattern(images) - pattern(reference)).mean()


def mean_std_by_layer(features: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return {layer: (mean, std)} of a dict of features, for `mean_std_distance`."""
    return {layer: stats.mean_std(tensor) for layer, tensor in features.items()}
