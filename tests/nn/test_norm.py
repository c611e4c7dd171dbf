"""Normalisation against plain formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from styletools.nn import norm
from styletools.nn.norm import conditional_instance_norm, instance_norm, replaced

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 9), st.integers(1, 9))


def plain(x, eps=1e-5):
    f = x.double().numpy()
    return (f - f.mean((2, 3), keepdims=True)) / np.sqrt(f.var((2, 3), keepdims=True) + eps)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 99))
def test_instance_norm(shape, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 5
    np.testing.assert_allclose(instance_norm(x).numpy(), plain(x), rtol=2e-3, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 99))
def test_conditional_instance_norm(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    x, scale, shift = (torch.randn(s, generator=generator) for s in (shape, shape[:2], shape[:2]))
    expected = plain(x) * (1 + scale.double().numpy()[:, :, None, None]) + shift.double().numpy()[:, :, None, None]
    np.testing.assert_allclose(conditional_instance_norm(x, scale, shift).numpy(), expected, rtol=2e-3, atol=2e-3)
    one = conditional_instance_norm(x, scale[:1], shift[:1])
    torch.testing.assert_close(one[:1], conditional_instance_norm(x[:1], scale[:1], shift[:1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_survive_sixteen_bits(dtype):
    """A deviation far below the mean: in bfloat16 sums it would vanish."""
    x = (100 + torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))).to(dtype)
    zero = torch.zeros(1, 2)
    for result in (instance_norm(x), conditional_instance_norm(x, zero, zero)):
        assert result.dtype == dtype
        np.testing.assert_allclose(result.double().numpy(), plain(x), atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mean", [0, 3, 100])
def test_with_fewer_passes_over_memory_it_is_the_same(dtype, mean):
    """What runs on GPUs, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 33, 47, generator=generator) * torch.linspace(0.1, 3, 8).view(1, 8, 1, 1) + mean
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    scale, shift = (torch.randn(1, 8, generator=generator) for _ in range(2))
    with torch.inference_mode():
        result = norm._normalize_16_bits(x, scale, shift, 1e-5)
        wanted = conditional_instance_norm(x, scale, shift)
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_the_same_in_16_bits():
    x = (3 + torch.randn(2, 8, 33, 47)).half().contiguous(memory_format=torch.channels_last)
    scale, shift = torch.randn(2, 1, 8)
    with torch.inference_mode():
        made = conditional_instance_norm(x.cuda(), scale.cuda(), shift.cuda())
        torch.testing.assert_close(made.cpu(), conditional_instance_norm(x, scale, shift), rtol=4e-3, atol=4e-3)
        torch.testing.assert_close(instance_norm(x.cuda()).cpu(), instance_norm(x), rtol=4e-3, atol=4e-3)


def test_under_autocast_it_stays_in_float32():
    x = 1000 + torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert instance_norm(x).dtype == torch.float32
        np.testing.assert_allclose(instance_norm(x).numpy(), plain(x), atol=0.01)


def test_constant_channels_and_single_pixels_become_zero():
    assert instance_norm(torch.full((1, 2, 4, 4), 7.0)).abs().max() < 1e-3
    scale, shift = torch.zeros(1, 2), torch.ones(1, 2)
    assert (conditional_instance_norm(torch.full((1, 2, 1, 1), 7.0), scale, shift) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("styles", [1, 2])
def test_gradient_in_closed_form(styles):
    generator = torch.Generator().manual_seed(0)
    x, scale, shift = (
        torch.randn(s, generator=generator, requires_grad=True) for s in ((2, 3, 6, 5), (styles, 3), (styles, 3))
    )
    weights = torch.randn(x.shape, generator=generator)
    (conditional_instance_norm(x, scale, shift) * weights).sum().backward()
    found = [tensor.grad.clone() for tensor in (x, scale, shift)]
    x.grad = scale.grad = shift.grad = None
    spread = (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    plain = (x - x.mean((2, 3), keepdim=True)) / spread * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    (plain * weights).sum().backward()
    for ours, theirs in zip(found, (x.grad, scale.grad, shift.grad)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_with_and_without_gradients_it_is_the_same():
    x, scale, shift = torch.rand(2, 3, 4, 4), torch.rand(1, 3), torch.rand(1, 3)
    with torch.no_grad():
        without = conditional_instance_norm(x, scale, shift)
    assert torch.equal(without, conditional_instance_norm(x, scale, shift))


def test_statistics_can_be_seen_and_replaced():
    generator = torch.Generator().manual_seed(0)
    x, scale, shift = (torch.randn(s, generator=generator) for s in ((1, 3, 6, 5), (1, 3), (1, 3)))
    seen = []

    def keep(mean, variance):
        seen.append((mean, variance))
        return mean, variance

    def double(mean, variance):
        return mean + 1, 4 * variance

    with torch.no_grad():
        plain, conditional = instance_norm(x), conditional_instance_norm(x, scale, shift)
        with replaced(keep):
            assert torch.equal(conditional_instance_norm(x, scale, shift), conditional)
            torch.testing.assert_close(instance_norm(x), plain)
        with replaced(double):
            wanted = (plain - (x.var((2, 3), keepdim=True, correction=0) + 1e-5).rsqrt()) / 2
            torch.testing.assert_close(instance_norm(x), wanted, rtol=1e-4, atol=1e-4)
            wanted = wanted * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
            torch.testing.assert_close(conditional_instance_norm(x, scale, shift), wanted, rtol=1e-4, atol=1e-4)
        assert torch.equal(instance_norm(x), plain), "it ends with its context"
    assert len(seen) == 2
    torch.testing.assert_close(seen[0][0], x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(seen[1][1], x.var((2, 3), keepdim=True, correction=0))
    with replaced(double):
        torch.testing.assert_close(instance_norm(x), plain)  # training has its own
