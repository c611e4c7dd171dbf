"""Statistics of features, the currency of style: means, raw second moments, Gram matrices, covariances.

Features are (N, C, H, W) or (C, H, W); every function says by what it divides. The *raw* second moment
E[f fᵀ] and the mean add up linearly over images and weights, which covariances and deviations do not:
so these two are what is stored and merged, and the others are derived on use.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-5

_take: ContextVar[Callable[[Tensor, str], tuple[Tensor, Tensor]] | None] = ContextVar("take", default=None)


@contextlib.contextmanager
def taken_by(take: Callable[[Tensor, str], tuple[Tensor, Tensor]]) -> Iterator[None]:
    """For as long as this lasts, statistics over pixels are what `take(features, kind)` says that they are.

    It is for pictures of which only a part is at hand, holds for this thread, and without gradients only. features:
    (..., C, H, W). kind: "norm" of normalisation layers, or "variance", for the mean and the biased variance, (..., C)
    each; "unbiased" for the mean and the unbiased variance; "covariance" for the mean, and (..., C, C).
    """
    token = _take.set(take)
    try:
        yield
    finally:
        _take.reset(token)


def are_taken() -> bool:
    """Tell whether statistics come from somewhere else at present."""
    return _take.get() is not None


def taken(features: Tensor, kind: str) -> tuple[Tensor, Tensor] | None:
    """Return the statistics of what is larger than these features, as `taken_by` says; None: these are all."""
    take = _take.get()
    return take(features, kind) if take is not None and not torch.is_grad_enabled() else None


def _flat(features: Tensor) -> Tensor:
    """Return (..., C, H·W), at least in float32."""
    flat = features.flatten(-2)
    return flat if flat.dtype == torch.float64 else flat.float()


def mean(features: Tensor) -> Tensor:
    """Return the mean over pixels: (..., C, H, W) → (..., C)."""
    if (known := taken(features, "variance")) is not None:
        return known[0]
    return _flat(features).mean(-1)


def moment(features: Tensor) -> Tensor:
    """Return the raw second moment, F Fᵀ / (H·W): (..., C, H, W) → (..., C, C)."""
    if (known := taken(features, "covariance")) is not None:
        return known[1] + known[0][..., :, None] * known[0][..., None, :]
    return _product(_flat(features))


def _product(flat: Tensor) -> Tensor:
    """Return F Fᵀ / pixels of (..., C, pixels), in the type it has: autocast would round it to 16 bits."""
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ flat.transpose(-1, -2) / flat.shape[-1]


def gram_matrix(features: Tensor) -> Tensor:
    """Return the Gram matrix F Fᵀ / (C·H·W): (..., C, H, W) → (..., C, C).

    Gatys et al. leave the division to the loss (arXiv:1508.06576); divided by all entries, as Johnson et al.
    do (arXiv:1603.08155), its size does not depend on the picture's.
    """
    return moment(features) / features.shape[-3]


def mean_std(features: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over pixels: (..., C, H, W) → two of (..., C).

    The variance is the biased one (divided by H·W); `eps` under the root keeps the gradient bounded where
    a channel is constant.
    """
    if (known := taken(features, "variance")) is not None:
        return known[0], (known[1] + eps).sqrt()
    given = features.flatten(-2)
    if not torch.is_grad_enabled():  # steps that can be written down as a graph or a program
        return _mean_std(given, eps)
    return _MeanStd.apply(given, eps)


def _mean_std(given: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of (..., C, pixels) over the last dimension, at least in float32."""
    flat = given if given.dtype == torch.float64 else given.float()
    average = flat.mean(-1)
    # Twice faster than var_mean, which torch does not vectorise for channels-last tensors.
    centred = flat - average[..., None]
    return average, ((centred * centred).mean(-1) + eps).sqrt()


class _MeanStd(torch.autograd.Function):
    """Mean and deviation of (..., C, pixels), with a gradient in closed form: a fifth of the time of autograd's."""

    @staticmethod
    def forward(ctx, given, eps):
        average, deviation = _mean_std(given, eps)
        ctx.save_for_backward(given, average, deviation)
        return average, deviation

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, for_average, for_deviation):
        given, average, deviation = ctx.saved_tensors
        slope = (for_deviation / deviation / given.shape[-1])[..., None]
        level = (for_average / given.shape[-1])[..., None] - slope * average[..., None]
        return torch.addcmul(level, given.to(level.dtype), slope).to(given.dtype), None


def covariance(features: Tensor) -> Tensor:
    """Return the biased covariance over pixels, divided by H·W: (..., C, H, W) → (..., C, C)."""
    return mean_covariance(features)[1]


def mean_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased covariance over pixels: (..., C, H, W) → (..., C), (..., C, C)."""
    if (known := taken(features, "covariance")) is not None:
        return known
    flat = _flat(features)
    average = flat.mean(-1)
    return average, _product(flat - average[..., None])


def gram_from_moment(second: Tensor) -> Tensor:
    """Derive the Gram matrix (divided by C·H·W) from a raw second moment (..., C, C)."""
    return second / second.shape[-1]


def covariance_from_moment(average: Tensor, second: Tensor) -> Tensor:
    """Derive the biased covariance from a mean (..., C) and a raw second moment (..., C, C)."""
    return second - average[..., :, None] * average[..., None, :]


def affine_statistics(average: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and raw second moment of W f + b from those of f: (..., C), (..., C, C) → (..., D), (..., D, D).

    weight: (D, C); bias: (D,). Statistics of wider features cost no pass over their pixels.
    """
    mapped = average @ weight.T
    cross = mapped[..., :, None] * bias
    mapped_second = weight @ second @ weight.T + cross + cross.transpose(-1, -2) + bias[:, None] * bias
    return mapped + bias, mapped_second


def adapt(content: Tensor, average: Tensor, deviation: Tensor) -> Tensor:
    """Return features (N, C, H, W) with the mean and deviation (N or 1, C) of a style in the place of their own.

    Adaptive instance normalisation, arXiv:1703.06868.
    """
    own_average, own_deviation = (value[:, :, None, None] for value in mean_std(content))
    return (content - own_average) / own_deviation * deviation[:, :, None, None] + average[:, :, None, None]


def std_from_moment(average: Tensor, second: Tensor, eps: float = EPS) -> Tensor:
    """Derive the standard deviation (..., C), as `mean_std` gives it, from a mean and a raw second moment."""
    variance = torch.diagonal(second, dim1=-2, dim2=-1) - average.square()
    return (variance.clamp_min(0) + eps).sqrt()


def rectified_normal(average: Tensor, std: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of max(x, 0) where x is normal with this mean and deviation (above 0), elementwise."""
    z = average / std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    above = 0.5 * torch.erfc(-z / math.sqrt(2))
    first = average * above + std * density
    second = (average.square() + std.square()) * above + average * std * density
    return first, ((second - first.square()).clamp_min(0) + eps).sqrt()


def symmetric_power(matrix: Tensor, power: float, floor: float = 1e-5) -> Tensor:
    """Return a real power of symmetric positive semidefinite matrices (..., C, C), in float64.

    Eigenvalues below `floor` times the largest count as that much, so that negative powers stay bounded. Always
    finite: where the decomposition does not converge, the diagonal alone is taken; what is not finite counts as 0.
    """
    wide = torch.nan_to_num(matrix.double(), nan=0.0, posinf=0.0, neginf=0.0)
    wide = (wide + wide.transpose(-1, -2)) / 2
    try:
        values, vectors = torch.linalg.eigh(wide)
    except RuntimeError:  # LinAlgError among them
        values = torch.diagonal(wide, dim1=-2, dim2=-1)
        vectors = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device).expand_as(wide)
    least = (values.amax(-1, keepdim=True) * floor).clamp_min(1e-12)
    return (vectors * values.clamp_min(least)[..., None, :].pow(power)) @ vectors.transpose(-1, -2)


def whiten(features: Tensor) -> Tensor:
    """Return features with mean 0 and covariance I over pixels: (N, C, H, W), in float64.

    Directions in which there is (nearly) nothing, as in constant pictures or with fewer pixels than channels, stay
    (nearly) nothing. Paper: arXiv:1705.08086.
    """
    wide = features.double()
    average, spread = mean_covariance(wide)
    centred = wide.flatten(-2) - average[..., None]
    return (symmetric_power(spread, -0.5) @ centred).view(features.shape)


def colour(whitened: Tensor, average: Tensor, second: Tensor) -> Tensor:
    """Give whitened features (N, C, H, W) a mean (C,) and the covariance that a raw second moment (C, C) tells.

    The result is in the type of `whitened`. Paper: arXiv:1705.08086.
    """
    average = average.to(whitened.dtype)
    root = symmetric_power(covariance_from_moment(average.double(), second.double()), 0.5, floor=0.0)
    return (root.to(whitened.dtype) @ whitened.flatten(-2) + average[:, None]).view(whitened.shape)


def merge(records: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of statistics that add up linearly, tensor by tensor.

    records: dicts with the same keys and shapes; weights: as many numbers, brought to sum 1.
    Raises ValueError when they do not match or the weights sum to nothing.
    """
    total = float(sum(weights))
    if len(records) != len(weights) or not records:
        raise ValueError("as many weights as records are needed, at least one")
    if not total > 0:
        raise ValueError("weights must sum to more than 0")
    keys = set(records[0])
    if any(set(record) != keys for record in records):
        raise ValueError("the records hold different tensors")
    return {key: sum(record[key] * (weight / total) for record, weight in zip(records, weights)) for key in records[0]}


# ---- colour: (1, 3, H, W) RGB in [0, 1] ------------------------------------------------------------------


def keep_chroma(image: Tensor, reference: Tensor) -> Tensor:
    """Return the luminance of `image` with the chroma of `reference` (the YIQ space of NTSC).

    "Luminance-only transfer" of Gatys et al., arXiv:1606.05897. Values may leave [0, 1].
    """
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    # Adding the same amount to R, G and B changes Y alone, for the weights sum to 1.
    return reference + ((image - reference) * weights).sum(1, keepdim=True)


def match_covariance(image: Tensor, reference: Tensor) -> Tensor:
    """Return `image` with its colours mapped linearly to the mean and covariance of those of `reference`.

    The symmetric (Monge-Kantorovich) map, which turns colours the least; as in arXiv:1606.05897, but applied to
    the result, so that it serves styles of which only a record is at hand. Values may leave [0, 1].
    """
    source = image[0].double()
    source_mean, source_spread = mean_covariance(source)
    target_mean, target_spread = mean_covariance(reference[0].double())
    eye = 1e-6 * torch.eye(3, dtype=torch.float64, device=image.device)
    source_root = _root(source_spread + eye)
    inverse = torch.linalg.inv(source_root)
    mapping = inverse @ _root(source_root @ (target_spread + eye) @ source_root) @ inverse
    mapped = mapping @ (source.flatten(1) - source_mean[:, None]) + target_mean[:, None]
    return mapped.to(image.dtype).view_as(image)


def _root(matrix: Tensor) -> Tensor:
    """Return the symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


def match_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """Return `image` with the distribution of each channel mapped to that of `reference`'s channel.

    Equal values stay equal: areas that are clipped to black or white get the mean of the values that they would share.
    """
    source, target = image[0].flatten(1), reference[0].flatten(1)
    ranked = target.sort(1).values
    if ranked.shape[1] != source.shape[1]:
        ranked = F.interpolate(ranked[None], source.shape[1], mode="linear", align_corners=True)[0]
    channels = []
    for values, wanted in zip(source, ranked):
        _, group, size = values.unique(return_inverse=True, return_counts=True)
        sums = wanted.double().cumsum(0)[size.cumsum(0) - 1].diff(prepend=wanted.new_zeros(1).double())
        channels.append((sums / size).to(image.dtype)[group])
    return torch.stack(channels).view_as(image)


COLOR_TRANSFERS = {"luminance": keep_chroma, "coral": match_covariance, "histogram": match_histogram}
