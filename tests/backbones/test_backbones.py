"""Backbones: the features of torchvision's networks, weights found, fetched and refused."""

import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from styletools import backbones, errors
from styletools.nn.vgg import VGG16, VGG19, torchvision_index

DEPTHS = {"vgg19": VGG19, "vgg16": VGG16}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files as torchvision publishes them, with random weights, and the networks they came from."""
    found = {}
    for name in DEPTHS:
        folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            features = torchvision.models.get_model(name, weights=None).features.eval()
        state = {f"features.{key}": value for key, value in features.state_dict().items()}
        state["classifier.6.bias"] = torch.zeros(1000)
        torch.save(state, folder / f"{name}-12345678.pth")
        found[name] = (folder, features)
    return found


def torchvision_features(features, images, index):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        return features[: index + 2]((images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))


@pytest.mark.parametrize("name", sorted(DEPTHS))
def test_features_equal_torchvisions(name, published, monkeypatch):
    folder, features = published[name]
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(folder))
    network = backbones.load(name)
    assert network.layers == backbones.layers(name)
    images = torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(1))
    found = network(images, network.layers)
    for layer, ours in found.items():
        theirs = torchvision_features(features, images, torchvision_index(DEPTHS[name], layer.replace("relu", "conv")))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in network.parameters()) and not network.training
    assert network.lift(found) == found


def test_features_of_the_published_weights(weights):
    path = max(weights.glob("vgg19*.pth"), key=lambda p: p.stat().st_size)
    state = {k.removeprefix("features."): v.float() for k, v in torch.load(path, weights_only=True).items()}
    features = torchvision.models.vgg19(weights=None).features[:21]
    features.load_state_dict({k: v for k, v in state.items() if int(k.split(".")[0]) < 21})
    images = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    found = backbones.load("vgg19")(images, ["relu1_1", "relu2_1", "relu3_1", "relu4_1"])
    for layer, ours in found.items():
        theirs = torchvision_features(features, images, torchvision_index(VGG19, layer.replace("relu", "conv")))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_file_that_stops_early_serves_what_it_has(published, tmp_path, monkeypatch):
    state = torch.load(next(published["vgg19"][0].iterdir()), weights_only=True)
    cut = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    torch.save({k: v for k, v in cut.items() if int(k.split(".")[0]) <= 10}, tmp_path / "vgg19_cut.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    network = backbones.load("vgg19")
    assert network.layers[-1] == "relu3_1"
    network(torch.rand(1, 3, 16, 16), ["relu1_1", "relu3_1"])
    with pytest.raises(errors.Unavailable, match="relu4_1 of vgg19.*vgg19_cut.pth stop at relu3_1"):
        network(torch.rand(1, 3, 16, 16), ["relu1_1", "relu4_1"])


def test_the_largest_file_is_taken_and_its_cut_has_the_same_digest(published, tmp_path, monkeypatch):
    whole = next(published["vgg19"][0].iterdir())
    state = torch.load(whole, weights_only=True)
    torch.save({k: v for k, v in state.items() if k[9:11] in ("0.", "2.", "5.", "7.", "10")}, tmp_path / "vgg19_a.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", f"{tmp_path}/none:{tmp_path}")
    short = backbones.load("vgg19")
    os.link(whole, tmp_path / "vgg19_b.pth")
    full = backbones.load("vgg19")
    assert (short.layers[-1], full.layers[-1]) == ("relu3_1", "relu5_4")
    assert short.digest() == full.digest()


def test_slim_from_its_model_file(slim):
    network = backbones.load("slim")
    assert network.layers == backbones.layers("slim")
    found = network(torch.rand(1, 3, 32, 32), ["relu1_1", "relu4_1", "relu4_2", "relu5_1"])
    assert [found[k].shape[1] for k in found] == [16, 128, 128, 128]
    lifted = network.lift(found)
    assert [lifted[k].shape[1] for k in found] == [64, 512, 128, 512], "only layers with a map are lifted"
    assert len(network.digest()) == 64


def test_loading_draws_no_random_numbers(slim):
    before = torch.get_rng_state()
    backbones.load("slim")
    assert torch.equal(torch.get_rng_state(), before)


def test_cd16x_stands_in_for_vgg19(weights, reference):
    if not (weights / "cd16x").is_dir():
        pytest.skip("no cd16x weights")
    with Image.open(reference / "content" / "adain_avril.jpg") as file:
        pixels = np.array(file.convert("RGB").resize((192, 128)))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    network, teacher = backbones.load("cd16x"), backbones.load("vgg19")
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    lifted, real = network.lift(network(images, layers)), teacher(images, layers)
    for layer in layers:
        assert torch.cosine_similarity(lifted[layer].flatten(), real[layer].flatten(), 0) > 0.7


# What is refused


def test_unknown_backbones_and_layers_are_usage_errors():
    with pytest.raises(errors.UsageError, match="unknown backbone 'vgg11': choose from .*slim.*vgg19"):
        backbones.load("vgg11")
    with pytest.raises(errors.UsageError, match="vgg16 has no layer 'relu3_4'"):
        backbones.check("vgg16", ["relu1_1", "relu3_4"])
    backbones.check("vgg19", ["relu3_4"])


def test_looking_costs_no_torch():
    code = (
        "import sys; from styletools import backbones as b; b.layers('vgg19'); b.check('slim', ['relu1_1']);"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["torch", "plain"])
def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch, form):
    weights_file, proof = tmp_path / "vgg19-bomb.pth", tmp_path / "exploded"
    state = {"features.0.weight": Bomb(str(proof))}
    if form == "torch":
        torch.save(state, weights_file)
    else:
        weights_file.write_bytes(pickle.dumps(state, protocol=2))
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.DataError, match="not a file of weights"):
        backbones.load("vgg19")
    assert not proof.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 nothing", b"<html>Not Found</html>", bytes(range(256)) * 40, "cut", "list", "empty", "number"],
)
def test_damaged_files(tmp_path, monkeypatch, published, content):
    path = tmp_path / "vgg19.pth"
    if content == "cut":
        path.write_bytes(next(published["vgg19"][0].iterdir()).read_bytes()[:1_000_000])
    elif content == "list":
        torch.save([torch.zeros(3)], path)
    elif content == "empty":
        torch.save({}, path)
    elif content == "number":
        torch.save({"features.0.weight": 3}, path)
    else:
        path.write_bytes(content)
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.DataError, match="vgg19.pth: ") as caught:
        backbones.load("vgg19")
    assert "\n" not in str(caught.value)


def test_foreign_networks(tmp_path, monkeypatch, slim):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    torch.save({"0.weight": torch.zeros(3, 3, 1, 1), "0.bias": torch.zeros(3)}, tmp_path / "vgg19.pth")
    with pytest.raises(errors.DataError, match="0.weight is not conv1_1's of vgg19"):
        backbones.load("vgg19")
    torch.save({"0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg19.pth")
    with pytest.raises(errors.DataError, match="0.bias is not conv1_1's"):
        backbones.load("vgg19")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "vgg19.pth")
    with pytest.raises(errors.DataError, match="holds no convolutions of vgg19"):
        backbones.load("vgg19")
    (tmp_path / "slim.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(errors.DataError):
        backbones.load("slim")
    torch.save({"conv0.weight": torch.zeros(3, 3, 1, 1)}, tmp_path / "cd16x_encoder5.pth")
    with pytest.raises(errors.DataError, match="not a 16x encoder"):
        backbones.load("cd16x")


# What is fetched


class Server:
    """A web server on this machine that serves `body` at /vgg16-DIGEST.pth."""

    def __init__(self, body: bytes, claim: int | None = None, status: int = 200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if claim is None else claim))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = self
        self.requests = 0
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no other source of weights, and no ban on downloads."""
    monkeypatch.setenv("STYLETOOLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STYLETOOLS_WEIGHTS", raising=False)
    monkeypatch.delenv("STYLETOOLS_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "weights"


def published_at(monkeypatch, url, digest):
    literal = backbones._literal

    def patched(name, variable):
        return {"URL": url, "SHA256": digest}.get(variable) or literal(name, variable)

    monkeypatch.setattr(backbones, "_literal", patched)


def left_in(folder):
    return [path.name for path in folder.glob("*")] if folder.exists() else []


def test_weights_are_fetched_once(published, cache, monkeypatch):
    body = next(published["vgg16"][0].iterdir()).read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:8]
    with Server(body) as server:
        published_at(monkeypatch, server.url + f"vgg16-{digest}.pth", digest)
        assert backbones.load("vgg16").layers[-1] == "relu5_3"
        assert left_in(cache) == [f"vgg16-{digest}.pth"]
        backbones.load("vgg16")
        assert server.requests == 1
    backbones.load("vgg16")
    monkeypatch.setenv("STYLETOOLS_OFFLINE", "1")
    backbones.load("vgg16")


@pytest.mark.parametrize("fault", ["digest", "cut", "missing"])
def test_a_bad_download_leaves_nothing(cache, monkeypatch, fault):
    body = b"weights" * 1000
    digest = "00000000" if fault == "digest" else hashlib.sha256(body).hexdigest()[:8]
    sent = body[:500] if fault == "cut" else body
    with Server(sent, claim=len(body), status=404 if fault == "missing" else 200) as server:
        published_at(monkeypatch, server.url + "vgg16.pth", digest)
        with pytest.raises(errors.Unavailable, match=f"cannot download {server.url}vgg16.pth: "):
            backbones.load("vgg16")
    assert left_in(cache) == []


def test_a_server_that_is_gone(cache, monkeypatch):
    with Server(b"") as server:
        url = server.url + "vgg16.pth"
    published_at(monkeypatch, url, "00000000")
    with pytest.raises(errors.Unavailable, match="cannot download .*refused"):
        backbones.load("vgg16")
    assert left_in(cache) == []


def test_offline_nothing_is_asked(cache, monkeypatch):
    monkeypatch.setenv("STYLETOOLS_OFFLINE", "1")
    with Server(b"") as server:
        published_at(monkeypatch, server.url + "vgg16.pth", "00000000")
        with pytest.raises(errors.Unavailable, match="STYLETOOLS_OFFLINE forbids"):
            backbones.load("vgg16")
        assert server.requests == 0


def test_a_cache_that_cannot_be_made(cache, monkeypatch, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    published_at(monkeypatch, "http://127.0.0.1:9/vgg16.pth", "00000000")
    with pytest.raises(errors.CannotCreate):
        backbones.load("vgg16")


def test_unpublished_weights(cache):
    with pytest.raises(errors.Unavailable, match="no weights of cd16x in STYLETOOLS_WEIGHTS .*encoder5"):
        backbones.load("cd16x")
