"""st-apply: from the command line to the pixels."""

import fcntl
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageCms

from styletools import errors, methods, modelfile, streams
from styletools.engine import styles
from styletools.manifest import NAME

ROOT = Path(__file__).parents[2]


@pytest.fixture
def apply(call, live_model, picture):
    """Run st-apply with the tiny model and the style s.png: apply("a.png", "-o", "b.png") returns the status."""
    picture("s.png", 40, 36, seed=99)

    def run(*words, stdin=b"", style="s.png", using=live_model):
        chosen = ["-s", style] if style else []
        status, run.out, run.err = call("st-apply", "-m", using, *chosen, *words, stdin=stdin)
        return status

    return run


def pixels(source):
    """Return the pixels of the one picture in a file or in bytes."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    (record,) = streams.read(io.BytesIO(data))
    return record.array


def frames(data):
    """Return the pixels of all pictures of a stream."""
    return [record.array for record in streams.read(io.BytesIO(data), stream=True)]


def below(folder):
    """Return the files below a folder, but for hidden ones."""
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("[!.]*") if p.is_file())


def stamps(folder):
    """Return when each file below a folder was made."""
    return {name: (Path(folder) / name).stat().st_mtime_ns for name in below(folder)}


def parts(folder):
    return [str(p) for p in Path(folder).rglob(".*.part")]


def ffmpeg(*words, stdin=b""):
    """Run ffmpeg and return its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=60).stdout


# ---- what is kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (301, 1), (1, 301), (17, 23)])
def test_the_size_is_kept(apply, picture, size):
    picture("a.png", *size)
    assert apply("a.png", "-o", "b.png") == 0 and apply.err == ""
    assert Image.open("b.png").size == size


def test_depth_and_alpha_are_kept(apply, folder):
    rng = np.random.default_rng(0)
    for channels in (1, 2, 3, 4):
        for dtype in (np.uint8, np.uint16):
            array = rng.integers(0, np.iinfo(dtype).max, (9, 11, channels), dtype=dtype)
            for name in ("a.png", "a.pam"):
                with open(name, "wb") as out, streams.writer(out, name[2:]) as writer:
                    writer.write(streams.Image(array))
                assert apply(name, "--to", name[2:]) == 0 and apply.err == ""
                result = pixels(apply.out)
                assert result.dtype == dtype and result.shape == (9, 11, 4 if channels in (2, 4) else 3)
                if channels in (2, 4):
                    assert (result[..., 3] == array[..., -1]).all()


def test_transparent_palettes_keep_their_alpha(apply, folder):
    picture = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10) % 3, "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save("a.png", transparency=1)
    assert apply("a.png", "-o", "b.png") == 0
    assert (pixels("b.png")[..., 3] == np.asarray(Image.open("a.png").convert("RGBA"))[..., 3]).all()


def test_orientation_is_applied_and_the_profile_kept(apply, folder):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    stored.save("a.jpg", exif=exif, icc_profile=profile)
    assert apply("a.jpg", "-o", "b.jpg") == 0
    result = Image.open("b.jpg")
    assert result.size == (20, 30) and result.getexif().get(0x0112, 1) == 1
    assert result.info["icc_profile"] == profile


def test_size_scales_the_picture_and_its_alpha(apply, folder):
    array = np.zeros((40, 60, 4), np.uint8)
    array[:, 30:, 3] = 255
    Image.fromarray(array).save("a.png")
    assert apply("a.png", "-o", "b.png", "--size", "20") == 0
    result = pixels("b.png")
    assert result.shape == (20, 30, 4) and (result[:, :13, 3] == 0).all() and (result[:, 17:, 3] == 255).all()


def test_size_keeps_to_the_limit(apply, picture):
    picture("thin.png", 1, 3000)
    picture("a.png")
    assert apply("thin.png", "a.png", "-o", "out/", "--size", "64", "--max-pixels", "100000") == 1
    assert "thin.png: picture of 64x192000 pixels is over the limit" in apply.err
    assert below("out") == ["a.png"]


# ---- alpha, colour, masks --------------------------------------------------------------------------------


def test_alpha(apply, picture):
    picture("a.png", 30, 20)
    before = pixels("a.png")
    results = []
    for alpha in ("0", "0.5", "1"):
        assert apply("a.png", "-o", "b.png", "--alpha", alpha) == 0
        results.append(pixels("b.png"))
    assert (results[0] == before).all(), "0 is the photograph itself"
    assert (results[1] != results[2]).any() and (results[1] != before).any()
    assert apply("a.png", "-o", "c.png") == 0
    assert (pixels("c.png") == results[2]).all()
    for alpha in ("-0.1", "1.1", "nan", "much"):
        assert apply("a.png", "-o", "c.png", "--alpha", alpha) == 2


def test_preserve_color(apply, picture):
    Image.fromarray(np.random.default_rng(0).integers(80, 176, (30, 40, 3), dtype=np.uint8)).save("a.png")
    before = pixels("a.png").astype(float)
    results = {}
    for how in ("luminance", "coral", "histogram"):
        assert apply("a.png", "-o", "b.png", "--preserve-color", how) == 0
        results[how] = pixels("b.png").astype(float)
    assert apply("a.png", "-o", "plain.png") == 0
    for channel in range(3):
        one, other = results["histogram"][..., channel].ravel(), before[..., channel].ravel()
        plain = pixels("plain.png")[..., channel].ravel()
        # What is clipped to black or white shares one value; all between have the values of the photograph.
        whole = (plain > 0) & (plain < 255)
        black, white = (plain == 0).sum(), (plain == 255).sum()
        assert whole.any()
        assert abs(np.sort(one[whole]) - np.sort(other)[black : len(other) - white]).max() <= 1
        assert abs(one.mean() - other.mean()) < 0.5
        for clipped in (one[plain == 0], one[plain == 255]):
            assert not clipped.size or (clipped == np.median(clipped)).mean() > 0.9
    assert abs(results["coral"].mean((0, 1)) - before.mean((0, 1))).max() < 1.5
    inside = ((results["luminance"] > 0) & (results["luminance"] < 255)).all(2)
    chroma = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    assert abs((results["luminance"] - before)[inside] @ chroma.T).max() < 1
    assert apply("a.png", "-o", "b.png", "--preserve-color", "some") == 2


def test_masks(apply, picture):
    picture("a.png", 31, 21)
    picture("t.png", 40, 36, seed=5)
    apply("a.png", "-o", "plain.png")
    apply("a.png", "-o", "other.png", style="t.png")
    photo, plain, other = pixels("a.png"), pixels("plain.png"), pixels("other.png")
    assert (plain != other).any()
    for name, value, mode in [("white", 255, "L"), ("black", 0, "RGB"), ("deep", 65535, "I;16"), ("clear", 0, "RGBA")]:
        Image.new(mode, (8, 5), value if mode in ("L", "I;16") else 0).save(f"{name}.png")
    for name, inside, outside in [
        ("white", plain, plain), ("deep", plain, plain), ("black", photo, other), ("clear", photo, other),
    ]:  # fmt: skip
        assert apply("a.png", "-o", "b.png", "--mask", f"{name}.png") == 0
        assert (pixels("b.png") == inside).all(), name
        assert apply("a.png", "-o", "b.png", "--mask", f"{name}.png", "--outside", "t.png") == 0
        assert (pixels("b.png") == outside).all(), name
    soft = np.repeat(np.linspace(0, 255, 31).astype(np.uint8)[None], 21, 0)
    Image.fromarray(soft).save("soft.png")
    assert apply("a.png", "-o", "b.png", "--mask", "soft.png") == 0
    mixed = photo + soft[..., None] / 255 * (plain.astype(float) - photo)
    assert abs(pixels("b.png") - mixed).max() <= 1.01


def test_masks_fit_every_frame_and_size(apply, picture):
    Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 1)).save("mask.png")
    picture("a.png", 60, 40)
    assert apply("a.png", "-o", "b.png", "--mask", "mask.png", "--size", "20") == 0
    assert Image.open("b.png").size == (30, 20)
    video = ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x18:d=0.12", "-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe", "-")
    assert apply("--mask", "mask.png", stdin=video) == 0
    plain, result = frames(video), frames(apply.out)
    assert len(plain) == len(result) == 3
    for before, after in zip(plain, result):
        assert abs(before[:, :14].astype(int) - after[:, :14]).max() <= 3, "black: as it was, but for YCbCr"


def test_masks_that_cannot_be(apply, picture, folder):
    picture("a.png")
    (folder / "text.png").write_text("no picture")
    os.mkfifo("pipe")
    for mask, status in [("gone.png", 66), ("text.png", 65), (".", 65), ("pipe", 65)]:
        assert apply("a.png", "-o", "b.png", "--mask", mask) == status
        assert apply.err.count("\n") == 1 and mask in apply.err
    assert apply("a.png", "-o", "b.png", "--outside", "s.png") == 2
    assert not (folder / "b.png").exists()


def test_standard_input_is_not_both_style_and_pictures(sh, folder, picture):
    picture("a.png")
    for rest in ("", "-", "--files-from -", "a.png --files-from -"):
        done = sh(f"cat a.png | st-apply -s /dev/stdin --to ppm {rest}")
        assert done.returncode == 2 and b"both a style and the pictures" in done.stderr, rest


# ---- styles ----------------------------------------------------------------------------------------------


def test_mixtures_of_styles(apply, picture, call, live_model, folder):
    picture("a.png", 30, 20)
    picture("x,1.png", 40, 36, seed=5)
    found = {}
    for spec in ("s.png", "x,1.png", "s.png:2,x,1.png:1", "x,1.png:1,s.png:2", "s.png:4,x,1.png:2", "s.png:0,x,1.png"):
        assert apply("a.png", style=spec) == 0, apply.err
        found[spec] = apply.out
    assert found["s.png"] != found["x,1.png"] != found["s.png:2,x,1.png:1"] != found["s.png"]
    assert found["s.png:0,x,1.png"] == found["x,1.png"]
    first = pixels(found["s.png:2,x,1.png:1"]).astype(int)
    for same in ("x,1.png:1,s.png:2", "s.png:4,x,1.png:2"):
        assert abs(pixels(found[same]) - first).max() <= 1
    assert apply("a.png", style="s.png:0") == 2
    assert apply("a.png", style="gone.png") == 66
    assert apply("a.png", style=None) == 2 and "-s IMAGE" in apply.err


def test_records_of_st_gram(apply, picture, call, live_model, folder):
    picture("a.png", 30, 20)
    picture("t.png", 40, 36, seed=5)
    status, out, _ = call("st-gram", "--for", live_model, "s.png", "--size", "32")
    assert status == 0
    (folder / "s.safetensors").write_bytes(out)
    assert apply("a.png", "--style-size", "32") == 0
    direct = pixels(apply.out)
    assert apply("a.png", style="s.safetensors") == 0
    assert abs(pixels(apply.out).astype(int) - direct).max() <= 1, "made by torch, used without it"
    assert apply("a.png", "--style-size", "16") == 0
    assert (pixels(apply.out) != direct).any()
    assert apply("a.png", style="s.safetensors:2,t.png") == 0
    other = folder / "other.safetensors"
    modelfile.save(other, "live", methods.create("live", {"channels": 8, "widths": "8,8"}))
    assert apply("a.png", style="s.safetensors", using=other) == 78
    assert apply.err.startswith("st-apply: s.safetensors: a style record for another model")


def test_records_that_do_not_fit(apply, picture, call, live_model, slim, folder):
    picture("a.png", 20, 16)
    for name, words in {
        "stats": ["st-gram", "s.png"], "few": ["st-gram", "-l", "relu1_1", "s.png"],
        "features": ["st-extract", "s.png"],
    }.items():  # fmt: skip
        status, out, err = call(*words)
        assert status == 0, err
        (folder / f"{name}.safetensors").write_bytes(out)
    quick = ("-O", "steps=2")
    assert apply("a.png", *quick, style="stats.safetensors", using="gatys") == 0
    for style, using in [
        ("stats.safetensors", live_model), ("features.safetensors", live_model), (str(live_model), live_model),
        ("few.safetensors", "gatys"), ("features.safetensors", "gatys"),
    ]:  # fmt: skip
        words = ["a.png", "s.png", "-o", "out/", *(quick if using == "gatys" else ())]
        assert apply(*words, style=style, using=using) == 78, (style, using)
        assert apply.err.count("\n") == 1 and apply.err.startswith(f"st-apply: {style}: ")
        assert not (folder / "out").exists()
    assert apply("a.png", "-O", "backbone=vgg19", style="stats.safetensors", using="gatys") == 78
    assert "statistics of slim" in apply.err


# ---- methods and their options ---------------------------------------------------------------------------


def test_options_of_a_method(apply, picture, slim, live_model):
    picture("a.png")
    for words, message in [
        (["-O", "stepz=3"], "no option 'stepz'"), (["-O", "steps=many"], "int expected"),
        (["-O", "steps"], "KEY=VALUE"),
        (["-O", "optimizer=sgd"], "lbfgs or adam"), (["-O", "steps=0"], "at least 1"),
    ]:  # fmt: skip
        assert apply("a.png", *words, using="gatys") == 2, words
        assert message in apply.err and apply.err.count("\n") == 1
    assert apply("a.png", "-O", "steps=3") == 2 and "is trained" in apply.err
    assert apply("a.png", using="gone.safetensors") == 66
    assert apply("a.png", using="s.png") == 65
    assert apply("a.png", using="distill") == 2
    assert apply("a.png", "--device", "nope") == 2


def test_the_seed_makes_noise_reproducible(apply, picture, slim):
    picture("a.png", 20, 16)
    found = []
    for seed in (1, 1, 2):
        assert apply("a.png", "-O", "start=noise", "-O", "steps=2", "--seed", seed, using="gatys") == 0
        found.append(apply.out)
    assert found[0] == found[1] != found[2]


def test_the_model_is_loaded_once(apply, picture, monkeypatch):
    loaded = []
    load = modelfile.load
    monkeypatch.setattr(modelfile, "load", lambda *words, **options: loaded.append(words) or load(*words, **options))
    for number in range(5):
        picture(f"in/{number}.png", seed=number)
    assert apply("in", "-o", "out/") == 0
    assert len(loaded) == 1
    assert apply("in", "-o", "out/") == 0
    assert len(loaded) == 1, "not even once where nothing is to be done"


# ---- files and folders -----------------------------------------------------------------------------------


def test_the_tree_is_kept_and_formats_too(apply, picture, folder):
    for name in ("a.png", "deep/b.jpg", "deep/er/c.ppm", "d.webp", "e.gif"):
        picture(f"in/{name}", 12, 10)
    assert apply("in", "-o", "out/") == 0 and apply.err == ""
    assert below("out") == ["a.png", "d.webp", "deep/b.jpg", "deep/er/c.ppm", "e.png"]
    assert apply("in", "-o", "png/", "--to", "png") == 0
    assert below("png") == ["a.png", "d.png", "deep/b.png", "deep/er/c.png", "e.png"]
    assert {Image.open(f"png/{name}").format for name in below("png")} == {"PNG"}


def test_jobs_make_the_same_bytes(apply, picture):
    for number in range(6):
        picture(f"in/{number}.png", 20 + number, 15, seed=number)
    for jobs in ("1", "4"):
        assert apply("in", "-o", f"out{jobs}/", "-j", jobs) == 0
        assert apply("in", "-o", f"all{jobs}.ppm", "-j", jobs) == 0
    for name in below("in"):
        assert Path("out1", name).read_bytes() == Path("out4", name).read_bytes()
    assert Path("all1.ppm").read_bytes() == Path("all4.ppm").read_bytes()
    assert [f.shape[1] for f in frames(Path("all1.ppm").read_bytes())] == [20, 21, 22, 23, 24, 25]


def test_lists_of_names(apply, picture, folder):
    names = ["new\nline.png", "-dash.png", "a b.png", "b\udcff.png"]
    for name in names:
        picture(f"./{name}")
    zero = b"\0".join(os.fsencode(name) for name in names)
    assert apply("--files-from", "-", "-0", "-o", "out/", stdin=zero) == 0, apply.err
    assert below("out") == sorted(names)
    (folder / "list").write_text("a b.png\n-dash.png\n")
    assert apply("--files-from", "list", "-o", "two/") == 0
    assert below("two") == ["-dash.png", "a b.png"]
    assert apply("--files-from", "list", "-n", "-o", "two/") == 0 and apply.out == b""
    assert apply("--files-from", "list", "-n", "-f", "-o", "two/") == 0
    assert apply.out == b"a b.png\ttwo/a b.png\n-dash.png\ttwo/-dash.png\n"
    assert apply("b\udcff.png", "-n", "-o", "two/") == 0 and apply.out == b"b\xff.png\ttwo/b\xff.png\n"


def test_collisions_are_found_before_the_work(apply, picture, folder):
    picture("in/a.png")
    picture("in/a.gif")
    before = {name: Path("in", name).read_bytes() for name in below("in")}
    assert apply("in", "-o", "out/") == 2
    assert "would overwrite out/a.png, which is the result of in/a.gif" in apply.err
    assert apply("in/a.png", "-o", "in/") == 2 and "overwritten by its result" in apply.err
    assert apply("in", "-o", "in/", "--to", "png") == 2
    assert apply("in/a.png", "-o", "in/a.png") == 2
    (folder / "link.png").symlink_to("in/a.png")
    assert apply("in/a.png", "-o", "link.png") == 2
    assert {name: Path("in", name).read_bytes() for name in below("in")} == before and not (folder / "out").exists()


def test_several_inputs_do_not_go_into_one_picture(apply, picture, folder):
    picture("in/a.png")
    picture("in/b.png", seed=1)
    (folder / "list").write_text("in/a.png\nin/b.png\n")
    for words in (["in/a.png", "in/b.png"], ["in"], ["--files-from", "list"]):
        for output in ("out.png", "out.jpg", "out.webp"):
            assert apply(*words, "-o", output) == 2
            assert f"2 inputs for one file, {output}" in apply.err
    assert apply("in", "-o", "out") == 2 and "out/ for a folder" in apply.err
    assert apply("in", "-o", "out.ppm") == 0 and len(frames(Path("out.ppm").read_bytes())) == 2
    assert apply("in", "-o", "f%d.png") == 0 and (folder / "f2.png").exists()
    assert apply("in", "-n", "-o", "g%d.png") == 0
    assert apply.out == b"in/a.png\tg1.png\nin/b.png\tg2.png\n"


def test_links_and_the_output_inside_the_input(apply, picture, folder):
    picture("in/a.png")
    (folder / "in/link.png").symlink_to("a.png")
    (folder / "in/around").symlink_to("..")
    (folder / "in/gone.png").symlink_to("nowhere.png")
    assert apply("in", "-o", "in/out/") == 1
    assert apply.err == "st-apply: in/gone.png: no such file or directory\n"
    assert below("in/out") == ["a.png", "link.png"] and not Path("in/out/link.png").is_symlink()
    (folder / "in/gone.png").unlink()
    assert apply("in", "-o", "in/out/", "-n") == 0 and apply.out == b"", "its own results are no inputs"


def test_one_bad_of_several(apply, picture, folder):
    picture("in/a.png")
    picture("in/c.png")
    (folder / "in/b.png").write_bytes(b"nothing known")
    assert apply("in", "-o", "out/") == 1
    assert apply.err.startswith("st-apply: in/b.png: ") and apply.err.count("\n") == 1
    assert below("out") == ["a.png", "c.png"]
    assert apply("in", "-o", "out/") == 65, "it is all that is left to do, and not forgotten"
    assert apply("in", "-o", "fast/", "--fail-fast") == 1
    assert below("fast") == ["a.png"]
    assert apply("gone/", "-o", "out/") == 66 and apply.err.startswith("st-apply: gone/: ")
    assert apply("in/b.png", "-o", "x.png") == 65 and not (folder / "x.png").exists()


def test_videos_and_archives_stay_whole_in_a_folder(apply, folder, picture):
    source = ("-f", "lavfi", "-i", "testsrc2=s=32x18:d=0.2")
    (folder / "in").mkdir()
    (folder / "in/v.y4m").write_bytes(ffmpeg(*source, "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-"))
    picture("a/b.png")
    picture("a/c.jpg", seed=1)
    subprocess.run(["tar", "cf", "in/t.tar", "a"], check=True)
    assert apply("in", "-o", "out/") == 0 and apply.err == ""
    assert below("out") == ["t.tar", "v.y4m"]
    assert len(frames(Path("out/v.y4m").read_bytes())) == 5
    with tarfile.open("out/t.tar") as archive:
        assert sorted(archive.getnames()) == ["a/b.png", "a/c.jpg"]
    before = stamps("out")
    assert apply("in", "-o", "out/") == 0 and stamps("out") == before
    (folder / "in/v.y4m").write_bytes((folder / "in/v.y4m").read_bytes()[:-5])
    assert apply("in", "-o", "out/") == 65 and "v.y4m" in apply.err
    assert stamps("out") == before and parts("out") == [], "half a video does not replace a whole one"
    assert apply("in/t.tar", "-o", "split/", "--to", "ppm") == 0
    assert below("split") == ["t/a/b.ppm", "t/a/c.ppm"]
    assert apply("-o", "piped/", stdin=Path("in/t.tar").read_bytes()) == 0
    assert below("piped") == ["a/b.png", "a/c.jpg"]


def test_several_pictures_of_one_file(apply, picture, folder):
    picture("x.ppm", 9, 7, seed=1)
    picture("y.ppm", 8, 7, seed=2)
    (folder / "two.ppm").write_bytes(Path("x.ppm").read_bytes() + Path("y.ppm").read_bytes())
    assert apply("two.ppm", "-o", "out/") == 0
    assert below("out") == ["two-000002.ppm", "two.ppm"]
    assert apply("two.ppm", "-o", "out/", "-n") == 0 and apply.out == b""
    (folder / "out/two-000002.ppm").unlink()
    assert apply("two.ppm", "-o", "out/") == 0, "what is lacking of it is made again"
    assert below("out") == ["two-000002.ppm", "two.ppm"]


# ---- what is up to date ----------------------------------------------------------------------------------


def test_only_what_changed_is_made_again(apply, picture, folder, live_model):
    for number in range(3):
        picture(f"in/{number}.jpg", seed=number)
    picture("t.png", 30, 30, seed=7)

    def redone(*words, **options):
        before = stamps("out") if Path("out").exists() else {}
        time.sleep(0.02)
        assert apply("in", "-o", "out/", *words, **options) == 0, apply.err
        return sorted(name for name, stamp in stamps("out").items() if before.get(name) != stamp)

    everything = ["0.jpg", "1.jpg", "2.jpg"]
    assert redone() == everything
    assert redone() == []
    picture("in/1.jpg", seed=11)
    assert redone() == ["1.jpg"]
    Path("out/2.jpg").unlink()
    assert redone() == ["2.jpg"]
    picture("in/3.jpg", seed=3)
    assert redone() == ["3.jpg"]
    everything.append("3.jpg")
    for line in ("--alpha 0.5", "--size 7", "--preserve-color coral", "--quality 50", "--mask t.png"):
        assert redone(*line.split()) == everything and redone(*line.split()) == [], line
    assert redone("--force", *line.split()) == everything
    assert redone() == everything
    assert redone(style="t.png") == everything
    assert redone(style="t.png:2,s.png") == everything
    assert redone(style="s.png:1,t.png:2") == redone(style="s.png:2,t.png:4") == [], "the same mixture"
    picture("t.png", 30, 30, seed=8)
    assert redone(style="s.png:2,t.png:4") == everything
    other = folder / "other.safetensors"
    modelfile.save(other, "live", methods.create("live", {"channels": 8, "widths": "8,8"}))
    assert redone(using=other) == everything
    other.rename(folder / "renamed.safetensors")
    assert redone(using=folder / "renamed.safetensors") == []


def test_the_extension_may_change_on_the_way(apply, picture):
    picture("in/a.jpg")
    picture("in/b.gif")
    assert apply("in", "-o", "out/", "--to", "png") == 0
    before = stamps("out")
    assert sorted(before) == ["a.png", "b.png"]
    assert apply("in", "-o", "out/", "--to", "png") == 0 and stamps("out") == before


def test_dry_runs_make_nothing(apply, picture, folder):
    picture("in/a.jpg")
    picture("in/deep/b.png")
    assert apply("in", "-o", "out/", "-n") == 0
    assert apply.out == b"in/a.jpg\tout/a.jpg\nin/deep/b.png\tout/deep/b.png\n" and not (folder / "out").exists()
    assert apply("in/a.jpg", "-o", "x.png", "--dry-run") == 0
    assert apply.out == b"in/a.jpg\tx.png\n" and not (folder / "x.png").exists()
    assert apply("in", "-o", "out/") == 0
    assert apply("in", "-o", "out/", "-n") == 0 and apply.out == b""
    picture("in/a.jpg", seed=3)
    assert apply("in", "-o", "out/", "-n") == 0 and apply.out == b"in/a.jpg\tout/a.jpg\n"


def test_an_input_that_changes_while_it_is_read_is_made_again(apply, picture, monkeypatch):
    picture("in/a.png")
    write = streams.writer

    def change_and_write(*words, **options):
        picture("in/a.png", 50, 40)
        return write(*words, **options)

    monkeypatch.setattr(streams, "writer", change_and_write)
    assert apply("in", "-o", "out/") == 0
    monkeypatch.setattr(streams, "writer", write)
    assert apply("in", "-o", "out/") == 0
    assert Image.open("out/a.png").size == (50, 40)


def test_the_note_in_a_folder_is_hidden(apply, picture):
    picture("in/a.png")
    assert apply("in", "-o", "out/") == 0
    assert [p.name for p in Path("out").iterdir() if p.name != "a.png"] == [NAME] and NAME.startswith(".")


def test_an_empty_folder_is_nothing_to_do(apply, folder):
    (folder / "in").mkdir()
    assert apply("in", "-o", "out/", "-v") == 0
    assert "no pictures there" in apply.err


@pytest.fixture
def without_torch(sh, folder):
    """Run a line of bash where importing torch is an error."""
    (folder / "stub/torch").mkdir(parents=True)
    (folder / "stub/torch/__init__.py").write_text("raise SystemExit('torch was imported')")
    return lambda line, **options: sh(line, PYTHONPATH=str(folder / "stub"), **options)


def test_what_needs_no_torch(apply, picture, live_model, without_torch, folder):
    picture("in/a.jpg")
    picture("in/b.png")
    assert apply("in", "-o", "out/", "--to", "png") == 0
    started = f"st-apply -m {live_model}"
    for line, status, message in [
        (f"{started} -s s.png in -o out/ --to png", 0, ""),
        (f"{started} -s s.png in -o out/ --to png -f -n > /dev/null", 0, ""),
        (f"{started} -s s.png", 0, ""),
        (f"{started} -s s.png -o out/", 0, ""),
        (f"{started} -s gone.png in -o out/", 66, "gone.png: no such file"),
        (f"{started} -s s.png gone.png", 66, "gone.png: no such file"),
        (f"{started} -s s.png in/a.jpg -o in/a.jpg/x/", 73, "is not a directory"),
        (f"{started} in/a.jpg", 2, "needs a style"),
        (f"STYLETOOLS_DEVICE=nope {started} -s s.png in/a.jpg", 2, "unknown device 'nope'"),
    ]:
        done = without_torch(line)
        assert (done.returncode, done.stdout) == (status, b""), (line, done)
        assert message in done.stderr.decode() and bool(done.stderr) == bool(message)


# ---- pipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "back"),
    [("image2pipe -c:v ppm", "image2pipe -c:v ppm"), ("image2pipe -c:v png", "image2pipe"),
     ("yuv4mpegpipe -pix_fmt yuv420p", "yuv4mpegpipe"), ("image2pipe -c:v mjpeg -pix_fmt yuvj420p", "image2pipe")],
    ids=["ppm", "png", "y4m", "jpeg"],
)  # fmt: skip
def test_streams_of_ffmpeg(apply, there, back):
    video = ffmpeg("-f", "lavfi", "-i", "testsrc2=s=50x38:r=10:d=0.7", "-f", *there.split(), "-")
    assert apply(stdin=video) == 0 and apply.err == ""
    result = frames(apply.out)
    assert len(result) == 7 and {frame.shape for frame in result} == {(38, 50, 3)}
    raw = ffmpeg("-f", back.split()[0], *(back.split()[1:]), "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
                 stdin=apply.out)  # fmt: skip
    assert len(raw) == 7 * 38 * 50 * 3
    if "yuv4" in there:
        assert apply.out.split(b"\n")[0].split()[:4] == video.split(b"\n")[0].split()[:4], "rate and size pass through"


def test_archives_of_tar(apply, picture, folder):
    for number, name in enumerate(["p/a.png", "p/deep/b.jpg", "p/ünïcode 画.ppm"]):
        picture(name, 20 + number, 10, seed=number)
    (folder / "p/bad.png").write_bytes(b"no picture")
    packed = subprocess.run(["tar", "cf", "-", "p"], capture_output=True, check=True).stdout
    assert apply(stdin=packed) == 1
    assert apply.err.count("\n") == 1 and "<stdin>: p/bad.png: " in apply.err
    (folder / "out").mkdir()
    subprocess.run(["tar", "xf", "-", "-C", "out"], input=apply.out, check=True)
    assert below("out/p") == ["a.png", "deep/b.jpg", "ünïcode 画.ppm"]
    for name in below("out/p"):
        assert Image.open(f"out/p/{name}").size == Image.open(f"p/{name}").size


def test_damage_ends_a_pipe_after_what_was_whole(apply, picture):
    picture("a.ppm", 9, 7)
    one = Path("a.ppm").read_bytes()
    assert apply(stdin=one + one + one[:-3]) == 65
    assert len(frames(apply.out)) == 2 and apply.err.startswith("st-apply: <stdin>: ")
    assert apply(stdin=b"") == 0 and apply.out == b""


@pytest.mark.slow
def test_a_process_between_pipes(start, picture, live_model, folder):
    """Each frame is out before the next is in; then the reader goes away."""
    picture("s.png", 40, 36)
    picture("a.ppm", 64, 48)
    one = Path("a.ppm").read_bytes()
    process = start("st-apply", "-m", live_model, "-s", "s.png", "--to", "ppm")
    for _ in range(3):
        process.stdin.write(one)
        got = b""
        while len(got) < len(one):
            got += process.stdout.read(len(one) - len(got))
        assert len(frames(got)) == 1
    process.stdout.close()
    process.stdin.write(one)
    assert process.wait(60) == -signal.SIGPIPE
    assert process.stderr.read() == b""


@pytest.mark.slow
def test_video_to_video(sh, live_model, picture, folder, environment):
    """The pipeline of the manual, with real programs."""
    picture("s.png", 40, 36)
    program = imageio_ffmpeg.get_ffmpeg_exe()
    reference = os.environ.get("STYLETOOLS_REFERENCE")
    if reference:
        source = f"-i '{reference}/video/bikes.mp4' -vf scale=160:-2 -frames:v 12"
    else:
        source = "-f lavfi -i testsrc2=s=160x90 -frames:v 12"
    done = sh(
        f"set -o pipefail; {program} -v error {source} -f yuv4mpegpipe -pix_fmt yuv420p - | tee in.y4m | "
        f"st-apply -m {live_model} -s s.png | {program} -v error -f yuv4mpegpipe -i - -pix_fmt yuv420p b.mp4",
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    before = frames((folder / "in.y4m").read_bytes())
    after = frames(ffmpeg("-i", folder / "b.mp4", "-f", "image2pipe", "-c:v", "ppm", "-"))
    assert len(before) == len(after) == 12
    assert {f.shape for f in before} == {f.shape for f in after}


# ---- when things go wrong --------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigkill_in_the_middle_of_a_folder(start, apply, picture, live_model, folder):
    for number in range(40):
        picture(f"in/{number:02}.png", 160, 120, seed=number)
    process = start("st-apply", "--engine", "torch", "-m", live_model, "-s", "s.png", "in", "-o", "out/")
    end = time.monotonic() + 60
    while len(below("out") if Path("out").exists() else []) < 3:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = stamps("out")
    assert 3 <= len(done) < 40
    for name in done:
        assert pixels(f"out/{name}").shape == (120, 160, 3), "whole"
    script = "import os; from styletools import files; it = files.atomic('out/x.png'); it.__enter__(); os.abort()"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert parts("out")
    assert apply("--engine", "torch", "in", "-o", "out/") == 0 and apply.err == ""
    assert below("out") == below("in") and parts("out") == []
    kept = sum(stamps("out")[name] == stamp for name, stamp in done.items())
    assert kept >= len(done) - 6, "what was done and noted is not done again"
    assert apply("--engine", "torch", "in", "-o", "clean/") == 0
    for name in below("in"):
        assert (pixels(f"out/{name}") == pixels(f"clean/{name}")).all()


@pytest.mark.slow
def test_gatys_on_a_terminal_and_interrupted(start, picture, slim, folder):
    """Progress shows both losses; Ctrl-C ends it without leaving anything."""
    picture("s.png", 32, 32)
    picture("a.png", 32, 24)
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    words = ["-m", "gatys", "-O", "steps=100000", "-O", "scales=1", "-s", "s.png", "a.png", "-o", "out/"]
    process = start("st-apply", *words, stderr=follower)
    os.close(follower)
    shown = b""
    end = time.monotonic() + 60
    while b"style " not in shown and time.monotonic() < end:
        shown += os.read(leader, 4096)
    assert b"content " in shown and b"style " in shown and b"/100000" in shown
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == -signal.SIGINT
    os.close(leader)
    assert not Path("out").exists() or list(Path("out").iterdir()) == []


def test_a_full_disk(apply, picture, folder):
    picture("a.png", 30, 20)
    (folder / "in").mkdir()
    (folder / "in/a.ppm").write_bytes(b"P6\n800 600\n255\n" + bytes(800 * 600 * 3))
    assert apply("a.png", "-o", "/dev/full", "--to", "png") == 75
    assert "no space left on device" in apply.err and apply.err.count("\n") == 1
    (folder / "small").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", "small"], capture_output=True).returncode:
        return
    try:
        (folder / "small/out.ppm").write_bytes(b"older")
        assert apply("in", "-o", "small/") == 75
        assert apply("in/a.ppm", "-o", "small/out.ppm") == 75
        assert "no space left" in apply.err and apply.err.count("\n") == 1
        assert below("small") == ["out.ppm"] and parts("small") == []
        assert (folder / "small/out.ppm").read_bytes() == b"older"
        assert apply("a.png", "-o", "small/") == 0, "a smaller one finds room"
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_messages_as_json(apply, picture, folder):
    picture("a.png")
    assert apply("a.png", "gone.png", "-o", "out/", "--json") == 1
    events = [json.loads(line) for line in apply.err.splitlines()]
    (failure,) = [event for event in events if event["level"] == "error"]
    assert failure["record"] == "gone.png" and failure["status"] == 66


def test_memory_running_out_is_one_failure(apply, picture, monkeypatch):
    from styletools.engine import infer

    picture("a.png", 9, 7)
    picture("b.png", 300, 200)
    pad = infer.pad

    def small_only(image, *words):
        if image.shape[-1] > 100:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return pad(image, *words)

    monkeypatch.setattr(infer, "pad", small_only)
    assert apply("--engine", "torch", "b.png", "a.png", "-o", "out/") == 1
    assert apply.err == "st-apply: b.png: out of memory\n" and below("out") == ["a.png"]
    assert apply("--engine", "torch", "b.png", "-o", "x.png") == 75 and not Path("x.png").exists()


def test_hostile_pictures(apply, folder):
    if not os.environ.get("STYLETOOLS_REFERENCE"):
        pytest.skip("STYLETOOLS_REFERENCE names no folder of reference pictures")
    hostile = Path(os.environ["STYLETOOLS_REFERENCE"]) / "hostile"
    assert apply(hostile, "-o", "out/") == 1
    good, bad = {}, {}
    for path in sorted(hostile.iterdir()):
        if path.suffix == ".md":
            continue
        try:
            good[path.name] = streams.open_image(path)
        except errors.DataError:
            bad[path.name] = path
    assert len(good) > 30 and len(bad) > 5
    warned = [line for line in apply.err.splitlines() if line.startswith("st-apply: warning: ")]
    several = [name for name, record in good.items() if record.meta.get("frames") and not name.endswith(".jpg")]
    assert sorted(line.split("/")[-1].split(":")[0] for line in warned) == sorted(several)
    lines = [line for line in apply.err.splitlines() if line not in warned]
    assert len(lines) == len(bad)
    for name in bad:
        assert len([line for line in lines if line.startswith(f"st-apply: {hostile}/{name}: ")]) == 1
    names = {name: name.replace(".gif", ".png") for name in good}
    assert below("out") == sorted(names.values())
    for name, record in good.items():
        result = streams.open_image(Path("out") / names[name])
        before, after = record.array, result.array
        assert after.shape[:2] == before.shape[:2], name
        deep = before.dtype == np.uint16
        assert after.dtype == before.dtype or (deep and name.endswith(".tif")), name
        if before.shape[2] in (2, 4) and after.shape[2] == 3:
            assert before[..., -1].min() == 255 and name.endswith(".webp"), "WebP writes no alpha that hides nothing"
        elif before.shape[2] in (2, 4):
            assert (after[..., 3] == before[..., -1]).all(), name
        else:
            assert after.shape[2] == 3, name
        if name == "p3.jpg":
            assert result.meta["icc"] == record.meta["icc"]
    for path in bad.values():
        assert apply(path, "-o", "single.png") == 65
        assert apply.err.count("\n") == 1 and not Path("single.png").exists()


# ---- what is bundled -------------------------------------------------------------------------------------


def test_bundled_styles_fit_the_bundled_model():
    path = modelfile.find("live")
    digest = modelfile.digest(path)
    names = list(styles.bundled())
    assert {"great-wave", "starry-night", "the-scream"} <= set(names) and len(names) >= 20
    styles.check(styles.parse(names), "live", digest)


@pytest.mark.slow
def test_the_bundled_model_restyles_by_name(call, sh, folder):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    coarse.resize((192, 144), Image.Resampling.BICUBIC).save("photo.png")
    done = sh("st-apply -s great-wave photo.png -o wave.png")
    assert (done.returncode, done.stderr) == (0, b"")
    for name, words in {"scream": ["-s", "the-scream"], "half": ["-s", "great-wave", "--alpha", "0.5"]}.items():
        assert call("st-apply", *words, "photo.png", "-o", f"{name}.png")[0] == 0
    photo, wave, scream, half = (pixels(f"{n}.png").astype(float) for n in ("photo", "wave", "scream", "half"))
    assert wave.shape == photo.shape and wave.std() > 10
    assert abs(wave - scream).mean() > 5 and abs(half - photo).mean() < abs(wave - photo).mean()
    status, _, err = call("st-apply", "-s", "graet-wave", "photo.png", "-o", "x.png")
    assert status == 66 and "did you mean great-wave?" in err
