"""Published checkpoints as models: who knows which, and what comes of them in the commands."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, methods, modelfile, streams
from styletools.engine import infer, styles


@pytest.fixture(scope="module")
def adain(weights, tmp_path_factory):
    """A folder with the two published files of AdaIN, and nothing else."""
    files = [next(weights.glob(pattern), None) for pattern in ("vgg_normalised*.pth", "adain_decoder*.pth")]
    if None in files:
        pytest.skip("the published weights of AdaIN are not in STYLETOOLS_WEIGHTS")
    folder = tmp_path_factory.mktemp("adain")
    for path in files:
        (folder / path.name).symlink_to(path.resolve())
    return folder


def test_methods_that_know_none_are_not_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(methods, "_class", lambda name: asked.append(name))
    with pytest.raises(AttributeError):
        methods.detect({})
    assert methods.describe(asked[0]).knows_published and not methods.describe("gatys").knows_published
    assert methods.describe("gatys").trains_on == "nothing" and not methods.describe("gatys").needs_model
    assert methods.describe("microast").trains_on == "nothing" and methods.describe("microast").needs_model


@pytest.mark.parametrize("name", [name for name in methods.names() if methods.describe(name).knows_published])
def test_tensors_of_others_are_not_claimed(name):
    one = torch.zeros(1)
    for state in ({}, {"a": one}, {"x/a": one, "y/a": one}, {"0.weight": one, "1.weight": torch.zeros(3, 3)}):
        assert methods._class(name).detect(state) == ""


def test_published_models_are_known_by_one_method_each(microast, adain):
    for folder, name in ((microast, "microast"), (adain, "adain")):
        state = modelfile._read_folder(folder)
        assert [n for n in methods.names() if methods._class(n).detect(state)] == [name]
        config, tensors = methods.convert(name, state)
        method = methods.create(name, {"backbone": "slim"} if name == "adain" else config)
        assert {key.partition(".")[0] for key in tensors} == set(method.keep or method.nets)


# AdaIN of pytorch-AdaIN, written down once more


@pytest.fixture(scope="module")
def raw(adain):
    """The published tensors, by file."""
    return {kind: {k: v.float() for k, v in torch.load(next(adain.glob(f"*{kind}*")), weights_only=True).items()}
            for kind in ("vgg", "decoder")}  # fmt: skip


def encode(raw, x):
    state = raw["vgg"]
    x = F.conv2d(x, state["0.weight"], state["0.bias"])
    for position in (2, 5, 9, 12, 16, 19, 22, 25, 29):
        x = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), state[f"{position}.weight"], state[f"{position}.bias"]).relu()
        if position in (5, 12, 25):
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return x


def decode(raw, x):
    state = raw["decoder"]
    for position in (1, 5, 8, 11, 14, 18, 21, 25, 28):
        x = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), state[f"{position}.weight"], state[f"{position}.bias"])
        if position != 28:
            x = x.relu()
        if position in (1, 14, 21):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
    return x


def picture(path, short):
    return infer.resize(infer.to_tensor(streams.open_image(path))[0], short)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@torch.no_grad()
def test_adain_is_the_published_model(adain, raw, reference, monkeypatch, alpha):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", "")  # the encoder comes from the folder
    method = modelfile.load(adain)
    content, style = (
        picture(path, 96)[..., :96, :96]
        for path in (reference / "content/adain_avril.jpg", reference / "style/wave.jpg")
    )
    out = method.apply(content, style=method.encode_style([style], [1.0]), alpha=alpha)
    x, y = encode(raw, content), encode(raw, style)
    (a, b), (c, d) = (((z.var((2, 3), keepdim=True) + 1e-5).sqrt(), z.mean((2, 3), keepdim=True)) for z in (x, y))
    expected = decode(raw, alpha * ((x - b) / a * c + d) + (1 - alpha) * x)
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected.clamp(0, 1), rtol=0, atol=1e-4)


def test_adain_needs_both_files(adain, tmp_path):
    decoder = next(adain.glob("adain_decoder*"))
    assert modelfile.find(str(decoder)) == adain
    (tmp_path / decoder.name).symlink_to(decoder.resolve())
    with pytest.raises(errors.DoesNotFit, match="tensors of no method that is known here: 1.weight, 1.bias"):
        modelfile.load(tmp_path / decoder.name)


def test_an_encoder_that_is_another_is_refused(adain, tmp_path, monkeypatch):
    """The file that is found by its name is not the one that the decoder came with."""
    state = torch.load(next(adain.glob("vgg*")), weights_only=True)
    torch.save(state, tmp_path / "encoder.pth")
    torch.save(torch.load(next(adain.glob("adain*")), weights_only=True), tmp_path / "decoder.pth")
    other = tmp_path / "weights"
    other.mkdir()
    torch.save(state | {"2.bias": state["2.bias"] + 1}, other / "vgg_normalised.pth")
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(other))
    method = modelfile.load(tmp_path)
    with torch.no_grad(), pytest.raises(errors.DoesNotFit, match="other weights of vgg_normalised"):
        method.apply(torch.rand(1, 3, 16, 16), style={"mean": torch.zeros(512), "std": torch.ones(512)})


# fast_neural_style of the examples of PyTorch, written down once more


@pytest.mark.parametrize("name", ["candy_nc8", "mosaic_nc16"])
@torch.no_grad()
def test_johnson_is_the_published_model(peers, reference, name):
    path = peers(f"fns_web/{name}.pth")
    state = torch.load(path, weights_only=True)

    def conv(x, key, norm, stride=1, up=1):
        weight, bias = (state[f"{key}.conv2d.{kind}"] for kind in ("weight", "bias"))
        x = F.interpolate(x, scale_factor=up, mode="nearest") if up > 1 else x
        x = F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4, mode="reflect"), weight, bias, stride=stride)
        return F.instance_norm(x, weight=state[f"{norm}.weight"], bias=state[f"{norm}.bias"]) if norm else x

    image = picture(reference / "content/adain_avril.jpg", 64)[..., :64, :72]
    x = 255 * image
    for i, stride in ((1, 1), (2, 2), (3, 2)):
        x = conv(x, f"conv{i}", f"in{i}", stride).relu()
    for i in range(1, 6):
        inner = conv(x, f"res{i}.conv1", f"res{i}.in1").relu()
        x = x + conv(inner, f"res{i}.conv2", f"res{i}.in2")
    for i in (1, 2):
        x = conv(x, f"deconv{i}", f"in{i + 3}", up=2).relu()
    expected = conv(x, "deconv3", None).clamp(0, 255) / 255
    assert expected.std() > 0.1
    method = modelfile.load(path)
    assert method.config.widths.partition(",")[0] == name.rpartition("nc")[2]
    torch.testing.assert_close(method.apply(image), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_records_are_for_one_model(microast, tmp_path):
    method = modelfile.load(microast)
    tensors = method.encode_style([torch.rand(1, 3, 32, 32)], [1.0])
    digest = modelfile.digest(microast)
    made = styles.to_record(tensors, name="x", method_name="microast", model_digest=digest)
    styles.check_metadata("x", made.meta, "microast", digest)
    for path in microast.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert modelfile.digest(tmp_path) == digest
    state = torch.load(next(tmp_path.glob("decoder*")), weights_only=True)
    torch.save(state, next(tmp_path.glob("decoder*")))  # the same numbers in another format
    with pytest.raises(errors.DoesNotFit, match="a style record for another model of microast"):
        styles.check_metadata("x", made.meta, "microast", modelfile.digest(tmp_path))
