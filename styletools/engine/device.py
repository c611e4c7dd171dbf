"""Which device and which precision to run in."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from styletools import errors, log


def choose(name: str = "auto") -> torch.device:
    """Return the device called `name`: auto, cpu, cuda, cuda:N or mps. Raises Unavailable when it is not there.

    Of several processes that torchrun started on a machine, each takes the GPU of its number (LOCAL_RANK).
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and os.environ.get("LOCAL_RANK", "").isdecimal():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise errors.UsageError(f"unknown device {name!r}: auto, cpu, cuda, cuda:N or mps") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    beyond = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if not present.get(device.type, False) or beyond:
        raise errors.Unavailable(f"device {name} is not available here")
    return device


def autocast(device: torch.device, enabled: bool, dtype: torch.dtype = torch.bfloat16):
    """Return the context in which networks run: autocast to 16 bits, or nothing."""
    return torch.autocast(device.type, dtype) if enabled else contextlib.nullcontext()


def lanes(device: torch.device) -> Lanes:
    """Return the lanes of a device."""
    return CudaLanes(device) if device.type == "cuda" else Lanes()


def set_threads(count: int | None) -> None:
    """Use `count` CPU threads for one operation; None leaves torch's choice (OMP_NUM_THREADS, else all cores)."""
    if count:
        torch.set_num_threads(count)


def seed_everything(seed: int) -> None:
    """Seed torch's generators; the same seed gives the same numbers on the same device."""
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def free_memory(device: torch.device) -> int:
    """Return how many bytes of a CUDA device are left, with what torch holds there for later."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


# ---- queues of work --------------------------------------------------------------------------------------


class Lanes:
    """Three queues of work for a device, "up", "compute" and "down": each in order, all at the same time.

    These are those of the CPU, where all is done at once; what stands for work being done is then None.
    """

    def do(self, lane: str, work: Callable[[], Any], after: Any = None) -> Any:
        """Queue work() behind what the lane has to do already and behind `after`; return what stands for its end.

        What work() raises before anything is computed comes from here.
        """
        work()

    def wait(self, done: Any) -> None:
        """Return when work is done."""

    def so_far(self) -> Any:
        """Return what stands for the end of all that was asked of the device outside of the lanes."""

    def settle(self) -> None:
        """Return when the device has done all that was asked of it."""

    def host_bytes(self, count: int) -> Tensor:
        """Return memory of the host, (count,) uint8, from and to which copies do not hold up whoever asks for them."""
        return torch.empty(count, dtype=torch.uint8)

    def weigh(self, work: Callable[[], Any]) -> int:
        """Do work() in the lane that it is called in; return the bytes that it takes at most meanwhile, 0: unknown."""
        work()
        return 0

    def free(self) -> int:
        """Return how many bytes of the device's memory are left; 0: unknown."""
        return 0

    def release(self) -> None:
        """Give back memory that is kept for later."""

    def record(self, work: Callable[[], Any]) -> Callable[[], Any] | None:
        """Return what repeats work() for less than it costs, or None.

        It finds its tensors where work() left them, whatever they hold by then: so work() must come without new ones.
        """
        return None


class CudaLanes(Lanes):
    """Lanes as CUDA streams. What was asked of the device before these were made comes before all that they do."""

    def __init__(self, device: torch.device):
        self.device = device
        self._streams = {lane: torch.cuda.Stream(device) for lane in ("up", "compute", "down")}
        for stream in self._streams.values():
            stream.wait_stream(torch.cuda.current_stream(device))

    def do(self, lane, work, after=None):
        stream = self._streams[lane]
        if after is not None:
            stream.wait_event(after)
        with torch.cuda.stream(stream):
            work()
        return stream.record_event()

    def wait(self, done):
        done.synchronize()

    def so_far(self):
        return torch.cuda.current_stream(self.device).record_event()

    def settle(self):
        torch.cuda.synchronize(self.device)

    def host_bytes(self, count):
        # Pinned memory is kept by torch and handed out again, which takes microseconds; only the first time is slow.
        return torch.empty(count, dtype=torch.uint8, pin_memory=True)

    def weigh(self, work):
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        return torch.cuda.max_memory_allocated(self.device) - before

    def free(self):
        return free_memory(self.device)

    def release(self):
        torch.cuda.empty_cache()

    def record(self, work):
        """Record work() as a CUDA graph, with the fastest kernels for its sizes, which are searched for now."""
        stream, benchmark = self._streams["compute"], torch.backends.cudnn.benchmark
        try:
            torch.backends.cudnn.benchmark = True
            with torch.cuda.device(self.device), torch.cuda.stream(stream):
                work()
                # What must look at a result in between cannot be recorded; a failed recording would leave traces.
                _set_sync_debug_mode("error")
                work()
            _set_sync_debug_mode("default")
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(self.device), torch.cuda.graph(
                graph, stream=stream, capture_error_mode="thread_local"
            ):
                work()
        except RuntimeError as error:
            log.info(f"not recorded as a CUDA graph: {str(error).partition(chr(10))[0]}")
            return None
        finally:
            _set_sync_debug_mode("default")
            torch.backends.cudnn.benchmark = benchmark
        return graph.replay


def _set_sync_debug_mode(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its being a prototype
        torch.cuda.set_sync_debug_mode(mode)
