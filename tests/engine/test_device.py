"""Devices and precision."""

import os

import pytest
import torch

from styletools import errors
from styletools.engine import device
from styletools.nn.precision import has_fast_bfloat16


def test_auto_is_a_device_that_works():
    assert float(torch.ones(2, device=device.choose()).sum()) == 2
    assert device.choose("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu cpu"])
def test_names_that_are_no_device(name):
    with pytest.raises(errors.UsageError, match="unknown device"):
        device.choose(name)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "mps:7" if not torch.backends.mps.is_available() else "xpu"])
def test_devices_that_are_not_here(name):
    with pytest.raises(errors.Unavailable, match=f"device {name} is not available here"):
        device.choose(name)


def test_cuda_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(errors.Unavailable, match="device cuda is not available here"):
        device.choose("cuda")
    assert device.choose("auto").type in ("cpu", "mps")


def test_bfloat16_where_it_is_wanted():
    cpu = torch.device("cpu")
    assert isinstance(has_fast_bfloat16(cpu), bool)
    assert not has_fast_bfloat16(torch.device("mps"))
    a = torch.ones(4, 4)
    with device.autocast(cpu, True):
        assert (a @ a).dtype == torch.bfloat16
    with device.autocast(cpu, False):
        assert (a @ a).dtype == torch.float32


def test_seeds_repeat():
    drawn = []
    for seed in (1, 2, 1):
        device.seed_everything(seed)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert "CUBLAS_WORKSPACE_CONFIG" in os.environ


def test_threads():
    before = torch.get_num_threads()
    try:
        device.set_threads(1)
        assert torch.get_num_threads() == 1
        device.set_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
