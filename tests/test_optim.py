import copy
import math

import pytest
import torch
from torch import nn

from styletools.optim import SOAP


def best(optimizer):
    """Find a matrix through two others that turn and squeeze it, gradients noisy; return the least that is left.

    The learning rate is the best of four, and falls to nothing.
    """
    left = []
    for lr in (0.003, 0.01, 0.03, 0.1):
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in (10, 14))
        a, b = torch.logspace(0, -1.5, 10)[:, None] * a, b * torch.logspace(0, -1.5, 14)
        wanted, parameter = torch.randn(10, 14, generator=generator), nn.Parameter(torch.zeros(10, 14))
        stepping = optimizer([parameter], lr=lr, betas=(0.95, 0.97))
        for i in range(250):
            stepping.param_groups[0]["lr"] = lr * (1 - i / 250)
            wrong = a @ (parameter.detach() - wanted) @ b
            parameter.grad = a.T @ (wrong + 0.1 * torch.randn(10, 14, generator=generator)) @ b.T
            stepping.step()
        left.append(float(wrong.square().mean()))
    return min(left)


def test_it_gets_further_than_adam_where_gradients_are_correlated():
    assert best(SOAP) < 0.5 * best(torch.optim.Adam)


def test_what_has_one_dimension_gets_adam():
    """But for the first step, which only looks."""
    start, gradients = torch.randn(5), torch.randn(6, 5)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    soap, adam = SOAP([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1, betas=(0.95, 0.97), eps=1e-12)
    for i, gradient in enumerate(gradients):
        ours.grad = theirs.grad = gradient
        soap.step()
        if i:
            adam.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_a_turned_problem_is_turned_back():
    """With rows and columns turned, the steps are those of the problem as it was, turned: Adam's are not."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(6, 6))[0] for _ in range(2))
    start, scales = torch.randn(6, 6), torch.logspace(0, 1, 6)[:, None] * torch.logspace(0, 1.3, 6)
    straight, turned = nn.Parameter(start.clone()), nn.Parameter(left @ start @ right)
    optimizers = SOAP([straight], lr=0.01), SOAP([turned], lr=0.01)
    for _ in range(8):
        gradient = torch.randn(6, 6) * scales
        straight.grad, turned.grad = gradient, left @ gradient @ right
        for optimizer in optimizers:
            optimizer.step()
    assert (straight - start).abs().max() > 0.03
    torch.testing.assert_close(left @ straight @ right, turned, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (6, 1000), (1, 8), (5,), ()])
def test_any_shape_goes_down(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    parameter = nn.Parameter(start.clone())
    optimizer = SOAP([parameter], lr=0.03)
    for _ in range(90):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert parameter.detach().norm() < 0.6 * start.norm()


def test_it_goes_on_bit_for_bit():
    torch.manual_seed(1)
    parameter = nn.Parameter(torch.randn(6, 4))
    optimizer = SOAP([parameter])
    gradients = torch.randn(60, 6, 4)
    for gradient in gradients[:33]:
        parameter.grad = gradient
        optimizer.step()
    again = nn.Parameter(parameter.detach().clone())
    other = SOAP([again], lr=1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for gradient in gradients[33:]:
        parameter.grad = again.grad = gradient
        optimizer.step()
        other.step()
    assert torch.equal(parameter, again) and math.isfinite(float(again.detach().abs().sum()))


def test_it_computes_in_float32_where_the_rest_does_not():
    torch.manual_seed(2)
    start, gradients = torch.randn(6, 4), torch.randn(30, 6, 4)
    found = []
    for enabled in (False, True):
        parameter = nn.Parameter(start.clone())
        optimizer = SOAP([parameter], lr=0.01)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for gradient in gradients:
                parameter.grad = gradient
                optimizer.step()
        found.append(parameter.detach())
    assert torch.equal(*found) and (found[0] - start).abs().max() > 0.05
