"""Networks that judge, of random weights."""

import importlib

import pytest
import torch
import torchvision
from metric_samples import save_inception

from styletools import methods, modelfile

SIZES = {"squeeze": (64, 128, 256, 384, 384, 512, 512)}  # channels of the layers that LPIPS looks at


@pytest.fixture(scope="session")
def folder_of_judges(tmp_path_factory):
    """SqueezeNet, the linear weights of LPIPS, and Inception where torch-fidelity is there, under their names."""
    folder = tmp_path_factory.mktemp("judges")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = torchvision.models.squeezenet1_1(weights=None).features
        torch.save({f"features.{k}": value for k, value in features.state_dict().items()}, folder / "squeezenet.pth")
        for name, sizes in SIZES.items():
            linear = {f"lin{i}.model.1.weight": torch.rand(1, size, 1, 1) for i, size in enumerate(sizes)}
            torch.save(linear, folder / f"{name}.pth")
        try:
            save_inception(folder / "weights-inception-2015-12-05-6726825d.pth")
        except ImportError:
            pass
    return folder


@pytest.fixture
def judges(folder_of_judges, monkeypatch):
    """Make all networks be random ones, but slim, which is bundled."""
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(folder_of_judges))
    return folder_of_judges


CRITIC = '''"""A method with a discriminator, of the tests."""

from dataclasses import dataclass

import torch
from torch import nn

from styletools.methods import Method


@dataclass(frozen=True)
class Config:
    pass


class Critic(Method):
    """Takes bright pictures for real."""

    def __init__(self, config):
        self.config = config
        self.nets = nn.ModuleDict({"discriminator": nn.Conv2d(3, 1, 1)})
        nn.init.ones_(self.nets["discriminator"].weight)
        nn.init.zeros_(self.nets["discriminator"].bias)

    def discriminate(self, images):
        return self.nets["discriminator"](images).mean((1, 2, 3))
'''


@pytest.fixture
def critic(tmp_path, monkeypatch):
    """The file of a model whose discriminator sums up R, G and B; its method is somebody else's."""
    folder = tmp_path / "theirs"
    info = folder / "critic-1.dist-info"
    info.mkdir(parents=True)
    (folder / "critic_of_tests.py").write_text(CRITIC)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: critic\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[styletools.methods]\ncritic = critic_of_tests\n")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    methods._sources.cache_clear()
    methods.describe.cache_clear()
    path = tmp_path / "critic.safetensors"
    modelfile.save(path, "critic", methods.create("critic"))
    yield path
    methods._sources.cache_clear()
    methods.describe.cache_clear()
