"""The training loop: every method, any device. Read it top to bottom."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from styletools import errors, files, log, modelfile
from styletools.engine import device as devices
from styletools.engine.data import Batches
from styletools.methods import Method


@dataclass(frozen=True)
class Plan:
    """How long and how to train. Counts are steps, times seconds."""

    steps: int = 10_000
    time_budget: float | None = None
    warmup: int = 100
    schedule: str = "cosine"  # constant | cosine | trapezoid: constant, then down to 0 over the last 30 %
    clip: float = 1.0  # largest norm of the gradient; 0: no limit
    ema: float = 0.999  # decay of the averaged weights that are saved; 0: save the weights as they are
    validate_every: int = 500
    save_every: int = 500
    seed: int = 0
    amp: bool = True  # bfloat16 autocast, where the hardware has it


def rate(plan: Plan, step: int) -> float:
    """Return the factor of the learning rate at `step`."""
    warm = min(1.0, (step + 1) / max(plan.warmup, 1))
    done = min(step / max(plan.steps, 1), 1.0)
    if plan.schedule == "cosine":
        return warm * (0.5 * (1 + math.cos(math.pi * done)) * 0.99 + 0.01)
    if plan.schedule == "trapezoid":
        return warm * min(1.0, max((1 - done) / 0.3, 0.01))
    return warm


class Average:
    """Exponential moving average of a method's weights, in float32."""

    def __init__(self, method: Method, decay: float):
        self.decay, self.updates = decay, 0
        self.values = {k: v.detach().clone() for k, v in method.nets.state_dict().items()}

    @torch.no_grad()
    def update(self, method: Method) -> None:
        self.updates += 1
        # Early on the mean is short, so that the random start is forgotten.
        decay = min(self.decay, self.updates / (self.updates + 9))
        for key, value in method.nets.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value.to(self.values[key].dtype), 1 - decay)
            else:
                self.values[key].copy_(value)


def train(
    name: str,
    method: Method,
    batches: Batches,
    validation: Batches | None,
    output: Path,
    plan: Plan,
    *,
    device: torch.device,
    resume: bool = False,
    trained_on: str = "",
    licence: str = "",
    created_by: str = "",
    half: bool = False,
    initial: Path | None = None,
) -> int:
    """Train `method` (called `name`) and write the model file `output`; return the number of steps done in all.

    Beside it stand `X.resume.pt` (optimizers, averaged weights, random state, step) and `X.log.jsonl`.
    `resume` continues from there, on the CPU bit for bit as if never interrupted. SIGTERM and Ctrl-C save,
    then end. Raises DataError when a loss is not finite: the last saved model stays.
    """
    resume_path, log_path = output.with_suffix(".resume.pt"), output.with_suffix(".log.jsonl")
    devices.seed_everything(plan.seed)
    amp = plan.amp and devices.has_fast_bfloat16(device)
    method.to(device)
    if initial:
        from safetensors.torch import load_file

        modelfile.load_tensors(method, load_file(initial), initial)
    elif not resume:
        # Of steps that no run comes to, so that no batch of training is seen twice.
        method.initialize(_on_device(_concatenate([batches.make(2**31 - i) for i in range(1, 9)]), device))
    method.nets.train()
    for net in method.nets.values():
        net.to(memory_format=torch.channels_last)
    optimizers = method.optimizers()
    average = Average(method, plan.ema) if plan.ema else None
    base = {key: [group["lr"] for group in o.param_groups] for key, o in optimizers.items()}
    start, spent = 0, 0.0
    if resume:
        start, spent, base = _load(resume_path, method, optimizers, average)
    method.update = _guarded_update(method, plan.clip)

    began = time.monotonic()
    progress = log.Progress(plan.steps, "step")
    recent: dict[str, list[float]] = {}
    step = start

    def save() -> None:
        tensors = average.values if average else method.nets.state_dict()
        modelfile.save(
            output, name, method, step=step, trained_on=trained_on, licence=licence, created_by=created_by,
            half=half, tensors=tensors,
        )  # fmt: skip
        _save(resume_path, method, optimizers, average, base, step, spent + time.monotonic() - began)

    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log_path, "a" if resume else "w", encoding="utf-8", buffering=1) as journal,
        contextlib.closing(progress),
        _noted_signals() as stop,
    ):
        for step, batch in batches.iterate(start, plan.steps):
            factor = rate(plan, step)
            for key, optimizer in optimizers.items():
                for group, lr in zip(optimizer.param_groups, base[key]):
                    group["lr"] = lr * factor
            with devices.autocast(device, amp):
                losses = method.train_step(_on_device(batch, device), optimizers, step)
            if average:
                average.update(method)
            step += 1
            for key, value in losses.items():
                number = float(value.detach())
                if not math.isfinite(number):
                    raise errors.DataError(f"loss {key} became {number} at step {step}; the last model saved is kept")
                recent.setdefault(key, []).append(number)
            means = {key: round(sum(values) / len(values), 6) for key, values in recent.items()}
            progress.update(step, " ".join(f"{key} {value:.4g}" for key, value in means.items()))
            elapsed = spent + time.monotonic() - began
            if step % 50 == 0:
                print(json.dumps({"step": step, "seconds": round(elapsed, 1), "lr": factor} | means), file=journal)
                recent = {}
            if validation and step % plan.validate_every == 0:
                scores = _validate(method, validation, average, device, amp)
                print(json.dumps({"step": step, "validation": scores}), file=journal)
                log.info(f"step {step}: " + " ".join(f"{k} {v:.4g}" for k, v in scores.items()))
            out_of_time = plan.time_budget is not None and elapsed >= plan.time_budget
            if step % plan.save_every == 0 and step < plan.steps:
                save()
            if stop["signal"] or out_of_time:
                break
        save()
    if stop["signal"]:
        log.warning(f"stopped at step {step}; --resume goes on from here")
        signal.signal(stop["signal"], signal.SIG_DFL)
        os.kill(os.getpid(), stop["signal"])
    return step


def _on_device(batch: dict, device: torch.device) -> dict:
    """Bring uint8 crops to the device as float in [0, 1], channels last."""
    return {k: v.to(device).float().div_(255).contiguous(memory_format=torch.channels_last) for k, v in batch.items()}


def _concatenate(many: list[dict]) -> dict:
    """Join batches into one, cut to the smallest of their sizes."""
    smallest = min(next(iter(batch.values())).shape[-1] for batch in many)
    return {key: torch.cat([batch[key][..., :smallest, :smallest] for batch in many]) for key in many[0]}


def _guarded_update(method: Method, clip: float):
    """Return the `update` that methods call: gradients clipped, and no step on a gradient that is not finite."""

    def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
        if torch.isfinite(norm):
            optimizer.step()

    return update


def _validate(method, validation, average, device, amp) -> dict[str, float]:
    """Return the mean losses of the averaged weights over eight fixed held-out batches."""
    own = {k: v.detach().clone() for k, v in method.nets.state_dict().items()}
    random = torch.get_rng_state()
    if average:
        method.nets.load_state_dict(average.values)
    method.nets.eval()
    sums: dict[str, float] = {}
    with torch.no_grad(), devices.autocast(device, amp):
        for i in range(8):
            for key, value in method.validate(_on_device(validation.make(i), device)).items():
                sums[key] = sums.get(key, 0.0) + float(value) / 8
    method.nets.load_state_dict(own)
    method.nets.train()
    torch.set_rng_state(random)
    return {key: round(value, 6) for key, value in sums.items()}


@contextlib.contextmanager
def _noted_signals() -> Iterator[dict]:
    """Within, SIGTERM and SIGINT are noted as ["signal"] instead of ending us; a second one ends us at once."""
    seen = {"signal": None}

    def note(number, frame):
        seen["signal"] = number
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(path, method, optimizers, average, base, step, spent) -> None:
    """Write all that `_load` needs to go on bit for bit."""
    state = {
        "nets": method.nets.state_dict(),
        "optimizers": {key: o.state_dict() for key, o in optimizers.items()},
        "average": {"values": average.values, "updates": average.updates} if average else None,
        "rates": base,
        "random": torch.get_rng_state(),
        "step": step,
        "spent": spent,
    }
    with files.atomic(path) as out:
        torch.save(state, out)


def _read(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise errors.MissingInput(f"{path}: nothing to resume from") from error
    except Exception as error:
        raise errors.DataError(f"{path}: cannot be resumed from: {str(error).splitlines()[0]}") from error


def _load(path, method, optimizers, average) -> tuple[int, float, dict[str, list[float]]]:
    """Restore a run; return the steps done, the seconds spent, and the full learning rates."""
    state = _read(path)
    try:
        method.nets.load_state_dict(state["nets"])
        for key, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][key])
        if average and state["average"]:
            average.values, average.updates = state["average"]["values"], state["average"]["updates"]
    except (KeyError, RuntimeError, ValueError) as error:
        raise errors.DoesNotFit(f"{path}: made by another method or configuration") from error
    torch.set_rng_state(state["random"])
    return state["step"], state["spent"], state["rates"]
