"""culturegan: several styles in one network, by label, by mixture, by a picture."""

import pytest
import torch
from torch.nn import functional as F

from styletools import errors, methods, modelfile
from styletools.methods.culturegan import Judge

TINY = {"labels": "red,green,blue", "width": 4, "blocks": 1, "embedding": 8, "discriminator_width": 8}
TINTS = torch.tensor([[1.0, 0.3, 0.1], [0.2, 1.0, 0.3], [0.1, 0.3, 1.0]])


def pictures(count, seed, tint=None, size=32):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return smooth if tint is None else smooth * tint.view(-1, 3, 1, 1)


def made(**settings):
    torch.manual_seed(0)
    return methods.create("culturegan", TINY | settings)


def batch(step, count=6):
    """Photographs of all colours, and pictures in which the colour of their label is most of all."""
    label = (step + torch.arange(count)) % 3
    labelled = pictures(count, 2 * step + 1, TINTS[label])
    return {"content": pictures(count, 2 * step), "labelled": labelled, "label": label}


def trained(steps, **settings):
    method = made(**settings)
    optimizers = method.optimizers()
    told = [method.train_step(batch(step), optimizers, step) for step in range(steps)]
    return method, [{key: float(value.detach()) for key, value in each.items()} for each in told]


def painted(method, images, style):
    with torch.no_grad():
        return method.apply(images, style=style)


@pytest.mark.slow
def test_it_learns_the_styles_apart_and_keeps_the_content():
    method, told = trained(250, lr_g=2e-3, lr_d=2e-3)
    method.nets.eval()
    photographs = pictures(8, 10_001)
    for number, name in enumerate(method.labels):
        colours = painted(method, photographs, method.own_style(name)).mean((2, 3))
        before = photographs.mean((2, 3))
        shares, shares_before = (x[:, number] / x.sum(1) for x in (colours, before))
        assert (shares > shares_before + 0.05).all(), name
        # A picture of the style tells it as well.
        reference = method.encode_style([pictures(1, 10_002, TINTS[number])], [1.0])
        colours = painted(method, photographs, {k: v.detach() for k, v in reference.items()}).mean((2, 3))
        assert (colours[:, number] / colours.sum(1)).mean() > shares_before.mean() + 0.03, name
    assert told[-1]["content"] < 1.0, "1 is about what unlike pictures have"
    assert sum(each["label_accuracy"] for each in told[-20:]) / 20 > 0.7
    assert set(told[0]) >= {"accuracy", "diversity", "label_accuracy"}


def test_content_is_told_from_other_content():
    """The content loss is near 0 for a change of colours and contrast, and far from it for another picture."""
    method = made()
    with torch.no_grad():
        photographs = pictures(4, 1, size=64)
        kept = method._content(photographs)
        recoloured = F.mse_loss(method._content(0.2 + 0.6 * photographs), kept)
        others = F.mse_loss(method._content(photographs.flip(0)), kept)
    assert recoloured < 0.25 * others and others > 0.5


def test_what_learns_from_what(slim):
    """The discriminator's step moves the discriminator alone, the generator's all others."""
    method = made(reference_share=0.5)
    optimizers = method.optimizers()
    before = {name: [p.clone() for p in net.parameters()] for name, net in method.nets.items()}
    updates = []

    def update(optimizer, loss):
        methods.Method.update(method, optimizer, loss)
        changed = {
            name
            for name, net in method.nets.items()
            if any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters()))
        }
        updates.append(changed)

    method.update = update
    method.train_step(batch(0), optimizers, 0)
    assert updates == [{"discriminator"}, {"discriminator", "encoder", "decoder", "styles", "reference"}]


def test_references_take_the_place_of_labels(slim):
    for share, wanted in [(0.0, "styles"), (1.0, "reference")]:
        method = made(reference_share=share)
        optimizers = method.optimizers()
        method.train_step(batch(0), optimizers, 0)
        moved = {
            name for name in ("styles", "reference")
            if any(p.grad is not None and p.grad.abs().max() > 0 for p in method.nets[name].parameters())
        }  # fmt: skip
        assert moved == {wanted}
    with pytest.raises(errors.UsageError, match="trained by labels alone"):
        made(reference_share=0.0).encode_style([pictures(1, 0)], [1.0])


def test_styles_can_be_mixed(slim):
    method = made().to("cpu")
    torch.nn.init.normal_(method.nets["decoder"].out.weight)
    method.nets.eval()
    red, green = (method.own_style(name) for name in ("red", "green"))
    images = pictures(3, 5)
    first, second = painted(method, images, red), painted(method, images, green)
    half = {"embedding": (red["embedding"] + green["embedding"]) / 2}
    between = painted(method, images, half)
    assert (first - second).abs().max() > 0.01
    assert (between - first).abs().mean() < (second - first).abs().mean()
    assert (between - second).abs().mean() < (second - first).abs().mean()
    with torch.no_grad():
        torch.testing.assert_close(method.apply(images)[1:2], second[1:2], atol=1e-4, rtol=0)  # no style: in turn
    torch.testing.assert_close(painted(method, images, red), first)
    assert method.sample({"content": images}).shape == (3, 3, 32, 3 * 32)


def test_the_decoder_begins_with_the_photograph(slim):
    method = made()
    method.nets.eval()
    images = pictures(2, 1)
    assert (painted(method, images, method.own_style("red")) - images).abs().mean() < 0.02


@pytest.mark.parametrize("adversarial", ["vanilla", "lsgan", "hinge"])
def test_every_adversarial_loss(adversarial, slim):
    _, told = trained(3, adversarial=adversarial, dropout=0.3, augment="color,translation,cutout")
    assert all(value == value and abs(value) < 1e4 for each in told for value in each.values())


def test_a_single_label(slim):
    method = made(labels="red")
    one = batch(0) | {"label": torch.zeros(6, dtype=torch.int64)}
    found = method.train_step(one, method.optimizers(), 0)
    assert float(found["label"].detach()) == 0 and float(found["label_accuracy"]) == 1


@pytest.mark.parametrize("count", [6, 1])
def test_validation_tells_a_near_crowd_from_a_far_one(count, slim):
    """Even of one picture: without it, early stopping would take the model that changes least."""
    method = made()
    method.nets.eval()
    far = batch(0, count)
    near = far | {"labelled": far["content"]}
    scores = [method.validate(each) for each in (near, far)]
    assert scores[0]["style"] < scores[1]["style"] and scores[0]["loss"] < scores[1]["loss"]


def test_the_model_file_holds_what_applying_and_judging_need(tmp_path, slim):
    method, images = made(), pictures(2, 0)
    method.nets.eval()
    modelfile.save(tmp_path / "m.safetensors", "culturegan", method)
    loaded = modelfile.load(tmp_path / "m.safetensors")
    with torch.no_grad():
        for style in (method.own_style("blue"), method.encode_style([images[:1]], [1.0])):
            torch.testing.assert_close(painted(loaded, images, style), painted(method, images, style))
        torch.testing.assert_close(loaded.apply(images, alpha=0.0), images)
        judged = loaded.discriminate(images)
        real, which = loaded.nets["discriminator"](method._seen(images))
    assert judged.shape == (2,)
    assert (judged >= real.mean(2).amin(1)).all() and (judged <= real.mean(2).amax(1)).all()


def test_what_is_known_of_real_features_fits_into_half_precision():
    """Those of published networks are in the thousands: 16 bits (st-train --half) do not hold their squares."""
    features = [5000 * torch.rand(4, 6, 8, 8) + 100]
    judge = Judge([6], 4, 2)
    for _ in range(3):
        judge.learn(features)
    before = judge(features)
    for buffer in judge.buffers():
        buffer.copy_(buffer.half())
    for found, wanted in zip(judge(features), before):
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)


def test_real_features_are_brought_to_mean_0_and_deviation_1():
    """By the mean of the batches so far."""
    judge, seen = Judge([6], 4, 2), []
    judge.trunks[0].register_forward_pre_hook(lambda trunk, given: seen.append(given[0].detach()))
    features = [torch.randn(64, 6, 8, 8) * torch.arange(1.0, 7).view(6, 1, 1) + 50]
    for part in features[0].split(16):
        judge.learn([part])
    judge(features)
    assert seen[0].mean((0, 2, 3)).abs().max() < 0.02 and (seen[0].std((0, 2, 3)) - 1).abs().max() < 0.02


def test_labels_that_are_known_keep_what_was_learnt(slim):
    before = made().nets.state_dict()
    method = made(labels="blue,violet,red,green")
    own = {key: value.clone() for key, value in method.nets.state_dict().items()}
    fitted = method.adopt({"labels": TINY["labels"]}, before)
    assert {key: value.shape for key, value in fitted.items()} == {key: value.shape for key, value in own.items()}
    for key in ("styles.weight", "discriminator.which.weight", "discriminator.which.bias", "discriminator.real.0.bias"):
        assert torch.equal(fitted[key][[2, 3, 0]], before[key]) and torch.equal(fitted[key][1], own[key][1]), key
    assert torch.equal(fitted["encoder.shallow.weight"], before["encoder.shallow.weight"])
    assert all(torch.equal(value, own[key]) for key, value in method.nets.state_dict().items()), "nothing is loaded yet"
    method.nets.load_state_dict(fitted)
    assert made().adopt({"labels": TINY["labels"]}, before) is before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "wgan"}, "adversarial=wgan: vanilla, lsgan, hinge expected"),
        ({"labels": "a,b,a"}, "labels=a,b,a: a name twice"),
        ({"width": 0}, "must be 1 or more"),
        ({"dropout": 1.0}, "dropout must be from 0"),
        ({"reference_share": 1.5}, "reference_share from 0 to 1"),
        ({"content_layer": "relu9_1"}, "slim has no layer 'relu9_1'"),
        ({"style_layers": ","}, "style_layers names no layer"),
        ({"backbone": "nope"}, "unknown backbone 'nope'"),
        ({"augment": "nope"}, "unknown augmentation 'nope'"),
    ],
)
def test_wrong_settings(settings, message, slim):
    with pytest.raises(errors.UsageError, match=message):
        made(**settings)
