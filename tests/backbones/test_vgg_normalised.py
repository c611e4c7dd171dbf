"""vgg_normalised: the encoder that pytorch-AdaIN publishes, against its layers written down once more."""

import pytest
import torch
from torch.nn import functional as F

from styletools import backbones, errors

POSITIONS = {"1": (2, 5), "2": (9, 12), "3": (16, 19, 22, 25), "4": (29,)}  # of the convolutions, by block


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (9, 17)])
@torch.no_grad()
def test_its_features_are_the_published_ones(weights, size):
    path = next(weights.glob("vgg_normalised*.pth"), None)
    if path is None:
        pytest.skip("the published encoder of AdaIN is not in STYLETOOLS_WEIGHTS")
    network = backbones.load("vgg_normalised")
    state = {key: value.float() for key, value in torch.load(path, weights_only=True).items()}
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = network(image, network.layers)
    x = F.conv2d(image, state["0.weight"], state["0.bias"])
    for block, positions in POSITIONS.items():
        if block != "1":
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        for i, position in enumerate(positions, 1):
            padded = F.pad(x, [1] * 4, mode="reflect")
            x = F.conv2d(padded, state[f"{position}.weight"], state[f"{position}.bias"]).relu()
            assert x.std() > 0.1
            torch.testing.assert_close(found.pop(f"relu{block}_{i}"), x, rtol=1e-4, atol=1e-4)
    assert not found and network.layers == backbones.layers("vgg_normalised")[:9]


def test_pictures_of_one_pixel(weights):
    if not any(weights.glob("vgg_normalised*.pth")):
        pytest.skip("the published encoder of AdaIN is not in STYLETOOLS_WEIGHTS")
    network = backbones.load("vgg_normalised")
    assert network(torch.rand(1, 3, 1, 3), ["relu4_1"])["relu4_1"].isfinite().all()


def test_a_folder_may_come_before_all_others(tmp_path, monkeypatch):
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vgg_normalised.pth").touch()
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path / "far"))
    with backbones.looking_in(tmp_path / "near"):
        assert backbones.find_weights("vgg_normalised").parent.name == "near"
    assert backbones.find_weights("vgg_normalised").parent.name == "far"


@pytest.mark.parametrize("fault", ["colour", "cut", "shape"])
def test_files_that_are_no_normalised_vgg(tmp_path, monkeypatch, fault):
    state = {"0.weight": torch.zeros(3, 3, 1, 1), "0.bias": torch.zeros(3)}
    state |= {"2.weight": torch.zeros(64, 3, 3, 3), "2.bias": torch.zeros(64)}
    if fault == "colour":
        del state["0.weight"]
    elif fault == "cut":
        del state["2.bias"]
    else:
        state["2.weight"] = torch.zeros(32, 3, 3, 3)
    torch.save(state, tmp_path / "vgg_normalised.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.DataError, match="not the normalised VGG-19 of pytorch-AdaIN"):
        backbones.load("vgg_normalised")
