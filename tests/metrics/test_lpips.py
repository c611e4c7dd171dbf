"""LPIPS against a plain computation of its formula over torchvision's network, and against its authors' package."""

import hashlib

import pytest
import torch
import torchvision
from torch.nn import functional as F

from styletools import errors, streams
from styletools.backbones._backbone import read_state_dict
from styletools.engine import infer
from styletools.metrics import _lpips
from styletools.metrics._look import resize

ENDS = (2, 5, 8, 10, 11, 12, 13)  # after which of torchvision's `features` LPIPS looks at SqueezeNet


def pictures(seed):
    coarse = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (70, 91), mode="bicubic").clamp(0, 1)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Weights of the published layout with random numbers; returns torchvision's network and the linear weights."""
    torch.manual_seed(0)
    features = torchvision.models.squeezenet1_1(weights=None).features.eval()
    linear = [torch.rand(1, channels, 1, 1) for channels in (64, 128, 256, 384, 384, 512, 512)]
    (tmp_path / "lpips_v0.1").mkdir()
    torch.save({f"lin{i}.model.1.weight": w for i, w in enumerate(linear)}, tmp_path / "lpips_v0.1" / "squeeze.pth")
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, tmp_path / "squeezenet1_1-1.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    return features, linear


def plainly(features, linear, a, b):
    """The formula of the paper, in its authors' own scaling of the input."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    x, y = ((2 * image - 1 - shift) / scale for image in (a, b))
    total, start = 0.0, 0
    for end, weight in zip(ENDS, linear):
        x, y, start = features[start:end](x), features[start:end](y), end
        difference = F.normalize(x, dim=1) - F.normalize(y, dim=1)
        total = total + F.conv2d(difference**2, weight).mean((1, 2, 3))
    return total


def test_it_is_the_formula_of_the_paper(files):
    a, b = pictures(1), pictures(2)
    with torch.no_grad():
        expected = plainly(*files, a, b)
    torch.testing.assert_close(_lpips.Lpips()(a, b), expected, rtol=1e-4, atol=1e-4)
    assert _lpips.Lpips()(a, a).abs().max() == 0


def test_published_weights_see_what_people_see(weights):
    measure = _lpips.Lpips()
    a = pictures(1)
    faint = measure(a, (a + 0.02 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1))
    blurred, other = measure(a, F.avg_pool2d(a, 9, 1, 4)), measure(a, pictures(2))
    assert (faint > 0).all() and (faint < other).all() and (blurred < other).all() and (other < 1.5).all()


def test_what_is_not_there_is_said(files, tmp_path, monkeypatch):
    with pytest.raises(errors.UsageError, match="lpips has no weights for slim: choose from squeezenet, vgg16"):
        _lpips.Lpips("slim")
    torch.save({"other": torch.zeros(1)}, tmp_path / "lpips_v0.1" / "squeeze.pth")
    with pytest.raises(errors.DataError, match="not the linear weights of LPIPS"):
        _lpips.Lpips()
    (tmp_path / "lpips_v0.1" / "squeeze.pth").unlink()
    with pytest.raises(errors.Unavailable, match="LPIPS .squeeze.pth. are not cached, and STYLETOOLS_OFFLINE forbids"):
        _lpips.Lpips()


def test_linear_weights_are_fetched_where_they_are_published(files, tmp_path, monkeypatch):
    """What is downloaded is taken only where its SHA-256 is that of the published bytes."""
    monkeypatch.setenv("STYLETOOLS_OFFLINE", "0")
    (tmp_path / "published").mkdir()
    (tmp_path / "lpips_v0.1" / "squeeze.pth").rename(tmp_path / "published" / "squeeze.pth")
    monkeypatch.setattr(_lpips, "URL", (tmp_path / "published").as_uri() + "/")
    with pytest.raises(errors.Unavailable, match="cannot download .*published/squeeze.pth: .*hash"):
        _lpips.Lpips()
    digest = hashlib.sha256((tmp_path / "published" / "squeeze.pth").read_bytes()).hexdigest()[:8]
    _, _, layers = _lpips.NETWORKS["squeezenet"]
    monkeypatch.setitem(_lpips.NETWORKS, "squeezenet", ("squeeze.pth", digest, layers))
    assert _lpips.Lpips()(pictures(1), pictures(1)).max() == 0


@pytest.mark.parametrize("name", _lpips.NETWORKS)
def test_the_published_digests_are_those_of_the_published_weights(weights, name):
    published, digest, _ = _lpips.NETWORKS[name]
    path = weights / "lpips_v0.1" / published
    if not path.is_file():
        pytest.skip(f"no {published} in the folder of published weights")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)


def test_it_says_what_its_authors_package_says(weights, reference, monkeypatch):
    """With the real weights of SqueezeNet and the official linear ones, on real pictures."""
    lpips = pytest.importorskip("lpips", reason="the package lpips is not installed")
    ours = _lpips.Lpips()
    network = torchvision.models.squeezenet1_1(weights=None)
    state = read_state_dict(ours.backbone.source)
    network.features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    monkeypatch.setattr(torchvision.models, "squeezenet1_1", lambda *_, **__: network)
    theirs = lpips.LPIPS(net="squeeze", verbose=False)
    paths = sorted((reference / "content").iterdir())[:3]
    a, b, c = (resize(infer.to_tensor(streams.open_image(path))[0], (160, 211)) for path in paths)
    faint = (a + 0.02 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    for one, other in ((a, b), (a, c), (b, c), (a, faint)):
        with torch.no_grad():
            expected = theirs(one, other, normalize=True).flatten()
        torch.testing.assert_close(ours(one, other), expected, rtol=1e-4, atol=1e-4)
        assert expected > 0.001
