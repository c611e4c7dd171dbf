"""RAFT with random weights, of which torchvision's own are the yardstick. Its published weights are not here."""

from pathlib import Path

import pytest
import torch
from torchvision.models import optical_flow

from styletools import errors
from styletools.engine.raft import Raft

NAME = Path(optical_flow.Raft_Small_Weights.C_T_V2.url).name


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return optical_flow.raft_small(weights=None).eval()


@pytest.fixture
def raft(network, tmp_path, monkeypatch) -> Raft:
    torch.save(network.state_dict(), tmp_path / NAME)
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    return Raft()


def test_pictures_that_fit_are_seen_as_torchvision_sees_them(raft, network):
    a, b = torch.rand(2, 1, 3, 128, 136)
    with torch.no_grad():
        wanted = network(a * 2 - 1, b * 2 - 1)[-1]
    torch.testing.assert_close(raft(a, b), wanted)


@pytest.mark.parametrize("size", [(130, 141), (20, 33), (128, 16)])
def test_any_size(raft, size):
    flow = raft(torch.rand(1, 3, *size), torch.rand(1, 3, *size))
    assert flow.shape == (1, 2, *size) and flow.isfinite().all()


def test_random_numbers_are_not_touched(raft):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    Raft()
    assert torch.equal(before, torch.get_rng_state())


def test_without_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.Unavailable, match="RAFT"):
        Raft()


def test_other_weights(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(1)}, tmp_path / NAME)
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.DataError, match="RAFT"):
        Raft()
