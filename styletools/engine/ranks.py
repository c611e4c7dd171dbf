"""The processes that train together, as torchrun starts them: which of them we are, and what all agree on.

torchrun says so in RANK, WORLD_SIZE and LOCAL_RANK; without them a process is alone, and nothing here does anything.
"""

import contextlib
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, distributed

from styletools import errors


class Ranks:
    """The processes of one training. All of them must call the same functions in the same order."""

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in one exchange for each type of numbers."""
        for same in self._by_type(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with _exchange():
                distributed.all_reduce(flat)
            _scatter(flat.div_(self.world), same)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        for same in self._by_type(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with _exchange():
                distributed.broadcast(flat, 0)
            _scatter(flat, same)

    def means(self, numbers: dict[str, float]) -> dict[str, float]:
        """Return the mean of every number over the processes; all must have the same names in the same order."""
        values = torch.tensor(list(numbers.values()), dtype=torch.float64)
        if len(values):
            self.mean_([values])
        return dict(zip(numbers, values.tolist()))

    def largest(self, *numbers: float) -> list[float]:
        """Return the largest of each number over the processes."""
        if self.world == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        with _exchange():
            distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return values.tolist()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, which have one shape, as (world, ...)."""
        if self.world == 1:
            return tensor[None]
        found = [torch.empty_like(tensor) for _ in range(self.world)]
        with _exchange():
            distributed.all_gather(found, tensor)
        return torch.stack(found)

    def leave(self) -> None:
        """Part, at the end of the work."""
        if self.world > 1:
            distributed.destroy_process_group()

    def _by_type(self, tensors: Iterable[Tensor]) -> list[list[Tensor]]:
        """Return tensors grouped by type; none when there is nobody to exchange them with."""
        groups: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors if self.world > 1 else ():
            groups.setdefault(tensor.dtype, []).append(tensor)
        return list(groups.values())


def join(device: torch.device) -> Ranks:
    """Return our place among the processes that torchrun started, once all are there; alone where it did not.

    Exchanges of what lies on a GPU go through nccl, all others through gloo. Raises Unavailable when the others cannot
    be reached, UsageError when the environment makes no sense.
    """
    try:
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError as error:
        raise errors.UsageError("RANK and WORLD_SIZE in the environment: numbers expected") from error
    if world == 1:
        return Ranks()
    if device.type not in ("cpu", "cuda"):
        raise errors.Unavailable(f"several processes train together on cpu or cuda, not on {device.type}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Its functions hold on to the group that is there when it is imported, which an optimizer of torch does: gloo's
    # threads would then outlive `leave`, and now and then crash the process while the interpreter ends.
    importlib.import_module("torch.distributed.nn.functional")
    with _exchange():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Ranks(rank, world)


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """Tell failures of torch.distributed in our words."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if errors.is_out_of_memory(error):
            raise
        raise errors.Unavailable("lost the other processes of this training (-v shows how)") from error


@torch.no_grad()
def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the parts of a flat tensor into those that it was joined of."""
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(part.view(tensor.shape))
