"""dcgan and what it shares with wgan_gp: the networks, training, resuming, the model file."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from styletools import errors, losses, methods, modelfile
from styletools.engine import data, train
from styletools.nn import dcgan

CPU = torch.device("cpu")
TINY = {"image_size": 16, "channels": 4, "z_dim": 8}
KINDS = {
    "dcgan": ("dcgan", {}),
    "spectral": ("dcgan", {"spectral": True, "adversarial": "hinge"}),
    "wgan_gp": ("wgan_gp", {"n_critic": 3}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def made(kind, **more):
    name, config = KINDS[kind]
    torch.manual_seed(0)
    return methods.create(name, TINY | config | more)


def run(kind, folder, output, steps, *, resume=False, size=16, batch=4, **plan):
    source = data.Source(str(folder))
    batches = data.Batches({"images": data.Crops([source], 0, 0)}, batch, [size])
    method = made(kind)
    told = train.Plan(**{"steps": steps, "warmup": 0, "schedule": "constant", "ema": 0.9} | plan)
    train.train(KINDS[kind][0], method, batches, None, output, told, device=CPU, resume=resume)
    return method


# ---- networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("norm", dcgan.NORMS)
def test_shapes_and_ranges(size, norm):
    torch.manual_seed(0)
    images = dcgan.Generator(size, 5, 2)(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert dcgan.Discriminator(size, 2, norm)(images).shape == (2,)


def test_a_plain_surface_stays_plain():
    """Whatever the weights: transposed convolutions would leave a checkerboard."""
    torch.manual_seed(0)
    block = dcgan.Generator(32, 5, 4).up[0].eval()
    with torch.no_grad():
        plain = torch.rand(1, block.conv.in_channels, 1, 1).expand(-1, -1, 8, 8)
        found = block(plain)[..., 2:-2, 2:-2]
        transposed = torch.nn.ConvTranspose2d(block.conv.in_channels, 4, 4, 2, 1)(plain)[..., 2:-2, 2:-2]
    assert found.std((2, 3)).max() < 1e-6 < 1e-3 < transposed.std((2, 3)).min()


def test_first_weights():
    torch.manual_seed(0)
    for net in (dcgan.Generator(32, 50, 16), dcgan.Discriminator(32, 16)):
        kernels = torch.cat([p.detach().flatten() for p in net.parameters() if p.ndim > 1])
        assert kernels.mean().abs() < 1e-3 and kernels.std() == pytest.approx(0.02, rel=0.02)


def test_spectral_normalisation_bounds_the_convolutions():
    torch.manual_seed(0)
    net = dcgan.Discriminator(16, 4, "spectral")
    for _ in range(20):
        net(torch.rand(2, 3, 16, 16))
    net.eval()
    for layer in net.layers:
        if isinstance(layer, torch.nn.Conv2d):
            assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.05)


def test_energy_distance():
    a, b = (torch.full((2, 3, 8, 8), x) for x in (0.25, 0.75))
    assert dcgan.energy_distance(a, b) == pytest.approx(1.0), "2 |a - b|, and nothing within"
    assert dcgan.energy_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert dcgan.energy_distance(a[:1], b[:1]) == pytest.approx(1.0), "one alone has no spread"
    mixed = torch.cat([a[:1], b[:1]])
    assert dcgan.energy_distance(mixed, a) == pytest.approx(0.0, abs=1e-6), "2 * 0.25 - 0.5 - 0: it is no square"
    torch.manual_seed(0)
    same = torch.stack([dcgan.energy_distance(torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)) for _ in range(50)])
    assert same.mean().abs() < 3 * same.std() / 50**0.5 and same.min() < 0, "no bias"


# ---- training --------------------------------------------------------------------------------------------


def discs(folder, count=24):
    """Write pictures of a red disc on blue, of places and sizes of their own."""
    rng, grid = np.random.default_rng(0), np.mgrid[:16, :16]
    folder.mkdir()
    for number in range(count):
        (y, x), radius = rng.uniform(5, 11, 2), rng.uniform(3, 5)
        inside = (grid[0] - y) ** 2 + (grid[1] - x) ** 2 < radius**2
        pixels = np.where(inside[..., None], [230, 60, 30], [20, 40, 120]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps"), [("dcgan", 150), ("spectral", 150), ("wgan_gp", 300)])
def test_it_learns_discs(kind, steps, tmp_path):
    torch.set_num_threads(1)
    folder = discs(tmp_path / "discs")
    name, config = KINDS[kind]
    torch.manual_seed(0)
    method = methods.create(name, TINY | config | {"channels": 8, "lr_g": 1e-3, "lr_d": 1e-3})
    real = data.Crops([data.Source(str(folder))], 0, 0).batch(10**6, 64, 16).float() / 255
    z = torch.randn(64, 8)

    def distance():
        method.nets.eval()
        with torch.no_grad():
            return float(dcgan.energy_distance(method.generate(z), real))

    before = distance()
    batches = data.Batches({"images": data.Crops([data.Source(str(folder))], 0, 0)}, 16, [16])
    plan = train.Plan(steps=steps, warmup=0, schedule="constant", ema=0.95)
    train.train(name, method, batches, None, tmp_path / "m.safetensors", plan, device=CPU)
    method = modelfile.load(tmp_path / "m.safetensors")
    after = distance()
    print(kind, before, after)
    assert after < 0.25 * before
    with torch.no_grad():
        pictures = method.generate(z)
    assert losses.diversity(pictures) > 0.5 * losses.diversity(real), "they are not all the same"
    red, blue = pictures[:, 0] - pictures[:, 2], pictures[..., :2, :2]
    assert red[:, 6:10, 6:10].mean() > 0.2 and (blue[:, 2] - blue[:, 0]).mean() > 0.1, "red within, blue in the corner"


@kinds
def test_resumed_it_is_the_same_bit_for_bit(kind, pictures, tmp_path):
    run(kind, pictures, tmp_path / "whole.safetensors", 5)
    run(kind, pictures, tmp_path / "parts.safetensors", 2)
    run(kind, pictures, tmp_path / "parts.safetensors", 5, resume=True)
    whole, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    assert set(whole) == set(parts) and all(torch.equal(whole[key], parts[key]) for key in whole)


@kinds
def test_the_model_file_makes_and_judges_as_the_average_does(kind, pictures, tmp_path):
    output, z, images = tmp_path / "m.safetensors", torch.randn(3, 8), torch.rand(3, 3, 16, 16)
    method = run(kind, pictures, output, 4)
    state = torch.load(tmp_path / "m.resume.pt", weights_only=True)
    loaded = modelfile.load(output)
    with torch.no_grad():
        own = made(kind)
        own.nets.load_state_dict(state["average"]["values"])
        own.nets.eval()
        method.nets.eval()
        assert torch.equal(loaded.generate(z), own.generate(z))
        assert torch.equal(loaded.discriminate(images), own.discriminate(images))
        assert not torch.equal(loaded.generate(z), method.generate(z)), "averaged weights are what is saved"
        assert loaded.discriminate(images).shape == (3,) and torch.isfinite(loaded.discriminate(images)).all()


@kinds
def test_what_a_step_tells(kind):
    method, right = made(kind), "critic_accuracy" if kind == "wgan_gp" else "accuracy"
    optimizers = method.optimizers()
    for step in range(4):
        told = method.train_step({"images": torch.rand(4, 3, 16, 16)}, optimizers, step)
        assert {"loss", "discriminator", right, "diversity"} <= set(told)
        assert 0 <= told[right] <= 1 and told["diversity"] >= 0
    method.nets.eval()
    assert set(method.validate({"images": torch.rand(4, 3, 16, 16)})) == {"loss", right, "diversity"}
    assert set(method.validate({"images": torch.rand(1, 3, 16, 16)})) == {right, "diversity"}


def test_two_time_scales_and_betas():
    optimizers = made("dcgan", lr_g=1e-4, lr_d=4e-4).optimizers()
    assert {key: o.param_groups[0]["lr"] for key, o in optimizers.items()} == {"generator": 1e-4, "discriminator": 4e-4}
    assert all(o.param_groups[0]["betas"] == (0.5, 0.999) for o in optimizers.values())


@kinds
@pytest.mark.parametrize("what", ["one picture", "mixed sizes", "greyscale"])
def test_folders_of_all_kinds(kind, what, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "m.safetensors"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = {"one picture": [(20, 24)], "mixed sizes": [(5, 40), (16, 16), (90, 30)], "greyscale": [(20, 20), (24, 18)]}
    for number, size in enumerate(sizes[what]):
        pixels = rng.integers(0, 256, size if what == "greyscale" else (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    run(kind, folder, output, 2)
    with torch.no_grad():
        assert torch.isfinite(modelfile.load(output).generate(torch.randn(2, 8))).all()


@kinds
@pytest.mark.parametrize("size", [32, 48])
def test_crops_of_another_size(kind, size, pictures, tmp_path):
    with pytest.raises(errors.UsageError) as caught:
        run(kind, pictures, tmp_path / "m.safetensors", 2, size=size)
    also = ", or -O image_size=32" if size == 32 else ""
    assert str(caught.value) == f"crops of {size} pixels for pictures of 16: --crop-size 16{also}"
    assert not list(tmp_path.iterdir()), "found before anything is written"


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("dcgan", {"image_size": 48}, "image_size=48: one of 16, 32, 64"),
        ("dcgan", {"adversarial": "wgan"}, "adversarial=wgan: vanilla, lsgan or hinge"),
        ("dcgan", {"augment": "flip"}, "unknown augmentation 'flip'"),
        ("dcgan", {"z_dim": 0}, "at least 1"),
        ("wgan_gp", {"n_critic": 0}, "at least 1"),
        ("wgan_gp", {"augment": "flip"}, "unknown augmentation 'flip'"),
        ("wgan_gp", {"image_size": 60}, "image_size=60"),
    ],
)
def test_what_cannot_be_configured(name, config, message):
    with pytest.raises(errors.UsageError, match=message):
        methods.create(name, config)


def test_other_methods_make_nothing_from_noise():
    with pytest.raises(errors.UsageError, match="this method makes no pictures from noise"):
        methods.create("gatys").generate(torch.randn(1, 8))
