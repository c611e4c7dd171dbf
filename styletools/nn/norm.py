"""Normalisation layers whose statistics stay in float32, whatever the network runs in."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F

from styletools import stats

_replace: ContextVar[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None] = ContextVar("replace", default=None)


@contextlib.contextmanager
def replaced(replace: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None) -> Iterator[None]:
    """For as long as this lasts, normalise with what `replace` makes of each mean and variance, layer after layer.

    Both are float32 (N, C, 1, 1). It is for the frames of a film and holds for this thread, and without gradients only.
    """
    token = _replace.set(replace)
    try:
        yield
    finally:
        _replace.reset(token)


def replacement() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return what statistics are replaced by at present."""
    return _replace.get()


def instance_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Bring each channel of each image to mean 0 and variance 1 over its pixels (biased variance).

    x: (N, C, H, W), any float type; statistics are taken in float32, since bfloat16 sums lose small variances.
    Paper: arXiv:1607.08022 (Ulyanov et al., 2016)
    """
    with torch.autocast(x.device.type, enabled=False):
        if (_replace.get() is not None or stats.are_taken()) and not torch.is_grad_enabled():
            zero = x.new_zeros(1, x.shape[1], dtype=torch.float32)
            return _normalize(x, zero, zero, eps)[0]
        if _saves_passes(x):
            zero = x.new_zeros(1, x.shape[1], dtype=torch.float32)
            return _normalize_16_bits(x, zero, zero, eps)
        return F.instance_norm(x.float(), eps=eps).to(x.dtype)


class InstanceNorm(nn.Module):
    """`instance_norm` as a layer: it has no weights."""

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x)


def conditional_instance_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Instance normalisation, then a scale and a shift per channel that carry the style.

    x: (N, C, H, W); scale, shift: (N or 1, C). A scale of 0 means unchanged: the factor is 1 + scale.
    Paper: arXiv:1610.07629 (Dumoulin et al., 2016)
    """
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled():
            return _ConditionalInstanceNorm.apply(x, scale.float(), shift.float(), eps)
        if _saves_passes(x) and _replace.get() is None and not stats.are_taken():
            return _normalize_16_bits(x, scale.float(), shift.float(), eps)
        if get_proxy_mode() is not None and _replace.get() is None:  # for engines that know it as one step
            return F.instance_norm(x, eps=eps) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
        return _normalize(x, scale.float(), shift.float(), eps)[0]


def _normalize(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result, and in float32 the centred input and the inverse deviation."""
    y = x.float()
    known = stats.taken(y, "norm")
    if known is not None:
        mean, variance = (value[:, :, None, None] for value in known)
        centred = y - mean
    else:
        # Twice faster than var_mean, which torch does not vectorise for channels-last tensors.
        mean = y.mean((2, 3), keepdim=True)
        centred = y - mean
        variance = (centred * centred).mean((2, 3), keepdim=True)
    replace = _replace.get()
    other = mean
    if replace is not None and not torch.is_grad_enabled():
        other, variance = replace(mean, variance)
    inverse = torch.rsqrt(variance + eps)
    factor = (1 + scale)[:, :, None, None] * inverse
    shift = shift[:, :, None, None]
    if other is not mean:
        shift = shift + (mean - other) * factor
    return torch.addcmul(shift, centred, factor).to(x.dtype), centred, inverse


def _saves_passes(x: Tensor) -> bool:
    """Tell whether time goes into moving values of 16 bits: on a GPU, without gradients."""
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and not torch.is_grad_enabled()


def _normalize_16_bits(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Return the result of `_normalize`, having moved 8 bytes a value where that moves 44.

    Nothing but the result is written; statistics are taken in float32 as the values are read.
    """
    mean = x.mean((2, 3), keepdim=True, dtype=torch.float32)
    variance = torch.var(x, (2, 3), correction=0, keepdim=True, out=torch.empty_like(mean))
    factor = (1 + scale)[:, :, None, None] * torch.rsqrt(variance + eps)
    return torch.addcmul(shift[:, :, None, None] - mean * factor, x, factor, out=torch.empty_like(x))


class _ConditionalInstanceNorm(torch.autograd.Function):
    """The same with its gradient in closed form: a fifth of the time that autograd takes over the single steps."""

    @staticmethod
    def forward(ctx, x, scale, shift, eps):
        result, centred, inverse = _normalize(x, scale, shift, eps)
        ctx.save_for_backward(centred, inverse, scale)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        centred, inverse, scale = ctx.saved_tensors
        given = gradient.float()
        average = given.mean((2, 3), keepdim=True)
        slope = (given * centred).mean((2, 3), keepdim=True)
        for_x = torch.addcmul(given - average, centred, -(inverse * inverse * slope))
        for_x *= (1 + scale)[:, :, None, None] * inverse
        pixels = centred.shape[2] * centred.shape[3]
        for_scale, for_shift = ((v * pixels)[:, :, 0, 0].sum_to_size(scale.shape) for v in (slope * inverse, average))
        return for_x.to(gradient.dtype), for_scale, for_shift, None
