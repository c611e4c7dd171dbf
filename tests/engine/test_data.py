"""Training images: what is found, what is held out, and batches that depend on seed and step alone."""

import bz2
import gzip
import io
import lzma
import os
import pty
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from styletools import errors
from styletools.engine import data


@pytest.fixture(scope="session")
def hostile(reference):
    """Real files that break careless programs."""
    return reference.parent / "hostile"


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


def packed(path, folder, mode="w"):
    """Put the files of a folder into an archive, called as they are there."""
    with tarfile.open(path, mode) as made:
        for each in sorted(folder.rglob("*")):
            made.add(each, each.relative_to(folder), recursive=False)
    return path


def said(monkeypatch, text):
    """Put bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_an_archive_holds_what_the_folder_holds(tree, tmp_path_factory):
    archive = packed(tmp_path_factory.mktemp("tar") / "all.tar", tree)
    source = data.Source(f"{archive}:2", holdout=4)
    assert [str(p) for p in source.held_out] == [
        f"{archive}: {os.path.relpath(p, tree)}" for p in data.Source(str(tree), holdout=4).held_out
    ]
    assert source.share == 2 and len(source.paths) == 7
    assert torch.equal(crops(archive).batch(5, 20, 16), crops(tree).batch(5, 20, 16))


def test_archives_of_a_pattern_and_without_an_extension(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    packed(folder / "0.tar", tree)
    packed(folder / "1.tar", tree / "sub")
    packed(folder / "nameless", tree / "sub")
    assert len(data.Source(f"{folder}/*.tar").paths) == 15
    assert len(data.Source(f"{folder}/nameless").paths) == 5
    with pytest.raises(errors.MissingInput):
        data.Source(str(folder))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda raw: data._ZSTD + raw])
def test_compressed_archives_are_refused(tree, tmp_path_factory, name, pack):
    plain = packed(tmp_path_factory.mktemp("tar") / "plain.tar", tree)
    path = plain.with_name(name)
    path.write_bytes(pack(plain.read_bytes()))
    with pytest.raises(errors.DataError, match=f"{name}: is compressed: gunzip it to a plain .tar, or unpack it"):
        data.Source(str(path))


@pytest.mark.parametrize("change", ["short", "between", "twice", "header", "empty"])
def test_damaged_archives_are_told(tree, tmp_path_factory, change):
    path = packed(tmp_path_factory.mktemp("tar") / "a.tar", tree)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = [member for member in archive.getmembers() if member.isreg()][-1]
    path.write_bytes({
        "short": whole[: last.offset_data + 10],
        "between": whole[: last.offset],
        "twice": whole + whole,
        "header": whole[: last.offset] + b"x" * 512 + whole[last.offset + 512 :],
        "empty": b"",
    }[change])  # fmt: skip
    with pytest.raises(errors.DataError, match="a.tar: "):
        data.Source(str(path))


def test_only_the_pictures_of_an_archive_count(tree, tmp_path, capsys):
    (tree / "a.json").write_text("{}")
    (tree / "link.png").symlink_to("00.jpg")
    (tree / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    archive = packed(tmp_path / "a.tar", tree)
    some = crops(archive)
    assert len(some.groups[0]) == 11
    for step in range(20):
        some.batch(step, 8, 16)
    assert capsys.readouterr().err.count("a.tar: bad.png: skipped: ") == 1


def test_an_archive_that_shrinks_meanwhile(tree, tmp_path_factory, capsys):
    archive = packed(tmp_path_factory.mktemp("tar") / "a.tar", tree)
    some = crops(archive)
    os.truncate(archive, 600)
    with pytest.raises(errors.DataError, match="none of the training images can be read"):
        some.batch(0, 1, 8)
    assert "is cut off" in capsys.readouterr().err


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_a_list_on_standard_input(tree, tmp_path_factory, monkeypatch, capsys, end):
    archive = packed(tmp_path_factory.mktemp("tar") / "a.tar", tree / "sub")
    odd = tree / ("new\nline.png" if end == b"\0" else "ü 画.png")
    Image.new("RGB", (9, 9)).save(odd)
    listed = [f"{tree}/00.jpg", f"{tree}/00.jpg", f"{tree}/sub", str(archive), str(odd), f"{tree}/gone.png"]
    said(monkeypatch, end.join(map(os.fsencode, listed)) + end)
    source = data.Source("-:2")
    assert source.share == 2 and source.spec == "<stdin>"
    expected = data.Source(f"{tree}/sub").paths + data.Source(str(archive)).paths + [f"{tree}/00.jpg", str(odd)]
    assert source.paths == sorted(expected, key=str)
    assert capsys.readouterr().err.count("gone.png: skipped: no such file or directory") == 1


@pytest.mark.parametrize("text", [b"", b"\n\n", b"gone.png\n"])
def test_a_list_of_nothing(monkeypatch, text):
    said(monkeypatch, text)
    with pytest.raises(errors.MissingInput, match="<stdin>: no images there"):
        data.Source("-")


def test_no_list_comes_from_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    with open(ours, "rb"), open(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(errors.UsageError, match="is a terminal"):
            data.Source("-")


def test_an_image_from_a_pipe(tree, tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes((tree / "00.jpg").read_bytes()))
    writer.start()
    source = data.Source(str(fifo), holdout=2)
    writer.join()
    for held_out in (False, True):
        got = data.Crops([source], 0, 0, held_out).batch(0, 2, 8)
        assert torch.equal(got, crops(tree / "00.jpg").batch(0, 2, 8))


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
    opened = data._decode(str(tmp_path / "turned.jpg"), 16)
    assert opened.size == (20, 40) and opened.mode == "RGB"
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        Image.new(mode, (9, 9)).save(tmp_path / "m.png")
        assert crops(tmp_path / "m.png").batch(0, 1, 8).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize("number", range(1, 9))
def test_turned_photographs_are_put_upright(hostile, tmp_path, number, size):
    with Image.open(hostile / f"exif-{number}.jpg") as opened:
        ImageOps.exif_transpose(opened).save(tmp_path / "upright.png")
        opened.save(tmp_path / "lying.png")
    found, upright, lying = (
        crops(path).batch(0, 8, size).float()
        for path in (hostile / f"exif-{number}.jpg", tmp_path / "upright.png", tmp_path / "lying.png")
    )
    assert (found - upright).abs().mean() < 3
    assert number == 1 or (found - lying).abs().mean() > 10


@pytest.mark.parametrize("name", [
    "cmyk.jpg", "grey.jpg", "grey.png", "grey16.png", "rgb16.png", "rgba.png", "rgba.webp", "palette.png",
    "palette-transparent.png", "grey-alpha.png", "bilevel.png", "progressive.jpg", "animated.gif", "animated.webp",
    "pages.tif", "float.tif", "p3.jpg", "png-called.jpg", "one.png", "two.png", "thin.png", "flat.png", "odd.png",
    "-dash.png", "quote's.png", "with space.png", "ünïcode 画.png",
])  # fmt: skip
def test_odd_pictures_are_read(hostile, name, capsys):
    assert crops(hostile / name).batch(0, 4, 24).shape == (4, 3, 24, 24)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["truncated.jpg", "truncated.png", "badcrc.png", "empty.jpg", "text.jpg", "bomb.png"])
def test_broken_pictures_are_left_out(hostile, name, tmp_path, capsys):
    (tmp_path / name).symlink_to(hostile / name)
    Image.new("RGB", (30, 30), (10, 20, 30)).save(tmp_path / "z.png")
    batch = crops(tmp_path).batch(0, 20, 16)
    assert (batch.float().mean((0, 2, 3)) == torch.tensor([10.0, 20.0, 30.0])).all()
    assert capsys.readouterr().err.count(f"{name}: skipped: ") == 1


def test_a_folder_of_all_that_is_hostile(hostile, capsys):
    made = data.Batches({"images": crops(hostile)}, 16, [16, 48], workers=4)
    assert len(list(made.iterate(0, 30))) == 30
    lines = capsys.readouterr().err.splitlines()
    assert 0 < len(lines) == len(set(lines)) and all(": skipped: " in line for line in lines)


@pytest.mark.parametrize("name", ["big.jpg", "big.png"])
def test_large_images_are_reduced_for_the_largest_crop(tmp_path, name):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    whole = coarse.resize((1300, 900), Image.Resampling.BICUBIC)
    whole.save(tmp_path / name, quality=95)
    path = str(tmp_path / name)
    for largest in (32, 64, 100, 200, 300):
        image = data._decode(path, 2 * largest)
        assert 2 * largest <= min(image.size) < 4 * largest
        assert abs(image.width / image.height - 1300 / 900) < 0.02
        expected = np.asarray(whole.resize((20, 12), Image.Resampling.BOX), float)
        assert np.abs(np.asarray(image.resize((20, 12), Image.Resampling.BOX), float) - expected).mean() < 2.5
    small = crops(path).batch(0, 4, 64, largest=200)
    assert torch.equal(small, crops(path).batch(0, 4, 64, largest=200))
    assert not torch.equal(small, crops(path).batch(0, 4, 64)), "smaller pieces come of larger images"


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


@pytest.mark.parametrize("room", [0, 3, 100])
def test_one_bound_holds_for_all_decoded_images(pictures, monkeypatch, room):
    image = 96 * 72 * 4
    expected = crops(pictures).batch(9, 8, 32)
    monkeypatch.setattr(data, "CACHE", data.Cache(room * image))
    some = [crops(pictures, role=role) for role in range(3)]
    for step in range(10):
        got = [each.batch(step, 8, 32) for each in some]
        assert len(data.CACHE) <= room and data.CACHE.size == len(data.CACHE) * image
    assert torch.equal(got[0], expected)
    if room > 24:
        assert len(data.CACHE) == 24, "each image is kept for each of the three"


def test_what_is_used_stays_in_the_cache():
    image = Image.new("RGB", (1, 1))
    cache = data.Cache(8)
    for key in "ab":
        cache.put(key, image)
    cache.put("a", image)
    assert cache.size == 8 and cache.get("a") is image
    cache.put("c", image)
    assert cache.get("b") is None and cache.get("a") is image and len(cache) == 2


def test_the_cache_leaves_memory_to_others(monkeypatch):
    assert 0 < data.CACHE.limit <= 2 << 30 and data.CACHE.limit <= data._memory()
    assert 2 <= data._workers() <= 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert data._workers() == 2


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


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_batches_do_not_depend_on_the_number_of_threads(pictures, workers):
    for step, batch in batches(pictures, workers=workers).iterate(0, 12):
        assert all(torch.equal(batch[key], value) for key, value in batches(pictures).make(step).items())


def test_processes_together_make_what_one_makes(pictures):
    def make(size, **kwargs):
        return data.Batches({"content": crops(pictures), "style": crops(pictures, role=1)}, size, [16, 24], **kwargs)

    for step in range(6):
        whole = make(6).make(step)
        for world in (2, 3):
            parts = [make(6 // world, rank=rank, world=world).make(step) for rank in range(world)]
            for key, value in whole.items():
                assert torch.equal(torch.cat([part[key] for part in parts]), value)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        make(2, rank=2, world=2)


def test_a_broken_image_moves_no_other(tree):
    """Image i is the same whatever becomes of those before it."""
    (tree / "05_broken.png").write_bytes(b"")
    some = crops(tree)
    whole = some.batch(3, 12, 16)
    for i in range(12):
        assert torch.equal(crops(tree).batch(3, 1, 16, first=i)[0], whole[i])


def test_many_threads_share_crops(tree, capsys):
    for i in range(5):
        (tree / f"{i}_broken.png").write_bytes(b"\x89PNG")
    shared = crops(tree)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda step: shared.batch(step, 4, 16), range(60)))
    assert capsys.readouterr().err.count("skipped") == 5
    for step, batch in enumerate(found):
        assert torch.equal(batch, crops(tree).batch(step, 4, 16))


def test_errors_come_out_of_the_threads(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    made = data.Batches({"images": crops(tmp_path)}, 1, [8])
    with pytest.raises(errors.DataError, match="none of the training images can be read"):
        list(made.iterate(0, 3))


def test_an_error_comes_with_its_step(pictures, monkeypatch):
    made = batches(pictures, workers=4)
    make = made.make

    def fails_at_7(step):
        if step == 7:
            raise MemoryError("at 7")
        return make(step)

    monkeypatch.setattr(made, "make", fails_at_7)
    seen = []
    with pytest.raises(MemoryError, match="at 7"):
        for step, _ in made.iterate(0, 20):
            seen.append(step)
    assert seen == list(range(7))


def test_the_threads_end_when_nobody_listens(pictures):
    def running():
        return [thread for thread in threading.enumerate() if thread not in before]

    before = threading.enumerate()
    for _ in batches(pictures, workers=4).iterate(0, 10_000):
        assert 0 < len(running()) <= 4
        break
    deadline = time.monotonic() + 20
    while running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running()


SCRIPT = """
import sys, time
from styletools.engine import data
pictures, how = sys.argv[1:]
made = data.Batches({"images": data.Crops([data.Source(pictures)], 0, 0)}, 64, [256], workers=4)
steps = made.iterate(0, 10**9)
next(steps)
print("ready", flush=True)
if how == "ends":
    sys.exit(3)
if how == "waits":
    for step, batch in steps:
        pass
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status"), [("ends", 3), ("waits", -signal.SIGINT), ("idles", -signal.SIGINT)])
def test_no_thread_keeps_the_process(pictures, how, status):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(pictures), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    if how != "ends":
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert "Exception ignored" not in err and "terminate called" not in err
    assert how != "ends" or not err


@pytest.fixture
def labelled(tmp_path):
    """Three folders, of 7, 2 and 1 pictures, each of a colour of its own: red, green, blue."""
    for number, (name, count) in enumerate([("red", 7), ("green", 2), ("blue", 1)]):
        (tmp_path / name).mkdir()
        for i in range(count):
            colour = [250 if channel == number else 0 for channel in range(3)]
            Image.new("RGB", (20 + i, 24), tuple(colour)).save(tmp_path / name / f"{i}.png")
    return [str(tmp_path / name) for name in ("red", "green", "blue")]


def labelled_crops(paths, held_out=False, holdout=0, seed=0):
    return data.LabelledCrops([data.Source(path, holdout) for path in paths], seed, 1, held_out)


def test_labels_are_drawn_evenly_and_are_those_of_the_pictures(labelled):
    some = labelled_crops(labelled)
    counts = torch.zeros(3, dtype=torch.int64)
    starts = set()
    for step in range(60):
        labels = some.labels(step, 7)
        assert labels.dtype == torch.int64
        assert (labels[1:] - labels[:-1]).remainder(3).eq(1).all(), "in turn"
        assert torch.equal(some.batch(step, 7, 16).float().mean((2, 3)).argmax(1), labels)
        counts += labels.bincount(minlength=3)
        starts.add(int(labels[0]))
    assert starts == {0, 1, 2} and (counts - 140).abs().max() < 20, "whatever the number of pictures"
    other = labelled_crops(labelled, seed=1)
    assert any(not torch.equal(some.labels(step, 3), other.labels(step, 3)) for step in range(9))


def test_each_label_is_held_out_by_itself(labelled):
    """Of the single picture there is but one for both."""
    sources = [data.Source(path, 3) for path in labelled]
    assert [(len(s.paths), len(s.held_out)) for s in sources] == [(4, 3), (1, 1), (1, 1)]
    found = labelled_crops(labelled, held_out=True, holdout=3)
    assert torch.equal(found.batch(0, 6, 16).float().mean((2, 3)).argmax(1), found.labels(0, 6))


def test_batches_of_labelled_pictures(labelled, pictures):
    def make(size, **kwargs):
        kinds = {"content": crops(pictures), "labelled": labelled_crops(labelled)}
        return data.Batches(kinds, size, [16, 24], **kwargs)

    for step, batch in make(6).iterate(0, 5):
        assert list(batch) == ["content", "labelled", "label"]
        parts = [make(2, rank=rank, world=3).make(step) for rank in range(3)]
        for key, value in batch.items():
            assert torch.equal(torch.cat([part[key] for part in parts]), value), "several processes make the same"


def test_a_label_without_a_picture_that_can_be_read(labelled, tmp_path):
    (tmp_path / "green/0.png").write_bytes(b"")
    for step in range(20):
        labelled_crops(labelled).batch(step, 6, 16)
    (tmp_path / "green/1.png").write_bytes(b"")
    with pytest.raises(errors.DataError, match="none of the training images of .*/green can be read"):
        labelled_crops(labelled).batch(0, 3, 16)


def test_a_label_whose_held_out_picture_is_broken_says_so(labelled, tmp_path):
    """The others of it can be read."""
    (tmp_path / "red/0.png").write_bytes(b"")
    labelled_crops(labelled, holdout=20).batch(0, 6, 16)
    with pytest.raises(errors.DataError, match="none of the held-out images of .*/red can be read"):
        labelled_crops(labelled, held_out=True, holdout=20).batch(0, 6, 16)


def test_every_label_keeps_something_to_train_on(labelled, tree):
    """Of a label of one picture that one does for both, even where all others are held out."""
    with pytest.raises(errors.UsageError, match="every image of .*/red is held out: none is left to train on"):
        labelled_crops(labelled, holdout=1)
    with pytest.raises(errors.UsageError, match="every image is held out: none is left to train on"):
        data.Crops([data.Source(str(tree), holdout=1)], 0, 0)
