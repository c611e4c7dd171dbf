"""The training loop: every method, any device, one process or several. Read it top to bottom."""

import contextlib
import io
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from styletools import errors, files, log, methods, modelfile
from styletools.engine import device as devices
from styletools.engine import reports
from styletools.engine.data import Batches
from styletools.engine.ranks import Ranks
from styletools.methods import Method
from styletools.nn.precision import has_fast_bfloat16

JOURNAL_EVERY = 50  # steps from one entry of the journal to the next
LOOK_EVERY = 10  # steps from one look at the losses to the next, on a GPU, which should not be waited for; divides it
NEVER = 2**31  # a step that no run comes to: batches from here down are none of training


@dataclass(frozen=True)
class Plan:
    """How long and how to train. Counts are steps, times seconds."""

    steps: int = 10_000
    time_budget: float | None = None
    warmup: int = 100
    schedule: str = "cosine"  # constant | cosine | trapezoid, linear: constant, then down to 0 (last 30 %, last half)
    clip: float = 1.0  # largest norm of the gradient; 0: no limit
    weight_decay: float = 0.0  # matrices and kernels shrink by this times the learning rate in each step
    freeze: tuple[str, ...] = ()  # nets that stay as they are
    ema: float = 0.999  # decay of the averaged weights that are saved; 0: save the weights as they are
    validate_every: int = 500
    patience: int = 0  # validations without a lower loss after which training ends; 0: it goes on
    sample_every: int = 0  # 0: no sheets of samples
    save_every: int = 500
    seed: int = 0
    amp: bool = True  # bfloat16 autocast, where the hardware has it


def rate(plan: Plan, step: int, seconds: float = 0.0) -> float:
    """Return the factor of the learning rate at `step`, `seconds` after the start.

    With a time budget the schedule ends when the time does, if that comes before the last step.
    """
    warm = min(1.0, (step + 1) / max(plan.warmup, 1))
    done = max(step / max(plan.steps, 1), seconds / plan.time_budget if plan.time_budget else 0.0)
    done = min(done, 1.0)
    if plan.schedule == "cosine":
        return warm * (0.5 * (1 + math.cos(math.pi * done)) * 0.99 + 0.01)
    if tail := {"trapezoid": 0.3, "linear": 0.5}.get(plan.schedule):
        return warm * min(1.0, max((1 - done) / tail, 0.01))
    return warm


class Average:
    """Exponential moving average of a method's weights, in float32; what is no weight (a count, a pool) has none."""

    def __init__(self, method: Method, decay: float):
        self.decay, self.updates = decay, 0
        weights = method.nets.state_dict().items()
        self.values = {k: v.detach().clone() for k, v in weights if v.is_floating_point()}

    @torch.no_grad()
    def update(self, method: Method) -> None:
        self.updates += 1
        # Early on the mean is short, so that the random start is forgotten.
        decay = min(self.decay, self.updates / (self.updates + 9))
        for key, value in method.nets.state_dict().items():
            if key in self.values:
                self.values[key].lerp_(value.to(self.values[key].dtype), 1 - decay)


@dataclass
class Run:
    """A training under way: what is saved, and what --resume needs."""

    method: Method
    optimizers: dict[str, torch.optim.Optimizer]
    average: Average | None
    rates: dict[str, list[float]]  # the full learning rates of each optimizer's groups
    step: int = 0  # steps done
    best: float = math.inf  # with patience: the lowest validation loss, and the validations since
    stale: int = 0
    spent: float = 0.0  # seconds of earlier runs
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """The time spent, with that of earlier runs."""
        return self.spent + time.monotonic() - self.began

    def set_rates(self, factor: float) -> None:
        """Set the learning rates to this part of the full ones."""
        for key, optimizer in self.optimizers.items():
            for group, lr in zip(optimizer.param_groups, self.rates[key]):
                group["lr"] = lr * factor

    def weights(self) -> dict[str, Tensor]:
        """Return what the model file holds, by `<net>.<key>`."""
        return self.method.nets.state_dict() | (self.average.values if self.average else {})

    def buffers(self) -> list[Tensor]:
        """Return the numbers that each process gathers for itself (as batch normalisation does), and their averages."""
        own = dict(self.method.nets.named_buffers())
        averages = [self.average.values[key] for key in own if key in self.average.values] if self.average else []
        return [tensor for tensor in (*own.values(), *averages) if tensor.is_floating_point()]


def train(
    name: str,
    method: Method,
    batches: Batches,
    validation: Batches | None,
    output: Path,
    plan: Plan,
    *,
    device: torch.device,
    ranks: Ranks | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    trained_on: str = "",
    licence: str = "",
    created_by: str = "",
    half: bool = False,
    initial: Path | None = None,
) -> int:
    """Train `method` (called `name`) and write the model file `output`; return the number of steps done in all.

    Beside it stand `X.resume.pt` (optimizers, averaged weights, random state, step) and what `reports` tells.
    `resume` continues from there, on the CPU bit for bit as if never interrupted; `overwrite` clears away the sheets
    of an earlier run. SIGTERM and Ctrl-C save, then end. With `plan.patience` the model file holds the weights that
    validated best. `ranks` are the processes that train together, each with its own part of every batch.
    Raises DataError when a loss is not finite: the last saved model stays. Raises SomeFailed when the model is
    written, but not every report.
    """
    ranks = ranks or Ranks()
    amp = plan.amp and has_fast_bfloat16(device)
    applies_to = methods.describe(name).applies_to
    sheets = ranks.first and plan.sample_every > 0 and reports.can_sample(applies_to, method)
    resume_path = output.with_suffix(".resume.pt")
    run = _begin(name, method, batches, plan, device, ranks, initial, resume_path if resume else None)
    shown = (validation or batches).make(0 if validation else NEVER - 9) if sheets else {}

    def save_model() -> None:
        if ranks.first:
            modelfile.save(
                output, name, method, step=run.step, trained_on=trained_on, licence=licence, created_by=created_by,
                half=half, tensors=run.weights(),
            )  # fmt: skip

    def save() -> None:
        ranks.mean_(run.buffers())
        if run.best == math.inf:  # else the model file holds the best
            save_model()
        random = ranks.gather(torch.get_rng_state())
        if ranks.first:
            _save(resume_path, run, random)

    report = None
    if ranks.first:
        report = reports.Reports(
            output, plan.steps, begun=run.step, resume=resume, overwrite=overwrite, sheets=sheets,
            tensorboard=tensorboard,
        )  # fmt: skip
    balance = Balance(batches.batch_size)
    losses = Losses(LOOK_EVERY if device.type == "cuda" else 1)
    frozen = [(buffer, buffer.clone()) for key in plan.freeze for buffer in method.nets[key].buffers()]
    seconds = run.spent  # as all processes agree on it: their learning rates must be the same
    with contextlib.closing(report) if report else contextlib.nullcontext(), _noted_signals(ranks) as stop:
        waiting = Waiting(batches.iterate(run.step, run.step if _exhausted(plan, run) else plan.steps))
        for step, batch in waiting:
            factor = rate(plan, step, seconds)
            run.set_rates(factor)
            with devices.autocast(device, amp):
                losses.add(step + 1, method.train_step(_on_device(batch, device), run.optimizers, step))
            for buffer, value in frozen:
                buffer.copy_(value)
            if run.average:
                run.average.update(method)
            run.step = step = step + 1
            validated = validation and step % plan.validate_every == 0
            sampled = sheets and step % plan.sample_every == 0
            saved = step % plan.save_every == 0 and step < plan.steps
            if validated or sampled or saved or step % losses.every == 0:
                losses.look()
            if report:
                report.progress.update(step, _note(losses.means(), waiting.share()))
            if step % JOURNAL_EVERY == 0:
                entry = {"seconds": round(run.seconds, 1), "lr": factor, "wait": round(waiting.share(), 4)}
                means = ranks.means(losses.means())
                if report:
                    report.entry(step, entry | {key: round(value, 6) for key, value in means.items()})
                    for what in balance.look(means):
                        log.warning(f"step {step}: {what}")
                losses.forget()
                waiting.restart()
            if validated:
                scores = ranks.means(_validate(run, plan, validation, device, amp))
                if report:
                    report.entry(step, {"validation": {key: round(value, 6) for key, value in scores.items()}})
                    log.info(f"step {step}: " + " ".join(f"{k} {v:.4g}" for k, v in scores.items()))
                if plan.patience and _improved(run, scores):
                    ranks.mean_(run.buffers())
                    save_model()
            if sampled:
                with _as_saved(run, plan, device), devices.autocast(device, amp):
                    report.sheet(step, reports.sheet(applies_to, method, _on_device(shown, device)))
            if saved:
                save()
            out_of_time = plan.time_budget is not None and run.seconds >= plan.time_budget
            *ends, seconds = ranks.largest(stop["signal"], out_of_time, _exhausted(plan, run), run.seconds)
            if any(ends):
                break
        losses.look()
        save()
        number = int(ranks.largest(stop["signal"])[0])
    if report and _exhausted(plan, run):
        log.info(f"no better in {run.stale} validations: ended at step {run.step}; the model is the best of them")
    if number:
        if report:
            log.warning(f"stopped at step {run.step}; --resume goes on from here")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if report and report.lost:
        raise errors.SomeFailed(f"{output} is written, but not every report: {'; '.join(report.lost.values())}")
    return run.step


class Losses:
    """The losses of the steps since the last entry of the journal.

    They are read from the device every few steps only: it would wait after each for the next to be given out.
    """

    def __init__(self, every: int):
        self.every = every
        self._unread: list[tuple[int, str, Tensor]] = []
        self._read: dict[str, list[float]] = {}

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        self._unread += [(step, name, value.detach().float()) for name, value in losses.items()]

    def look(self) -> None:
        """Read what was added. Raises DataError for a loss that is not finite."""
        if not self._unread:
            return
        numbers = torch.stack([value for _, _, value in self._unread]).tolist()
        for (step, name, _), number in zip(self._unread, numbers):
            if not math.isfinite(number):
                raise errors.DataError(f"loss {name} became {number} at step {step}; the last model saved is kept")
            self._read.setdefault(name, []).append(number)
        self._unread = []

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps that were read."""
        return {name: sum(values) / len(values) for name, values in self._read.items()}

    def forget(self) -> None:
        """Begin anew, for the next entry."""
        self._read = {}


class Balance:
    """Watches an adversarial training for the two ways in which it goes wrong: no contest any more, or no variety.

    It goes by `accuracy` (of the discriminator) and `diversity` (of what was made), where a method tells them. A critic
    may always be right and teach all the same: its methods say `critic_accuracy`. A diversity of 0 in batches of one
    picture is none: unless its method knows earlier pictures, they do not tell.
    """

    ENTRIES = 10  # of the journal, for which something must be stuck before it is told
    SURE = 0.98  # right so often, the discriminator teaches nothing any more; wrong so often, it knows nothing
    ALIKE = 0.1  # of the largest diversity so far: below, the pictures are one picture

    def __init__(self, batch_size: int = 0):
        self._stuck: dict[str, int] = {}
        self._varied = 0.0
        self._unsaid = batch_size == 1  # that diversity may not be told

    def look(self, losses: dict[str, float]) -> list[str]:
        """Take in the means of an entry of the journal; return what to warn of, each once as long as it lasts."""
        accuracy, diversity = losses.get("accuracy"), losses.get("diversity")
        self._varied = max(self._varied, diversity or 0.0)
        signs = {
            "the discriminator is always right: the generator learns nothing from it": accuracy is not None
            and accuracy > self.SURE,
            "the discriminator is always wrong: it has nothing to teach": accuracy is not None
            and accuracy < 1 - self.SURE,
            "what the generator makes is nearly all alike": diversity is not None
            and diversity < self.ALIKE * self._varied,
        }
        told = []
        for what, now in signs.items():
            self._stuck[what] = self._stuck.get(what, 0) + 1 if now else 0
            if self._stuck[what] == self.ENTRIES:
                told.append(f"for {self.ENTRIES * JOURNAL_EVERY} steps {what}")
        if self._unsaid and diversity == 0 == self._varied:
            self._unsaid = False
            told.append("batches of one picture do not tell whether all that is made is alike: that is not watched")
        return told


class Waiting:
    """Gives out what an iterator gives, and measures how long that makes us wait."""

    def __init__(self, items: Iterable):
        self._items = items
        self.restart()

    def restart(self) -> None:
        self._began, self._waited = time.monotonic(), 0.0

    def share(self) -> float:
        """Return the share of the time since the (re)start that went by in waiting, from 0 to 1."""
        return self._waited / max(time.monotonic() - self._began, 1e-9)

    def __iter__(self) -> Iterator:
        items = iter(self._items)
        while True:
            asked = time.monotonic()
            item = next(items, None)
            self._waited += time.monotonic() - asked
            if item is None:
                return
            yield item


def _begin(name, method, batches, plan, device, ranks, initial, resumed) -> Run:
    """Set a training up, alike in all processes: fresh, from the model `initial`, or where the run `resumed` ended."""
    odd = [size for size in batches.sizes if size % method.multiple]
    if odd:
        raise errors.UsageError(f"crops of {odd[0]} pixels: {name} takes multiples of {method.multiple}")
    unknown = [net for net in plan.freeze if net not in method.nets]
    if unknown:
        raise errors.UsageError(f"{name} has no network {unknown[0]!r} to freeze: it has {', '.join(method.nets)}")
    devices.seed_everything(plan.seed)
    method.to(device)
    if initial:
        _, config, tensors = modelfile.read(initial)
        modelfile.load_tensors(method, method.adopt(config, tensors), initial)
    elif not resumed and ranks.first:
        method.initialize(_on_device(_first_batch(batches, ranks), device))
    ranks.broadcast_(method.nets.state_dict().values())
    for net in method.nets.values():
        net.to(memory_format=torch.channels_last)
    for key in plan.freeze:
        method.nets[key].requires_grad_(False)
    _to_training(method, plan)
    optimizers = method.optimizers()
    if not any(_parameters(optimizer) for optimizer in optimizers.values()):
        raise errors.UsageError(f"with {', '.join(plan.freeze)} frozen, {name} has nothing left to train")
    rates = {key: [group["lr"] for group in optimizer.param_groups] for key, optimizer in optimizers.items()}
    run = Run(method, optimizers, Average(method, plan.ema) if plan.ema else None, rates)
    if not ranks.first:
        torch.manual_seed(plan.seed + ranks.rank)  # what a step draws differs from process to process
    if resumed:
        _load(resumed, run, plan, ranks)
    method.update = _guarded_update(method, plan, ranks)
    run.began = time.monotonic()
    return run


def _first_batch(batches: Batches, ranks: Ranks) -> dict:
    """Return up to 256 images of each kind for `initialize`: the same ones for one process as for several."""
    whole = Batches(batches.crops, batches.batch_size * ranks.world, batches.sizes)
    count = min(8, max(1, 256 // whole.batch_size))
    # Of steps that no run comes to, so that no batch of training is seen twice.
    return _concatenate([whole.make(NEVER - i) for i in range(1, count + 1)])


def _on_device(batch: dict, device: torch.device) -> dict:
    """Bring uint8 crops to the device as float in [0, 1], channels last; labels as they are."""
    if device.type == "cuda":  # from pinned memory the copy does not wait for what the device is at
        batch = {key: values.contiguous().pin_memory() for key, values in batch.items()}
    batch = {key: values.to(device, non_blocking=True) for key, values in batch.items()}
    return {
        key: values.float().div_(255).contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values
        for key, values in batch.items()
    }


def _concatenate(many: list[dict]) -> dict:
    """Join batches into one, cut to the smallest of their sizes."""
    smallest = min(values.shape[-1] for batch in many for values in batch.values() if values.ndim == 4)

    def cut(values: Tensor) -> Tensor:
        return values[..., :smallest, :smallest] if values.ndim == 4 else values

    return {key: torch.cat([cut(batch[key]) for batch in many]) for key in many[0]}


def _to_training(method: Method, plan: Plan) -> None:
    """Put the networks into training mode, but those that are frozen."""
    for key, net in method.nets.items():
        net.train(key not in plan.freeze)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return what an optimizer may change."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _guarded_update(method: Method, plan: Plan, ranks: Ranks):
    """Return the `update` that methods call.

    Gradients are averaged over the processes, which must walk the same graph, and clipped; weights decay; and
    nothing is stepped on a gradient that is not finite.
    """
    frozen = {p for key in plan.freeze for p in method.nets[key].parameters()}

    def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        parameters = [p for p in _parameters(optimizer) if p not in frozen]
        if not parameters:
            return
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for p in frozen:  # even where a method itself asks for their gradients
            p.grad = None
        moved = [p for p in parameters if p.grad is not None]
        ranks.mean_([p.grad for p in moved])
        norm = torch.nn.utils.clip_grad_norm_(moved, plan.clip or float("inf"))
        sound = torch.isfinite(norm)
        if norm.is_cuda:
            _clear_unless(sound, [p.grad for p in moved])
        elif not sound:
            return
        if plan.weight_decay:
            _decay(optimizer, moved, plan.weight_decay, sound)
        optimizer.step()
        torch.clear_autocast_cache()  # it holds the weights as they were

    return update


def _clear_unless(sound: Tensor, gradients: Sequence[Tensor]) -> None:
    """Set gradients to 0 unless `sound`, without asking the device, which would be to wait for it."""
    for gradient in gradients:
        gradient.nan_to_num_(0, 0, 0).mul_(sound)


@torch.no_grad()
def _decay(optimizer: torch.optim.Optimizer, moved: Sequence[Tensor], decay: float, sound: Tensor) -> None:
    """Shrink the matrices and kernels among the parameters that are about to move (arXiv:1711.05101)."""
    moving = set(moved)
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p in moving and p.ndim >= 2:
                p.mul_(1 - group["lr"] * decay * sound)


@contextlib.contextmanager
def _as_saved(run: Run, plan: Plan, device: torch.device) -> Iterator[None]:
    """Within, the networks are those of the model file; random numbers drawn there are not missed outside."""
    nets = run.method.nets
    own = {key: value.detach().clone() for key, value in nets.state_dict().items()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        nets.load_state_dict(run.weights())
        nets.eval()
        try:
            yield
        finally:
            nets.load_state_dict(own)
            _to_training(run.method, plan)


def _validate(run: Run, plan: Plan, validation: Batches, device: torch.device, amp: bool) -> dict[str, float]:
    """Return the mean losses of the averaged weights over eight fixed held-out batches."""
    sums: dict[str, float] = {}
    with _as_saved(run, plan, device), devices.autocast(device, amp):
        for i in range(8):
            for key, value in run.method.validate(_on_device(validation.make(i), device)).items():
                sums[key] = sums.get(key, 0.0) + float(value) / 8
    return sums


def _improved(run: Run, scores: dict[str, float]) -> bool:
    """Note a validation; tell whether it is the best so far, by `loss`, else by all it tells."""
    score = scores.get("loss", sum(scores.values()))
    better = score < run.best
    run.best, run.stale = (score, 0) if better else (run.best, run.stale + 1)
    return better


def _exhausted(plan: Plan, run: Run) -> bool:
    return 0 < plan.patience <= run.stale


def _note(means: dict[str, float], wait: float) -> str:
    """Return what the line of progress says of the losses, and of waiting for data where it matters."""
    words = [f"{key} {value:.4g}" for key, value in means.items()]
    return " ".join(words + [f"wait {100 * wait:.0f} %"] * (wait > 0.05))


@contextlib.contextmanager
def _noted_signals(ranks: Ranks) -> Iterator[dict]:
    """Within, SIGTERM and SIGINT are noted as ["signal"] instead of ending us; a second one ends us at once.

    Under torchrun it does not: there Ctrl-C comes twice, from the terminal and from torchrun.
    """
    seen = {"signal": 0}

    def note(number, frame):
        seen["signal"] = number
        if ranks.world == 1:
            signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(path: Path, run: Run, random: Tensor) -> None:
    """Write all that `_load` needs to go on bit for bit."""
    average = run.average
    state = {
        "nets": run.method.nets.state_dict(),
        "optimizers": {key: o.state_dict() for key, o in run.optimizers.items()},
        "average": {"values": average.values, "updates": average.updates} if average else None,
        "rates": run.rates,
        "random": random,
        "step": run.step,
        "spent": run.seconds,
        "best": run.best,
        "stale": run.stale,
    }
    # By way of memory: where the disk is full, torch.save itself raises something that does not say so.
    data = io.BytesIO()
    torch.save(state, data)
    with files.atomic(path) as out:
        out.write(data.getbuffer())


def _read(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise errors.MissingInput(f"{path}: nothing to resume from") from error
    except Exception as error:
        raise errors.DataError(f"{path}: cannot be resumed from: {str(error).splitlines()[0]}") from error


def _load(path: Path, run: Run, plan: Plan, ranks: Ranks) -> None:
    """Restore a run."""
    state = _read(path)
    try:
        run.method.nets.load_state_dict(state["nets"])
        for key, optimizer in run.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][key])
        if run.average and state["average"]:
            for key, value in run.average.values.items():
                value.copy_(state["average"]["values"][key])
            run.average.updates = state["average"]["updates"]
    except (KeyError, RuntimeError, ValueError) as error:
        raise errors.DoesNotFit(f"{path}: made by another method or configuration") from error
    run.step, run.spent, run.rates = state["step"], state["spent"], state["rates"]
    if plan.patience:
        run.best, run.stale = state.get("best", math.inf), state.get("stale", 0)
    # One state for each process; files of before there were several hold a single one.
    random = state["random"].view(-1, torch.get_rng_state().numel())
    if ranks.rank < len(random):
        torch.set_rng_state(random[ranks.rank].clone())  # of a view into a larger tensor torch crashes
