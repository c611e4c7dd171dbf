"""Published layouts: who knows which, and that what is made of them computes what its authors say."""

import layout_samples as samples
import pytest
import torch
from torch.nn import functional as F

from styletools import backbones, errors, methods, modelfile, stats, streams
from styletools.engine import infer

KNOWING = [name for name in methods.names() if methods.describe(name).knows_published]


@pytest.mark.parametrize("detector", KNOWING)
@pytest.mark.parametrize("sample", samples.LAYOUTS)
def test_each_layout_is_known_by_one_method(sample, detector):
    name, layout, shapes = samples.LAYOUTS[sample]
    assert methods.layout(detector, samples.empty(shapes)) == (layout if detector == name else "")
    assert layout in methods.describe(name).layouts


@pytest.mark.parametrize("name", KNOWING)
def test_every_layout_has_a_sample(name):
    sampled = {layout for method, layout, _ in samples.LAYOUTS.values() if method == name}
    assert set(methods.describe(name).layouts) == sampled


@pytest.mark.parametrize("name", KNOWING)
def test_a_model_of_ours_is_nobodys(name, slim):
    """Its tensors are called otherwise: it is known by what it says of itself."""
    tensors = {f"{net}.{key}": value for net, module in methods.create(name).nets.items()
               for key, value in module.state_dict().items()}  # fmt: skip
    assert not any(methods.layout(detector, tensors) for detector in KNOWING)


def written(path, state, **how):
    torch.save({f"module.{key}": value for key, value in state.items()} if how.pop("parallel", False) else state, path,
               **how)  # fmt: skip
    return path


def image(height=32, width=40, seed=0):
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def agree(found, expected):
    assert expected.std() > 0.02, "the model does something"
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


RESNETS = [name for name, (_, _, shapes) in samples.LAYOUTS.items() if "model.1.weight" in shapes]


@pytest.mark.parametrize("sample", RESNETS)
@pytest.mark.parametrize("parallel", [False, True])
@torch.no_grad()
def test_generators_of_residual_blocks(tmp_path, sample, parallel):
    name, _, shapes = samples.LAYOUTS[sample]
    state = samples.with_filters(samples.drawn(shapes, scale=1.5))
    model = modelfile.load(written(tmp_path / "latest_net_G.pth", state, parallel=parallel))
    assert len(model.nets) == 1 and str(model.config.blocks) in sample or "dropout" in sample or "buffers" in sample
    agree(model.apply(image()), samples.plain_resnet(state, image()))


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("levels", [3, 7, 8])
@torch.no_grad()
def test_u_nets(tmp_path, levels, batch):
    state = samples.drawn(samples.unet(2, levels, batch), scale=1.5)
    path = written(tmp_path / "latest_net_G.pth", state, parallel=True)
    model, given = modelfile.load(path), image(2**levels, 2**levels)
    assert (model.config.levels, model.multiple) == (levels, 2**levels)
    agree(model.apply(given), samples.plain_unet(state, given, by_picture=True))


@torch.no_grad()
def test_batch_normalisation_by_what_is_stored(tmp_path):
    for shapes, plain in ((samples.unet(), samples.plain_unet), (samples.resnet(batch=True), samples.plain_resnet)):
        state = samples.drawn(shapes)
        path = written(tmp_path / "G.pth", state)
        stored, model = modelfile.load(path, settings={"statistics": "stored"}), modelfile.load(path)
        agree(stored.apply(image(32, 64)), plain(state, image(32, 64), by_picture=False))
        assert not torch.allclose(model.apply(image(32, 64)), stored.apply(image(32, 64)), atol=1e-2)
        two = torch.cat([image(32, 64), image(32, 64, 1)])
        for each in (model, stored):
            torch.testing.assert_close(each.apply(two)[1:], each.apply(two[1:]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@torch.no_grad()
def test_animegan2(tmp_path, align_corners):
    state = samples.drawn(samples.animegan2(), scale=1.5)
    path = written(tmp_path / "face_paint.pt", state)
    model = modelfile.load(path, settings={"align_corners": align_corners})
    given = image(33, 39) if align_corners else image(32, 40)
    agree(model.apply(given), samples.plain_animegan2(state, given, align_corners))
    assert model.multiple == (1 if align_corners else 4)


@torch.no_grad()
def test_both_ways_of_cyclegan(tmp_path):
    there, back = (samples.drawn(samples.resnet(), seed) for seed in (1, 2))
    written(tmp_path / "latest_net_G_A.pth", there)
    one = modelfile.load(tmp_path)
    agree(one.apply(image()), samples.plain_resnet(there, image()))
    with pytest.raises(errors.UsageError, match="--direction b2a: this model goes a2b only"):
        one.direction = "b2a"
    written(tmp_path / "latest_net_G_B.pth", back)
    both = modelfile.load(tmp_path)
    for way, state in (("a2b", there), ("b2a", back)):
        both.direction = way
        agree(both.apply(image()), samples.plain_resnet(state, image()))
    assert both.config.ways == "a2b,b2a"
    with pytest.raises(errors.UsageError, match="has no discriminator"):
        both.discriminate(image())


@pytest.mark.parametrize("name", ["cyclegan", "cut"])
def test_training_goes_on_from_a_published_generator(tmp_path, name):
    state = samples.with_filters(samples.drawn(samples.resnet(smooth=name == "cut")))
    path = written(tmp_path / "G.pth", state)
    with pytest.raises(errors.UsageError, match="training takes"):
        modelfile.load(path).optimizers()
    _, config, tensors = modelfile.read(path)
    config |= {"discriminator_width": 8, "depth": 1} | ({"ways": "a2b,b2a"} if name == "cyclegan" else {})
    method = methods.create(name, config)
    modelfile.load_tensors(method, method.adopt(config, tensors), path)
    with torch.no_grad():
        agree(method.apply(image()), samples.plain_resnet(state, image()))
    method.optimizers()


def test_what_is_almost_a_layout(tmp_path):
    state = samples.with_filters(samples.drawn(samples.resnet(smooth=True)))
    odd = {key: torch.ones(*value.shape[:2], 5, 5) if key.endswith(".filt") else value for key, value in state.items()}
    with pytest.raises(errors.DoesNotFit, match="G.pth: not quite a model of cut: .*blurs of"):
        modelfile.load(written(tmp_path / "G.pth", odd))
    del state["model.4.bias"]
    with pytest.raises(errors.DoesNotFit, match=r"do not fit its configuration \(generator.model.4.bias\)"):
        modelfile.load(written(tmp_path / "G.pth", state))
    grey = samples.drawn(samples.resnet() | samples.conv("model.1", 4, 1, 7))
    with pytest.raises(errors.DoesNotFit, match="G.pth: tensors of no method that is known here: model.1.weight, "):
        modelfile.load(written(tmp_path / "G.pth", grey))


def test_models_of_which_each_stands_for_itself_are_named(tmp_path):
    for name in ("a", "b"):
        torch.save(samples.drawn(samples.fast_neural_style()), tmp_path / f"{name}.pth")
    with pytest.raises(errors.DoesNotFit, match="holds a.pth and 1 more, each a model by itself: name one"):
        modelfile.load(tmp_path)


@pytest.mark.parametrize("name", ["m.pth", "m.onnx", "m.safetensors"])
def test_the_name_of_a_checkpoint_tells_nothing(tmp_path, name):
    state = samples.drawn(samples.fast_neural_style())
    torch.save(state, tmp_path / name)
    assert modelfile.check(tmp_path / name)["layout"] == "fast_neural_style"


def test_what_claims_to_be_huge(tmp_path):
    """A million times the numbers in it, which a network would have room for before anybody looks."""
    state = samples.empty(samples.fast_neural_style((3000, 3000, 3000)))
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(errors.DataError, match="m.pth: damaged: its tensors claim [0-9]+ bytes in a file of [0-9]+$"):
        modelfile.load(tmp_path / "m.pth")


# ---- WCT: the files that its authors published -----------------------------------------------------------------------


def picture(path, size):
    return infer.resize(infer.to_tensor(streams.open_image(path))[0], size)[..., :size, :size]


def decoded(state, x, names, upsampled, last_relu=False):
    """A decoder: convolutions of mirrored edges, ReLU but after the last, x2 after those `upsampled`."""
    for name in names:
        x = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), state[f"{name}.weight"], state[f"{name}.bias"])
        x = x.relu() if last_relu or name != names[-1] else x
        x = F.interpolate(x, scale_factor=2, mode="nearest") if name in upsampled else x
    return x


@pytest.fixture
def irasin(peers):
    return peers("irasin_wct")


ORDER = {3: ((1, 5, 8, 12, 15), (1, 8)), 2: ((1, 5, 8), (1,)), 1: ((1,), ())}


@torch.no_grad()
def test_decoders_of_pytorch_wct(irasin, weights, reference):
    encoder = next(weights.glob("vgg_normalised*.pth"), None)
    if encoder is None:
        pytest.skip("vgg_normalised is not in STYLETOOLS_WEIGHTS")
    raw = {key: value.float() for key, value in torch.load(encoder, weights_only=True).items()}

    def encoded(x, level):
        x = F.conv2d(x, raw["0.weight"], raw["0.bias"])
        for key in (2, 5, 9, 12, 16)[: 2 * level - 1]:
            x = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), raw[f"{key}.weight"], raw[f"{key}.bias"]).relu()
            x = F.max_pool2d(x, 2) if key in (5, 12) else x
        return x

    model = modelfile.load(irasin)
    assert model.config.levels == "relu3_1,relu2_1,relu1_1" and model.config.backbone == "vgg_normalised"
    content, style = picture(reference / "content/adain_avril.jpg", 64), picture(reference / "style/wave.jpg", 64)
    record = model.encode_style([style], [1.0])
    x = content
    for level, (names, upsampled) in ORDER.items():
        state = torch.load(irasin / f"decoder_relu{level}_1.pth", weights_only=True)
        x = decoded(state, encoded(x, level), names, upsampled).clamp(0, 1)
        # One level alone, as its file alone is a model.
        one = modelfile.load(irasin / f"decoder_relu{level}_1.pth")
        assert one.config.levels == f"relu{level}_1"
        rebuilt = decoded(state, encoded(content, level), names, upsampled).clamp(0, 1)
        agree(one.apply(content, style=one.encode_style([style], [1.0]), alpha=0.0), rebuilt)
    agree(model.apply(content, style=record, alpha=0.0), x)


@pytest.fixture
def cd16x(weights):
    folder = weights / "cd16x"
    if not folder.is_dir():
        pytest.skip("Collaborative-Distillation's published files are not in STYLETOOLS_WEIGHTS")
    return folder


@torch.no_grad()
def test_pairs_of_collaborative_distillation(cd16x, reference, monkeypatch):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", "")  # all that it needs is in the folder
    assert modelfile.find(str(cd16x / "cd16x_decoder3.pth")) == cd16x
    model = modelfile.load(cd16x)
    assert model.config.encoders == "16,32,64,128,128;16,32,64,128;16,32,64;16,32;24" and model.multiple == 16
    content, style = picture(reference / "content/adain_avril.jpg", 64), picture(reference / "style/wave.jpg", 64)

    def encoded(x, level):
        state = torch.load(cd16x / f"cd16x_encoder{level}.pth", weights_only=True)
        x = F.conv2d(x, state["conv0.weight"], state["conv0.bias"])
        for name in [key[:6] for key in state if key.endswith(".weight") and "aux" not in key][1:]:
            x = F.max_pool2d(x, 2) if name[5] == "1" and name[4] != "1" else x
            x = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), state[f"{name}.weight"], state[f"{name}.bias"]).relu()
        return x

    def transformed(x, y):
        """Whitening and colouring, by singular values, without those below a hundred-thousandth of the largest."""
        (a, m), (b, n) = ((z.flatten(2)[0].double(), z.double().mean((2, 3)).T) for z in (x, y))
        a, b = a - m, b - n
        (u, s, _), (v, t, _) = (torch.linalg.svd(z @ z.T / z.shape[1]) for z in (a, b))
        s = s.clamp_min(s.max() * 1e-5)
        return ((v * t.sqrt()) @ v.T @ ((u * s.rsqrt()) @ u.T @ a) + n).view(x.shape).float()

    x = plain = content
    for level in (5, 4, 3, 2, 1):
        state = torch.load(cd16x / f"cd16x_decoder{level}.pth", weights_only=True)
        names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        upsampled = [name for name in names if name[5] == "1" and name != "conv11"]
        plain = decoded(state, encoded(plain, level), names, upsampled, True).clamp(0, 1)
        x = decoded(state, transformed(encoded(x, level), encoded(style, level)), names, upsampled, True).clamp(0, 1)
    record = model.encode_style([style], [1.0])
    agree(model.apply(content, style=record, alpha=0.0), plain)
    found = model.apply(content, style=record)
    # Not closer, since the features of a few pixels are whitened here, and the record of the style is in float32.
    assert (found - x).abs().mean() < 5e-3 and (x - plain).abs().mean() > 0.05


def test_a_backbone_that_stops_short_is_named(irasin, weights, tmp_path):
    """The decoder of relu5_1 needs features that the file of the encoder may not hold."""
    if backbones.load("vgg_normalised").layers[-1] != "relu4_1":
        pytest.skip("the encoder in STYLETOOLS_WEIGHTS goes deeper")
    torch.save({key: torch.zeros(shape) for key, shape in samples.numbered_decoder(5).items()}, tmp_path / "d.pth")
    with pytest.raises(errors.Unavailable, match="relu5_1 of vgg_normalised is not to be had"):
        modelfile.load(tmp_path / "d.pth")


# ---- the way back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "candy_nc8", "udnie_nc16"])
def test_fast_neural_style_and_back(tmp_path, name, request):
    if name == "random":
        path = written(tmp_path / "m.pth", samples.drawn(samples.fast_neural_style((8, 16, 32))))
    else:
        path = request.getfixturevalue("peers")(f"fns_web/{name}.pth")
    state = torch.load(path, weights_only=True)
    again = modelfile.load(path).publish("fast_neural_style")
    assert set(again) == {key for key in state if "running" not in key}
    for key, value in again.items():
        if "res" in key and "conv" in key or "deconv1" in key or "deconv2" in key:
            assert torch.equal(value, state[key])
        else:  # colours counted from 0 to 255 there, and normalisations by what they differ from 1 here
            coarse = key in ("conv1.conv2d.bias", "deconv3.conv2d.bias")
            torch.testing.assert_close(value, state[key], rtol=1e-6, atol=1e-4 if coarse else 1e-6)
    model = modelfile.load(written(tmp_path / "again.pth", again))
    with torch.no_grad():
        torch.testing.assert_close(model.apply(image()), modelfile.load(path).apply(image()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"styles": "a,b"}, "this model 2, 5 and 9"), ({"blocks": 3}, "1, 3 and 9"), ({"kernel": 7}, "1, 5 and 7")],
)
def test_what_fast_neural_style_cannot_hold(settings, message, slim):
    with pytest.raises(errors.DoesNotFit, match=message):
        methods.create("johnson", {"widths": "4,4,4"} | settings).publish("fast_neural_style")


def test_adain_and_back(weights, tmp_path, slim, monkeypatch):
    with pytest.raises(errors.DoesNotFit, match="for the backbone slim, that of pytorch-AdaIN for vgg_normalised"):
        methods.create("adain").publish("pytorch-AdaIN")
    files = [next(weights.glob(pattern), None) for pattern in ("vgg_normalised*.pth", "adain_decoder*.pth")]
    if None in files:
        pytest.skip("the published weights of AdaIN are not in STYLETOOLS_WEIGHTS")
    for path in files:
        (tmp_path / path.name).symlink_to(path.resolve())
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", "")
    again = modelfile.load(tmp_path).publish("pytorch-AdaIN")
    state = torch.load(files[1], weights_only=True)
    assert list(again) == list(state)
    for key, value in state.items():
        torch.testing.assert_close(again[key], value.float(), rtol=0, atol=1e-7)
        assert key == "28.bias" or torch.equal(again[key], value.float())
    assert stats.EPS == 1e-5
