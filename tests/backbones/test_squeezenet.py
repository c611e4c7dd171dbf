"""squeezenet: torchvision's features, from a file with torchvision's keys."""

import pytest
import torch
import torchvision

from styletools import backbones, errors
from styletools.backbones import squeezenet


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_features_equal_torchvisions(prefix, tmp_path, monkeypatch):
    torch.manual_seed(0)
    theirs = torchvision.models.squeezenet1_1(weights=None).features.eval()
    torch.save({prefix + key: value for key, value in theirs.state_dict().items()}, tmp_path / "squeezenet1_1.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    network = backbones.load("squeezenet")
    assert network.layers == backbones.layers("squeezenet") == list(squeezenet.LAYERS)
    images = torch.rand(2, 3, 45, 38, generator=torch.Generator().manual_seed(1))
    found = network(images, network.layers)
    x = torchvision.transforms.functional.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        for layer, position in {"relu1": 1, **squeezenet.POSITIONS}.items():
            torch.testing.assert_close(found[layer], theirs[: position + 1](x), rtol=1e-5, atol=1e-5)


def test_another_file_is_refused(tmp_path, monkeypatch):
    torch.save({"0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "squeezenet1_1.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.DataError, match="not the weights of SqueezeNet 1.1"):
        backbones.load("squeezenet")
