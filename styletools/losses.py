"""Losses of style transfer, free of any method. All return a scalar; inputs are (N, C, H, W) unless said."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from styletools import errors, stats


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


# ---- adversarial losses: logits of any shape, higher for what is taken to be real -------------------------

ADVERSARIAL = ("vanilla", "lsgan", "hinge", "wgan")


def discriminator_loss(real: Tensor, fake: Tensor, kind: str = "vanilla") -> Tensor:
    """Return what a discriminator is trained to lower, given its logits for real and for made pictures.

    kind: vanilla (cross-entropy, arXiv:1406.2661), lsgan (squares, arXiv:1611.04076), hinge (arXiv:1705.02894) or wgan
    (the critic's difference, arXiv:1701.07875, which needs a bound such as `gradient_penalty`).
    """
    if kind == "vanilla":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind == "hinge":
        return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()
    if kind == "wgan":
        return fake.mean() - real.mean()
    raise errors.UsageError(f"unknown adversarial loss {kind!r}: choose from {', '.join(ADVERSARIAL)}")


def generator_loss(fake: Tensor, kind: str = "vanilla") -> Tensor:
    """Return what a generator is trained to lower, given the discriminator's logits for what it made.

    vanilla is the non-saturating form of arXiv:1406.2661.
    """
    if kind == "vanilla":
        return F.softplus(-fake).mean()
    if kind == "lsgan":
        return 0.5 * (fake - 1).square().mean()
    if kind in ("hinge", "wgan"):
        return -fake.mean()
    raise errors.UsageError(f"unknown adversarial loss {kind!r}: choose from {', '.join(ADVERSARIAL)}")


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return how far the slope of a discriminator is from 1 between real and made pictures, squared (arXiv:1704.00028).

    In float32 whatever autocast says: it is a gradient of a gradient. Pictures are compared one by one, (N, ...).
    """
    with torch.autocast(real.device.type, enabled=False):
        share = torch.rand(len(real), *[1] * (real.ndim - 1)).to(real.device)
        between = torch.lerp(real.float(), fake.float().detach(), share).requires_grad_()
        slope = _slope(discriminator(between), between)
        return (slope.norm(dim=1) - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Return half the squared slope of a discriminator at real pictures, on average (R1, arXiv:1801.04406)."""
    with torch.autocast(real.device.type, enabled=False):
        there = real.float().detach().requires_grad_()
        return 0.5 * _slope(discriminator(there), there).square().sum(1).mean()


def _slope(logits: Tensor, images: Tensor) -> Tensor:
    """Return the gradient of each picture's mean logit, (N, all its values), which can be differentiated again."""
    each = logits.reshape(len(logits), -1).mean(1).sum()
    return torch.autograd.grad(each, images, create_graph=True)[0].flatten(1)


def accuracy(real: Tensor, fake: Tensor, kind: str = "vanilla") -> Tensor:
    """Return how often a discriminator is right: logits of real pictures above its threshold, of made ones below.

    Of a critic (wgan), which has no threshold: the share of real pictures above the mean of the made ones. 1: it is
    never fooled; 0.5: it cannot tell.
    """
    threshold = {"lsgan": 0.5, "wgan": fake.detach().float().mean()}.get(kind, 0.0)
    right = (real > threshold).float().mean()
    return right if kind == "wgan" else (right + (fake <= threshold).float().mean()) / 2


def diversity(images: Tensor) -> Tensor:
    """Return how different the pictures of a batch are: the mean deviation of each value over them; 0 for one alone."""
    if len(images) < 2:
        return images.new_zeros(())
    return images.float().std(0).mean()


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return how different two crowds of vectors, (N, D) and (M, D), are: 0 or less for one crowd.

    The energy distance (Székely and Rizzo, 2013) over the root of D, estimated without bias from two of each or more.
    One alone tells of no spread, and is taken for a crowd that has none.
    """
    within = sum(torch.cdist(x, x).sum() / max(len(x) * (len(x) - 1), 1) for x in (a, b))
    return (2 * torch.cdist(a, b).mean() - within) / a.shape[1] ** 0.5


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07) -> Tensor:
    """Return how badly each place of the output is told to come from its place in the input (arXiv:2007.15651).

    query, key: (N, places, channels), of unit length: of the output and of the input. The other places of the same
    picture are the negatives; no gradient goes into the keys.
    """
    scores = query.float() @ key.detach().float().transpose(1, 2) / temperature
    wanted = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    return F.cross_entropy(scores.flatten(0, 1), wanted.flatten())
