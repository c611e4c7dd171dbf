"""Which device and which precision to run in."""

import contextlib
import os

import torch

from styletools import errors


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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 arithmetic is done in hardware; elsewhere it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags


def autocast(device: torch.device, enabled: bool):
    """Return the context in which networks run: bfloat16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else contextlib.nullcontext()


def set_threads(count: int | None) -> None:
    """Use `count` CPU threads for one operation; None leaves torch's choice (OMP_NUM_THREADS, else all cores)."""
    if count:
        torch.set_num_threads(count)


def seed_everything(seed: int) -> None:
    """Seed torch's generators; the same seed gives the same numbers on the same device."""
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
