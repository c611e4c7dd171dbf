"""Optimizers that torch lacks."""

import torch
from torch import Tensor
from torch.optim import Optimizer

LEAST = 1e-3  # of the typical size of a gradient: directions in which there is less are not stepped along as far
LARGEST = 800  # sides longer than this are left as they are: a basis of them costs more than it gains
TINY = 1e-12  # where there is no gradient at all
EVERY = 20  # steps between two looks at the basis


class SOAP(Optimizer):
    """Adam in the basis in which the gradients of a matrix are least correlated: fewer steps, each a little dearer.

    That basis is the one of Shampoo's preconditioners, followed by one step of orthogonal iteration every so often
    (arXiv:2409.11321). A convolution counts as a matrix with a row per output channel; what has one dimension gets
    plain Adam. The first step only looks.
    """

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.95, 0.97)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                with torch.autocast(parameter.device.type, enabled=False):
                    change = self._change(self.state[parameter], _as_matrix(parameter.grad.float()), *group["betas"])
                if change is not None:
                    parameter.sub_(group["lr"] * change.view_as(parameter))
        return loss

    def _change(self, state: dict[str, Tensor], gradient: Tensor, beta1: float, beta2: float):
        """Return by what the matrix is to be changed, for a learning rate of 1; None at the first step."""
        first = not state
        if first:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            for side, length in zip(("rows", "columns"), gradient.shape):
                if 1 < length <= LARGEST and gradient.shape[0] > 1:
                    state[side] = gradient.new_zeros(length, length)
        _correlate(state, gradient, 0 if first else beta2)
        if first:
            for side in [side for side in ("rows", "columns") if side in state]:
                state[f"{side}_basis"] = torch.linalg.eigh(state[side])[1].flip(1).contiguous()
            return None
        state["step"] += 1
        step = int(state["step"])
        turned = _turn(state, gradient)
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(turned * turned, 1 - beta2)
        mean, size = _turn(state, state["mean"]) / (1 - beta1**step), (state["square"] / (1 - beta2**step)).sqrt()
        change = _turn_back(state, mean / size.clamp_min(LEAST * size.square().mean().sqrt() + TINY))
        if step % EVERY == 0 or step == 2:
            _improve(state)
        return change


def _as_matrix(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1) if x.dim() > 1 else x.reshape(1, -1)


def _correlate(state: dict[str, Tensor], gradient: Tensor, keep: float) -> None:
    """Take a gradient into the running correlations of rows and of columns."""
    if "rows" in state:
        state["rows"].lerp_(gradient @ gradient.T, 1 - keep)
    if "columns" in state:
        state["columns"].lerp_(gradient.T @ gradient, 1 - keep)


def _turn(state: dict[str, Tensor], x: Tensor) -> Tensor:
    if "rows_basis" in state:
        x = state["rows_basis"].T @ x
    return x @ state["columns_basis"] if "columns_basis" in state else x


def _turn_back(state: dict[str, Tensor], x: Tensor) -> Tensor:
    if "rows_basis" in state:
        x = state["rows_basis"] @ x
    return x @ state["columns_basis"].T if "columns_basis" in state else x


def _improve(state: dict[str, Tensor]) -> None:
    """Bring the bases nearer to the eigenvectors, sorted by what they explain; what is known of squares follows."""
    for dimension, side in enumerate(("rows", "columns")):
        if side in state:
            basis = state[f"{side}_basis"]
            product = state[side] @ basis
            order = (basis * product).sum(0).argsort(descending=True, stable=True)
            state["square"] = state["square"].index_select(dimension, order)
            state[f"{side}_basis"] = torch.linalg.qr(product[:, order])[0]
