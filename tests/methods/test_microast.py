"""microast: the published model, against its formulas written down once more."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, methods, modelfile, stats, streams
from styletools.engine import infer


@pytest.fixture(scope="module")
def method(microast):
    return modelfile.load(microast)


@pytest.fixture(scope="module")
def plain(microast):
    """What the paper says, as a function of (content, style, alpha), on the published tensors as they are."""
    names = ("content_encoder", "style_encoder", "modulator", "decoder")
    raw = {name: torch.load(next(microast.glob(f"{name}*")), weights_only=True) for name in names}

    def conv(x, net, key, stride=1):
        weight, bias = (raw[net][f"{key}.conv_layer.{kind}"] for kind in ("weight", "bias"))
        half = weight.shape[-1] // 2
        padded = F.pad(x, [half] * 4, mode="reflect") if half else x
        return F.conv2d(padded, weight, bias, stride=stride, groups=x.shape[1] // weight.shape[1])

    def encode(x, net):
        for index, stride in ((0, 1), (2, 2), (4, 1), (6, 2), (8, 1)):
            x = F.relu(conv(x, net, f"enc1.{index}", stride))
        first = x + conv(F.relu(conv(x, net, "enc1.10.conv1")), net, "enc1.10.conv2")
        return first, first + conv(F.relu(conv(first, net, "enc2.0.conv1")), net, "enc2.0.conv2")

    def adain(x, y):
        (a, b), (c, d) = (((z.var((2, 3), keepdim=True) + 1e-5).sqrt(), z.mean((2, 3), keepdim=True)) for z in (x, y))
        return (x - b) / a * c + d

    def modulated(x, key, weight, bias):
        inner = F.relu(weight * conv(x, "decoder", f"{key}.conv1") + bias * x)
        return x + weight * conv(inner, "decoder", f"{key}.conv2") + bias * inner

    def restyle(content, style, alpha=1.0):
        own, signals = encode(content, "content_encoder"), encode(style, "style_encoder")
        x = own[1]
        for level, block in ((1, "dec1"), (0, "dec2")):
            x = alpha * adain(x, signals[level]) + (1 - alpha) * x
            weight, bias = (
                conv(signals[level], "modulator", f"{kind}{level + 1}.0").mean((2, 3), keepdim=True)
                for kind in ("weight", "bias")
            )
            x = modulated(x, block, weight, bias)
        for up, down in ((1, 3), (6, 8)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.relu(conv(F.relu(conv(x, "decoder", f"dec3.{up}")), "decoder", f"dec3.{down}"))
        return conv(x, "decoder", "dec3.10")

    return restyle


def picture(path, short):
    return infer.resize(infer.to_tensor(streams.open_image(path))[0], short)


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("size", [(96, 128), (64, 60)])
@torch.no_grad()
def test_it_is_what_the_paper_says(method, plain, reference, size, alpha):
    content = picture(reference / "content/adain_avril.jpg", 130)[..., : size[0], : size[1]]
    style = picture(reference / "style/wave.jpg", 101)  # of odd sizes, which are taken as they are
    out = method.apply(content, style=method.encode_style([style], [1.0]), alpha=alpha)
    expected = plain(content, style, alpha)
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected.clamp(0, 1), rtol=0, atol=1e-4)


@torch.no_grad()
def test_odd_sizes_are_padded_and_cropped(method, plain, reference):
    content = picture(reference / "content/adain_avril.jpg", 75)[..., :75, :93]
    style = picture(reference / "style/wave.jpg", 64)
    record = method.encode_style([style], [1.0])
    image = streams.Image((content[0] * 255).round().byte().permute(1, 2, 0).numpy())
    out = infer.Restyler(method, record)(image).array
    padded = infer.pad(infer.to_tensor(image)[0], 4)
    assert out.shape == (75, 93, 3) and padded.shape == (1, 3, 76, 96)
    expected = plain(padded, style)[0, :, :75, :93].clamp(0, 1).mul(255).permute(1, 2, 0)
    assert (torch.from_numpy(out).float() - expected).abs().max() <= 0.51


@torch.no_grad()
def test_batches_are_pictures_one_by_one(method, reference):
    content = torch.cat([picture(reference / f"content/{n}", 64)[..., :64, :64] for n in _names(reference, "content")])
    record = method.encode_style([picture(reference / "style/wave.jpg", 64)], [1.0])
    single = torch.cat([method.apply(one[None], style=record) for one in content])
    torch.testing.assert_close(method.apply(content, style=record), single, rtol=0, atol=1e-4)


def _names(reference, kind):
    return sorted(path.name for path in (reference / kind).glob("*.jpg"))[:2]


@torch.no_grad()
def test_mixtures_lie_between(method, reference):
    first, second = (picture(reference / f"style/{name}", 64) for name in _names(reference, "style"))
    content = picture(reference / "content/adain_avril.jpg", 64)[..., :64, :64]
    one, other = (method.encode_style([image], [1.0]) for image in (first, second))
    mixed = method.encode_style([first, second], [3.0, 1.0])
    assert set(mixed) == {f"{d}_{k}" for d in ("shallow", "deep") for k in ("mean", "std", "factor", "share")}
    for key, value in stats.merge([one, other], [0.75, 0.25]).items():
        torch.testing.assert_close(mixed[key], value)
    a, b, m = (method.apply(content, style=style) for style in (one, other, mixed))
    distance = (a - b).square().mean()
    assert 0 < (m - a).square().mean() < (m - b).square().mean() < distance


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 5), (17, 16)])
@torch.no_grad()
def test_styles_of_any_size(method, size):
    record = method.encode_style([torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))], [1.0])
    assert all(torch.isfinite(value).all() and value.shape == (64,) for value in record.values())


@torch.no_grad()
def test_widths_come_from_the_tensors(tmp_path):
    torch.manual_seed(0)
    narrow = methods.create("microast", {"channels": 4})
    modelfile.save(tmp_path / "m.safetensors", "microast", narrow)
    again = modelfile.load(tmp_path / "m.safetensors")
    image = torch.rand(1, 3, 32, 32)
    style = narrow.encode_style([image], [1.0])
    assert torch.equal(again.apply(image, style=style), narrow.apply(image, style=style))


def test_the_folder_tells_a_narrow_model(microast, tmp_path):
    """A model of half the width, in the published layout."""
    for path in microast.iterdir():
        state = torch.load(path, weights_only=True)
        halved = {}
        for key, value in state.items():
            sides = [n if n in (1, 2, 3) else n // 2 for n in value.shape[:2]]
            halved[key] = value[tuple(slice(n) for n in sides)].clone()
        torch.save(halved, tmp_path / path.name)
    assert modelfile.load(tmp_path).config.channels == 8


def test_parts_that_do_not_fit(microast, tmp_path):
    for path in microast.iterdir():
        state = dict(torch.load(path, weights_only=True))
        if path.name.startswith("decoder"):
            del state["dec3.10.conv_layer.bias"]
        torch.save(state, tmp_path / path.name)
    with pytest.raises(errors.DoesNotFit, match=r"do not fit its configuration \(decoder.up.10.bias\)"):
        modelfile.load(tmp_path)
