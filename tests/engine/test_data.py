"""Training images: what is found, what is held out, and batches that depend on seed and step alone."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import errors
from styletools.engine import data


@pytest.fixture
def tree(tmp_path, pictures):
    """Ten images in a tree, and a text file."""
    for i in range(10):
        path = tmp_path / ("sub/deep" if i % 2 else ".") / f"{i:02}.{'PNG' if i % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 30), (25 * i, 0, 0)).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def crops(spec, seed=0, role=0, **kwargs):
    return data.Crops([data.Source(str(spec), **kwargs)], seed, role)


def test_sources_are_folders_files_and_patterns(tree):
    assert len(data.Source(str(tree)).paths) == 10
    assert len(data.Source(f"{tree}/sub").paths) == 5
    assert len(data.Source(f"{tree}/*.PNG").paths) == 3
    assert data.Source(f"{tree}/00.jpg").paths == [f"{tree}/00.jpg"]
    assert data.Source(str(tree)).paths == sorted(data.Source(str(tree)).paths)


def test_shares(tree):
    assert data.Source(f"{tree}:2.5").share == 2.5
    assert data.Source(f"{tree}/*.PNG:3").share == 3
    assert data.Source(str(tree)).share == 1
    Image.new("RGB", (9, 9)).save(tree / "a:3", format="png")
    named = data.Source(f"{tree}/a:3")
    assert (named.paths, named.share) == ([f"{tree}/a:3"], 1), "the colon belongs to the name of a file that is there"
    for share in ("0", "-1", "nan", "inf"):
        with pytest.raises(errors.UsageError, match="the share must be"):
            data.Source(f"{tree}:{share}")


@pytest.mark.parametrize("spec", ["none", "none/*.png", "none:2"])
def test_no_images(tmp_path, spec):
    with pytest.raises(errors.MissingInput, match="no images there"):
        data.Source(f"{tmp_path}/{spec}")


def test_what_is_held_out_is_not_trained_on(tree):
    source = data.Source(str(tree), holdout=4)
    assert len(source.held_out) == 3 and len(source.paths) == 7
    assert not set(source.held_out) & set(source.paths)
    one = data.Source(f"{tree}/00.jpg", holdout=4)
    assert one.paths == one.held_out, "a single image has to do for both"
    with pytest.raises(errors.UsageError, match="too few images"):
        data.Crops([data.Source(str(tree))], 0, 0, held_out=True)


def test_crops_are_squares_of_bytes(pictures):
    batch = crops(pictures).batch(0, 5, 24)
    assert batch.shape == (5, 3, 24, 24) and batch.dtype == torch.uint8


def test_a_batch_depends_on_seed_role_and_step_alone(pictures):
    first = crops(pictures).batch(3, 4, 24)
    used = crops(pictures)
    for step in (7, 1, 3):
        again = used.batch(step, 4, 24)
    assert torch.equal(first, again)
    assert not torch.equal(first, crops(pictures, seed=1).batch(3, 4, 24))
    assert not torch.equal(first, crops(pictures, role=1).batch(3, 4, 24))
    assert not torch.equal(first, crops(pictures).batch(4, 4, 24))


def test_shares_are_kept(tmp_path):
    for name, value in (("a", 0), ("b", 255)):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), value).save(tmp_path / name / "x.png")
    both = data.Crops([data.Source(f"{tmp_path}/a:3"), data.Source(f"{tmp_path}/b")], 0, 0)
    assert 0.2 < float((both.batch(0, 400, 4) > 0).float().mean()) < 0.3


def test_small_images_are_enlarged_and_half_are_mirrored(tmp_path):
    ramp = np.linspace(0, 255, 10).astype(np.uint8)[None, :, None].repeat(6, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    batch = crops(tmp_path).batch(0, 200, 32).float()
    rising = (batch[..., -1] > batch[..., 0]).all(-1).all(-1)
    falling = (batch[..., -1] < batch[..., 0]).all(-1).all(-1)
    assert (rising | falling).all() and 60 < int(rising.sum()) < 140


def test_orientation_and_modes(tmp_path):
    image = Image.new("RGB", (40, 20))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    opened = crops(tmp_path)._open(str(tmp_path / "turned.jpg"))
    assert opened.size == (20, 40) and opened.mode == "RGB"
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        Image.new(mode, (9, 9)).save(tmp_path / "m.png")
        assert crops(tmp_path / "m.png").batch(0, 1, 8).shape == (1, 3, 8, 8)


def test_depth_and_transparency_look_as_they_should(tmp_path):
    Image.fromarray(np.full((9, 9), 200 * 257, np.uint16)).save(tmp_path / "deep.png")
    assert (crops(tmp_path / "deep.png").batch(0, 1, 8) == 200).all()
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (crops(tmp_path / "clear.png").batch(0, 1, 8) == 255).all(), "over white, as everywhere"


def test_a_broken_image_is_told_once_and_left_out(tree, capsys):
    (tree / "05_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    some = crops(tree)
    for step in range(20):
        some.batch(step, 8, 16)
    told = [line for line in capsys.readouterr().err.splitlines() if "05_broken.png: skipped" in line]
    assert len(told) == 1


def test_only_broken_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(errors.DataError, match="none of the training images can be read"):
        crops(tmp_path).batch(0, 2, 8)


def test_the_cache_is_bounded(pictures, monkeypatch):
    monkeypatch.setattr(data, "CACHE_BYTES", 3 * 96 * 72 * 3)
    some = crops(pictures)
    expected = crops(pictures).batch(9, 8, 16)
    for step in range(10):
        got = some.batch(step, 8, 16)
        assert len(some._cache) <= 3 and some._cached <= data.CACHE_BYTES
    assert torch.equal(got, expected)


def batches(pictures, sizes=(16, 24), **kwargs):
    return data.Batches({"content": crops(pictures), "style": crops(pictures, role=1)}, 2, sizes, **kwargs)


def test_named_batches(pictures):
    made = batches(pictures)
    sizes = {made.make(step)["content"].shape[-1] for step in range(20)}
    assert sizes == {16, 24}
    batch = made.make(0)
    assert set(batch) == {"content", "style"} and batch["content"].shape == batch["style"].shape
    assert not torch.equal(batch["content"], batch["style"])


def test_batches_made_ahead_are_those_made_by_hand(pictures):
    made = batches(pictures)
    found = list(made.iterate(3, 9))
    assert [step for step, _ in found] == list(range(3, 9))
    for step, batch in found:
        assert all(torch.equal(batch[key], value) for key, value in batches(pictures).make(step).items())
    assert list(made.iterate(5, 5)) == []


def test_errors_come_out_of_the_thread(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    made = data.Batches({"images": crops(tmp_path)}, 1, [8])
    with pytest.raises(errors.DataError):
        list(made.iterate(0, 3))


def test_the_thread_ends_when_nobody_listens(pictures):
    before = threading.active_count()
    for _ in batches(pictures).iterate(0, 10_000):
        break
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before
