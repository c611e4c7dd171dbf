"""st-eval: what it says of pictures, and how it ends."""

import json
import os
import tarfile

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from styletools import metrics

CHEAP = "ssim,psnr"
JPEG = "/9j/"  # how one begins in base 64


@pytest.fixture
def outputs(folder, picture):
    """Three photographs in c/, two paintings in s/; in o/ restyled pictures: the first is an exact copy."""
    for seed, name in enumerate(("a", "b", "deep/c")):
        picture(f"c/{name}.png", 40, 32, seed)
        picture(f"o/{name}.png", 40, 32, seed if name == "a" else 50 + seed)
    picture("s/wave.png", 36, 44, 7)
    picture("s/cubes.png", 50, 30, 8)
    return folder


def lines(out: bytes) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def evaluate(call, *words):
    """Run st-eval, which must succeed without complaint; return the rows and the summary."""
    status, out, err = call("st-eval", *words)
    assert (status, err) == (0, "")
    *rows, last = lines(out)
    return rows, last["summary"]


def test_a_line_a_pair_and_the_summary_last(call, outputs):
    rows, summary = evaluate(call, "--content", "c", "--output", "o", "--metrics", CHEAP)
    assert [(row["output"], row["content"]) for row in rows] == [
        ("o/a.png", "c/a.png"), ("o/b.png", "c/b.png"), ("o/deep/c.png", "c/deep/c.png"),
    ]  # fmt: skip
    assert rows[0]["scores"] == {"ssim": 1.0, "psnr": 100.0}
    assert summary["pairs"] == 3 and summary["failed"] == 0
    for key in ("ssim", "psnr"):
        values = [row["scores"][key] for row in rows]
        assert summary["scores"][key] == pytest.approx(np.mean(values), rel=1e-4)
        assert summary["std"][key] == pytest.approx(np.std(values, ddof=1), rel=1e-4)
        assert (summary["min"][key], summary["max"][key]) == (min(values), max(values))
    assert summary["metrics"]["psnr"]["better"] == "higher" and summary["command"].startswith("st-eval --content c ")


def test_control_rows_tell_what_copying_would_score(call, outputs):
    Image.new("RGB", (40, 40), (250, 200, 20)).save("yellow.png")
    _, summary = evaluate(call, "--content", "c", "--style", "yellow.png", "--output", "o", "--metrics", "psnr,color")
    identity, target = summary["controls"]["identity"], summary["controls"]["target"]
    assert identity["psnr"] == 100 and target["color"] < 0.01 < 0.5 < identity["color"]
    assert summary["scores"]["psnr"] > target["psnr"]
    _, without = evaluate(call, "--content", "c", "--output", "o", "--metrics", "psnr")
    assert set(without["controls"]) == {"identity"}


@pytest.mark.parametrize("name", [name for name in metrics.names() if metrics.describe(name).scope != "sequence"])
def test_every_metric_can_be_asked_for(call, outputs, slim, name):
    """With random weights; what is not installed or has no weights here says so, and ends with 69."""
    told = metrics.describe(name)
    words = ["--output", "o", *(["--content", "c"] if "content" in told.needs else [])]
    words += ["--style", "s/wave.png"] if "style" in told.needs else []
    asked = f"{name}:slim" if "slim" in told.networks else name
    status, out, err = call("st-eval", *words, "--metrics", asked, "-q")
    if status == 0:
        scores = lines(out)[-1]["summary"]["scores"]
        assert asked in scores and isinstance(scores[asked], float)
        if told.needs:
            assert {"content": "identity", "style": "target"}[told.needs[0]] in lines(out)[-1]["summary"]["controls"]
    else:
        assert status == 69 and err.count("\n") == 1 or name == "adversarial" and status == 2


def test_the_default_needs_no_download(call, outputs):
    _, summary = evaluate(call, "--content", "c", "--style", "s/wave.png", "--output", "o")
    assert {"style", "content", "cfsd", "ssim", "color"} <= set(summary["scores"])
    assert {"style.relu1_1", "style.gram"} <= set(summary["scores"])
    assert {told["network"] for told in summary["metrics"].values()} == {"slim", ""}


def test_a_network_is_named_where_it_judges(call, outputs, slim):
    words = ["--content", "c", "--style", "s/wave.png", "--output", "o", "--metrics"]
    rows, summary = evaluate(call, *words, "content:slim,fd")
    assert "content:slim" in rows[0]["scores"] and "fd:slim" not in rows[0]["scores"]
    assert summary["scores"]["fd:slim"] >= 0 and summary["metrics"]["fd:slim"]["network"] == "slim"


def test_mixed_sizes(call, outputs, picture):
    picture("o/b.png", 20, 16, 60)
    rows, _ = evaluate(call, "--content", "c", "--style", "s/wave.png", "--output", "o", "--metrics", "ssim,psnr,color")
    assert len(rows) == 3


def test_size_and_square(call, outputs, picture):
    """The middle square of a picture is all that counts with --square."""
    pixels = np.array(Image.open("c/b.png"))
    pixels[:, :4] = pixels[:, -4:] = 0
    Image.fromarray(pixels).save("o/b.png")
    rows, summary = evaluate(call, "--content", "c/b.png", "--output", "o/b.png", "--metrics", "psnr", "--square")
    assert rows[0]["scores"]["psnr"] == 100 and summary["square"]
    assert evaluate(call, "--content", "c/b.png", "--output", "o/b.png", "--metrics", "psnr")[1]["scores"]["psnr"] < 30
    small = evaluate(call, "--content", "c", "--output", "o", "--metrics", "psnr", "--size", "16")[1]
    assert small["size"] == 16 and small["scores"]["psnr"] != 100


def test_names_without_partners_end_before_the_work(call, outputs, picture):
    picture("o/alone.png")
    status, out, err = call("st-eval", "--content", "c", "--output", "o", "--metrics", "psnr")
    assert (status, out, err) == (66, b"", "st-eval: no partner of that name for o/alone.png\n")
    status, out, err = call("st-eval", "--content", "c", "--output", "o", "--metrics", "psnr", "--partial")
    assert status == 0 and len(lines(out)) == 4 and "warning: no partner of that name for o/alone.png" in err


def test_products_and_tables(call, outputs, picture):
    for content in "ab":
        for style in ("wave", "cubes"):
            picture(f"p/{style}/{content}.png", 40, 32)
    picture("two/a.png", 40, 32, 0)
    picture("two/b.png", 40, 32, 1)
    words = ["--content", "two", "--style", "s", "--output", "p", "--pair-by", "product", "--name", "{style}/{content}"]
    rows, _ = evaluate(call, *words, "--metrics", "color")
    assert {(row["output"], row["style"]) for row in rows} == {
        (f"p/{style}/{content}.png", f"s/{style}.png") for content in "ab" for style in ("wave", "cubes")
    }
    (outputs / "pairs.tsv").write_text("output\tcontent\tstyle\no/b.png\tc/a.png\ts/cubes.png\n")
    rows, _ = evaluate(call, "--pairs", "pairs.tsv", "--metrics", "color,psnr")
    assert [(row["output"], row["content"], row["style"]) for row in rows] == [("o/b.png", "c/a.png", "s/cubes.png")]


def test_a_limit_draws_by_the_seed(call, outputs, picture):
    for number in range(20):
        picture(f"many/{number}.png")
    words = ["--content", "many", "--output", "many", "--metrics", "psnr", "--limit", "5"]
    drawn = [[row["output"] for row in evaluate(call, *words, "--seed", str(seed))[0]] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 5


@pytest.mark.parametrize(
    "words, status, message",
    [
        ([], 2, "--output is needed"),
        (["--output", "o"], 2, "--content or --style is needed"),
        (["--output", "o", "--metrics", "psnr"], 2, "psnr compares with the content: --content is needed"),
        (["--output", "o", "--content", "c", "--metrics", "style"], 2, "style compares with the style"),
        (["--output", "o", "--content", "c", "--metrics", "pnsr"], 2, "unknown metric 'pnsr': did you mean psnr?"),
        (["--output", "o", "--content", "c", "--metrics", "psnr:slim"], 2, "psnr judges by no network"),
        (["--output", "o", "--content", "c", "--metrics", "lpips:slim"], 2, "lpips judges by squeezenet, vgg16"),
        (["--output", "o", "--content", "c", "--metrics", ","], 2, "no metric is named"),
        (["--output", "gone", "--content", "c"], 66, "gone: no such file"),
        (["--output", "o", "--content", "gone"], 66, "gone: no such file"),
        (["--output", "o", "--content", "c", "--fail-if", "psnr"], 2, "a comparison expected"),
        (["--output", "o", "--content", "c", "--fail-if", "lpips>1"], 2, "lpips is not measured, but "),
        (["--output", "o", "--content", "c", "--fail-if", "ssim<baseline.ssim"], 2, "--baseline is needed"),
        (["--output", "o", "--content", "c", "--baseline", "gone"], 66, "gone: no such file"),
        (["--output", "o", "--content", "c", "--baseline", "c/a.png"], 65, "c/a.png: not a result of st-eval"),
        (["--output", "o", "--content", "c", "--reference", "x.npz"], 2, "--reference"),
        (["--output", "o", "--content", "-"], 2, "output must be one, too"),
        (["--output", "-", "--content", "-"], 2, "one of output, content and style only"),
        (["--output", "o", "--content", "c", "--pair-by", "product"], 2, "needs --content and --style"),
        (["--output", "o", "--content", "c", "-o", "c"], 73, "c: is a directory"),
        (["--output", "o", "list"], 2, "do not go before list"),
        (["--output", "o/a.png", "--content", "c/a.png", "-o", "o/a.png"], 2, "o/a.png: would be overwritten"),
        (["--output", "o", "--content", "c", "--report", "c/a.png"], 2, "c/a.png: would be overwritten"),
        (["--output", "o", "--content", "c", "-o", "r.x", "--report", "r.x"], 2, "r.x: would be overwritten"),
        (["--output", "o", "--content", "c", "--report", "-"], 2, "a page and statistics need a file"),
        (["--output", "o", "--content", "c", "--metrics", "warp", "--limit", "2"], 2, "--limit does not go with warp"),
        (["--output", "o", "--content", "c", "--metrics", "psnr", "--flow", "c"], 2, "--flow goes with warp"),
        (["--output", "o", "--metrics", "diversity", "--fail-if", "max(diversity:squeezenet)>1"], 2, "min and max"),
        (["--output", "o", "--content", "c", "--fail-if", "1>0"], 2, "it speaks of no score"),
        (["--output", "-", "--content", "c/a.png", "--limit", "1"], 2, "frames are compared one after another"),
        (["compare", "--content", "c"], 2, "-m is needed"),
        (["compare", "-m", "live"], 2, "--pairs is needed"),
        (["compare", "-m", "a=live", "-m", "a=live"], 2, "a name of its own"),
        (["compare", "-m", "gone.pth"], 66, "gone.pth"),
        (["study", "--methods", "o"], 2, "two folders or more"),
        (["study-score", "gone.json"], 66, "gone.json"),
        (["study-score"], 2, "RESULT"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_before_the_work(call, outputs, words, status, message):
    ended, out, err = call("st-eval", *words)
    assert (ended, out, err.count("\n")) == (status, b"", 1) and message in err


def test_a_gate(call, outputs):
    words = ["--content", "c", "--output", "o", "--metrics", "psnr", "-o", "now.jsonl"]
    status, out, err = call("st-eval", *words, "--fail-if", "psnr<20", "--fail-if", "min(psnr)<20")
    assert status == 1 and out == b"" and err.startswith("st-eval: failed: min(psnr)<20 (min(psnr) is ")
    assert err.count("\n") == 1
    summary = lines((outputs / "now.jsonl").read_bytes())[-1]["summary"]
    (outputs / "better.jsonl").write_text(json.dumps({"summary": summary | {"scores": {"psnr": 90.0}}}))
    gate = ["--baseline", "better.jsonl", "--fail-if", "psnr < 0.9*baseline.psnr"]
    assert call("st-eval", *words, *gate)[0] == 1
    assert call("st-eval", *words[:-1], "again.jsonl", "--baseline", "now.jsonl", *gate[2:])[0] == 0
    assert call("st-eval", *words, "--fail-if", "psnr>identity.psnr")[0] == 0


def test_a_gate_does_not_pass_what_could_not_be_measured(call, outputs):
    for name in ("a", "b", "deep/c"):
        (outputs / f"o/{name}.png").write_bytes(b"no picture")
    status, out, err = call("st-eval", "--content", "c", "--output", "o", "--metrics", "psnr", "--fail-if", "psnr<1")
    assert status == 65 and out == b"" and "psnr has no value" in err.splitlines()[-1]


def test_a_broken_picture_is_left_out_and_told(call, outputs):
    (outputs / "o/b.png").write_bytes((outputs / "o/b.png").read_bytes()[:60])
    status, out, err = call("st-eval", "--content", "c", "--output", "o", "--metrics", "psnr")
    assert status == 1 and len(lines(out)) == 3 and err.startswith("st-eval: o/b.png: ") and err.count("\n") == 1
    assert lines(out)[-1]["summary"]["failed"] == 1 and lines(out)[-1]["summary"]["pairs"] == 2
    status, out, _ = call("st-eval", "--content", "c", "--output", "o", "--metrics", "psnr", "--fail-fast")
    assert status == 1 and len(lines(out)) == 2


def test_tables(call, outputs):
    status, out, _ = call("st-eval", "--content", "c", "--output", "o", "--metrics", CHEAP, "--to", "table")
    text = out.decode()
    assert status == 0 and [line.split() for line in text.splitlines()][:2] == [
        ["ssim", "↑", "psnr", "↑", "pairs"], ["o/a.png", "1", "100"]]  # fmt: skip
    assert "\nidentity (control)" in text and "\nmeasured " in text
    status, out, _ = call("st-eval", "--content", "c", "--output", "o", "--metrics", "psnr", "--to", "markdown")
    assert out.decode().splitlines()[:2] == ["|  | psnr ↑ | pairs |", "|---|---:|---:|"]


def test_streams_of_frames(call, outputs, sh):
    """The members of an archive, by their names; frames of a pipe, by their numbers; and the two must end together."""
    for name, folder, members in (("o", "o", "ab"), ("c", "c", "ab"), ("short", "c", "a"), ("other", "c", "ba")):
        with tarfile.open(outputs / f"{name}.tar", "w") as archive:
            for member in members:
                archive.add(f"{folder}/{member}.png", f"{member}.png")
    for content in ("c.tar", "c", "c/a.png"):
        rows, summary = evaluate(call, "--content", content, "--output", "o.tar", "--metrics", "psnr")
        assert rows[0]["scores"]["psnr"] == 100 and [row["frame"] for row in rows] == [1, 2]
        assert [row["name"] for row in rows] == ["a.png", "b.png"]
    for output, content, message in (
        ("o.tar", "short.tar", "short.tar: ends after 1 frames"),
        ("short.tar", "o.tar", "o.tar: goes on after"),
        ("o.tar", "other.tar", "other.tar: has b.png where the output has a.png"),
    ):
        status, _, err = call("st-eval", "--content", content, "--output", output, "--metrics", "psnr")
        assert status == 65 and message in err
    done = sh("st-cat --to ppm o/a.png o/b.png | st-eval --content c.tar --output - --metrics psnr")
    assert done.returncode == 0 and lines(done.stdout)[0]["scores"]["psnr"] == 100, done.stderr
    done = sh("st-eval --content c.tar --output - --metrics psnr < /dev/null")
    assert (done.returncode, done.stdout) == (65, b"") and b"goes on after" in done.stderr
    done = sh("st-eval --content c/a.png --output - --metrics psnr < /dev/null")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_videos(call, folder):
    import subprocess

    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    for name, more in (("in.mp4", []), ("out.mp4", ["-vf", "negate"])):
        subprocess.run([ffmpeg, "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10", "-t", "0.5", *more,
                        name], check=True)  # fmt: skip
    rows, summary = evaluate(call, "--content", "in.mp4", "--output", "out.mp4", "--metrics", "psnr,warp")
    assert len(rows) == 5 and "warp" not in rows[0]["scores"] and rows[1]["scores"]["warp"] >= 0
    assert summary["controls"]["identity"]["warp"] == pytest.approx(summary["scores"]["warp.content"])


def test_true_motion(call, folder, picture):
    """A picture that moves by three pixels; what is said of the motion is believed."""
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 256, (8, 14, 3), dtype=np.uint8), np.ones((6, 6, 1), np.uint8))
    os.makedirs("c")
    for number, shift in ((1, 0), (2, 3), (10, 6)):
        Image.fromarray(wide[:, shift : shift + 64]).save(f"c/f{number}.png")
    flow = np.zeros((2, 48, 64, 2), np.float32)
    flow[..., 0] = -3
    data = b"".join(b"PIEH" + np.array([64, 48], "<i4").tobytes() + each.tobytes() for each in flow)
    (folder / "true.flo").write_bytes(data)
    rows, summary = evaluate(call, "--content", "c", "--output", "c", "--metrics", "warp", "--flow", "true.flo")
    assert [row["output"] for row in rows] == ["c/f1.png", "c/f2.png", "c/f10.png"]
    assert summary["scores"]["warp"] < 1e-9
    (folder / "flows").mkdir()
    for name in ("f1", "f2"):
        (folder / f"flows/{name}.flo").write_bytes(data[: len(data) // 2])
    _, summary = evaluate(call, "--content", "c", "--output", "c", "--metrics", "warp", "--flow", "flows")
    assert summary["scores"]["warp"] < 1e-9
    (folder / "true.flo").write_bytes(data + data)
    status, _, err = call("st-eval", "--content", "c", "--output", "c", "--metrics", "warp", "--flow", "true.flo")
    assert status == 65 and "--flow goes on after the last two frames" in err
    (folder / "true.flo").write_bytes(data[: len(data) // 2])
    status, _, err = call("st-eval", "--content", "c", "--output", "c", "--metrics", "warp", "--flow", "true.flo")
    assert status != 0 and "ends before the frames do" in err


def test_statistics_are_exchanged(call, outputs, slim):
    words = ["--content", "c", "--style", "s/wave.png", "--output", "o", "--metrics", "fd"]
    _, first = evaluate(call, *words, "--save-statistics", "o.npz")
    with np.load("o.npz") as saved:
        assert {"mu", "sigma"} <= set(saved) and saved["sigma"].shape == (len(saved["mu"]),) * 2
    _, own = evaluate(call, *words, "--reference", "o.npz")
    assert own["scores"]["fd:slim"] == pytest.approx(0, abs=1e-4)
    assert first["scores"]["fd:slim"] > 1e-3
    (outputs / "bad.npz").write_bytes(b"no zip")
    assert call("st-eval", *words, "--reference", "bad.npz")[0] == 65


def test_the_page(call, outputs):
    words = ["--content", "c", "--output", "o", "--metrics", CHEAP, "--report", "page.html", "--note", "</script>"]
    evaluate(call, *words)
    text = (outputs / "page.html").read_text()
    assert text.count("</script>") == text.count("<script") and "deep/c.png" in text
    assert text.count(JPEG) == 5  # three contents, and the outputs, of which one is its content


def test_the_list_names_all(call, folder):
    status, out, _ = call("st-eval", "list")
    assert status == 0 and [line.split()[0] for line in out.decode().splitlines()] == metrics.names()


def test_comparing_models(call, outputs, live_model, slim):
    words = ["compare", "-m", str(live_model), "-m", "other=" + str(live_model), "--content", "c/a.png", "--style", "s"]
    status, out, err = call("st-eval", *words, "--metrics", "psnr", "--keep", "kept", "--report", "page.html")
    assert (status, err) == (0, "")
    found = lines(out)
    summaries = [line["summary"] for line in found if "summary" in line]
    assert [summary["name"] for summary in summaries] == ["tiny", "other"] and len(found) == 6
    assert summaries[0]["scores"] == summaries[1]["scores"]  # the same model, in processes of their own
    assert all(0 < summary["seconds"] < 60 and 50 < summary["peak_mb"] < 10000 for summary in summaries)
    assert "identity" in summaries[0]["controls"]
    assert sorted(path.name for path in (outputs / "kept/other").iterdir()) == [
        "0001_a_cubes.png", "0002_a_wave.png"]  # fmt: skip
    (outputs / "first.jsonl").write_bytes(out)
    status, out, _ = call("st-eval", "compare", "--with", "first.jsonl", "--to", "markdown")
    assert status == 0 and [line.split("|")[1].strip() for line in out.decode().splitlines()[2:]] == [
        "tiny", "other", "identity (control)", "target (control)"]  # fmt: skip


def test_a_comparison_goes_on_after_a_broken_picture(call, outputs, live_model, slim):
    (outputs / "c/b.png").write_bytes(b"no picture")
    words = ["compare", "-m", str(live_model), "--content", "c", "--style", "s/wave.png", "--metrics", "psnr"]
    status, out, err = call("st-eval", *words)
    assert status == 1 and err.count("\n") == 1 and "c/b.png" in err
    assert lines(out)[-1]["summary"]["pairs"] == 2 and lines(out)[-1]["summary"]["failed"] == 1


def test_a_study_from_page_to_strengths(call, outputs, picture):
    for seed, name in enumerate(("a", "b")):
        picture(f"x/{name}.png", 20, 20, seed)
        picture(f"y/{name}.png", 20, 20, 9 + seed)
        picture(f"photos/{name}.png", 20, 20, 19 + seed)
    words = ["study", "--methods", "x", "y/", "--content", "photos", "--style", "s/wave.png"]
    assert call("st-eval", *words, "-o", "study.html")[::2] == (0, "")
    assert (outputs / "study.html").read_text().count(JPEG) == 7
    picture("y/alone.png")
    status, _, err = call("st-eval", *words)
    assert status == 2 and "alone" in err


def test_a_baseline_that_was_measured_otherwise_does_not_count(call, outputs, slim):
    words = ["--content", "c", "--output", "o", "--metrics", "cfsd"]
    _, summary = evaluate(call, *words)
    told = summary["metrics"]["cfsd"]
    assert len(told["weights"]) == 16
    gate = ["--baseline", "old.jsonl", "--fail-if", "cfsd>2*baseline.cfsd"]
    for change, what in (({"size": 64}, "size"), ({"pairs": 5}, "pairs"),
                         ({"metrics": {"cfsd": told | {"network": "vgg19"}}}, "network"),
                         ({"metrics": {"cfsd": told | {"weights": "0" * 16}}}, "weights")):  # fmt: skip
        (outputs / "old.jsonl").write_text(json.dumps({"summary": summary | change}))
        status, _, err = call("st-eval", *words, *gate)
        assert status == 78 and f"measured with other {what}" in err
    (outputs / "old.jsonl").write_text(json.dumps({"summary": summary}))
    assert call("st-eval", *words, *gate)[0] == 0


def test_a_file_of_several_pictures_is_a_stream_or_refused(call, outputs, sh):
    assert sh("st-cat --to ppm c/a.png c/b.png > c.ppm; st-cat --to ppm o/a.png o/b.png > o.ppm").returncode == 0
    rows, _ = evaluate(call, "--content", "c.ppm", "--output", "o.ppm", "--metrics", "psnr")
    assert [row["frame"] for row in rows] == [1, 2] and rows[0]["scores"]["psnr"] == 100
    os.makedirs("folder")
    os.rename("o.ppm", "folder/a.ppm")
    status, _, err = call("st-eval", "--content", "c/a.png", "--output", "folder", "--metrics", "psnr")
    assert status == 65 and "no partner" not in err and "holds several pictures" in err


def test_what_fails_leaves_no_note_and_shifts_no_motion(call, folder, picture):
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 256, (8, 16, 3), dtype=np.uint8), np.ones((6, 6, 1), np.uint8))
    os.makedirs("c")
    os.makedirs("o")
    moved = [3, 5, 1]
    places = [0, 3, 8, 9]
    for number, place in enumerate(places):
        for where in ("c", "o"):
            Image.fromarray(wide[:, place : place + 64]).save(f"{where}/f{number}.png")
    flow = np.zeros((3, 48, 64, 2), np.float32)
    flow[..., 0] = -np.array(moved)[:, None, None]
    head = b"PIEH" + np.array([64, 48], "<i4").tobytes()
    (folder / "true.flo").write_bytes(b"".join(head + each.tobytes() for each in flow))
    (folder / "o/f1.png").write_bytes(b"no picture")
    status, out, _ = call("st-eval", "--content", "c", "--output", "o", "--metrics", "warp,diversity", "--flow",
                          "true.flo")  # fmt: skip
    if status == 69:
        pytest.skip("LPIPS has no weights here")
    *rows, last = lines(out)
    assert status == 1 and [row["output"] for row in rows] == ["o/f0.png", "o/f2.png", "o/f3.png"]
    assert "warp" not in rows[1]["scores"] and rows[2]["scores"]["warp"] < 1e-9
    assert last["summary"]["pairs"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"psnr": float("nan")}}, {"scores": {"psnr": "high"}}, {"scores": [1]}, {"metrics": {"psnr": [1]}},
        {"metrics": [["psnr", 1]]}, {"controls": {"x": 5}}, {"pairs": "many"}, {"name": 3}, {"seconds": "long"},
    ],
)  # fmt: skip
def test_hostile_results_are_no_results(call, outputs, change):
    _, summary = evaluate(call, "--content", "c", "--output", "o", "--metrics", "psnr")
    (outputs / "old.jsonl").write_text(json.dumps({"summary": summary | change}))
    gate = ["--content", "c", "--output", "o", "--metrics", "psnr", "--baseline", "old.jsonl"]
    for words in (gate, ["compare", "--with", "old.jsonl", "--to", "table"]):
        status, out, err = call("st-eval", *words)
        assert (status, out) == (65, b"") and "old.jsonl: not a result of st-eval" in err


def test_results_of_other_networks_are_no_table(call, outputs):
    _, summary = evaluate(call, "--content", "c", "--output", "o", "--metrics", "cfsd")
    other = summary | {"metrics": {"cfsd": summary["metrics"]["cfsd"] | {"network": "vgg19"}}}
    (outputs / "a.jsonl").write_text(json.dumps({"summary": summary}) + "\n")
    (outputs / "b.jsonl").write_text(json.dumps({"summary": other}))
    assert call("st-eval", "compare", "--with", "a.jsonl", "--with", "b.jsonl")[0] == 78
    status, out, _ = call("st-eval", "compare", "--with", "a.jsonl", "--with", "a.jsonl")
    assert status == 0 and [line["summary"]["name"] for line in lines(out)] == ["measured", "measured"]
    (outputs / "c.jsonl").write_text((outputs / "a.jsonl").read_text() * 2)
    gate = ["--content", "c", "--output", "o", "--metrics", "cfsd", "--baseline", "c.jsonl"]
    status, _, err = call("st-eval", *gate)
    assert status == 65 and "holds 2 summaries" in err


def test_a_reference_serves_in_all_rows_and_needs_no_style(call, outputs, slim):
    evaluate(call, "--output", "c", "--metrics", "fd", "--save-statistics", "c.npz")
    _, summary = evaluate(call, "--content", "c", "--output", "o", "--metrics", "fd", "--reference", "c.npz")
    assert summary["controls"]["identity"]["fd:slim"] == pytest.approx(0, abs=1e-4)
    assert summary["scores"]["fd:slim"] > 1e-3


def test_a_model_that_cannot_be_loaded_costs_the_others_nothing(call, outputs, live_model):
    (outputs / "cut.safetensors").write_bytes(live_model.read_bytes()[:-50])
    words = ["compare", "-m", f"good={live_model}", "-m", "cut.safetensors", "--content", "c/a.png", "--style", "s"]
    status, out, err = call("st-eval", *words, "--metrics", "psnr")
    if status == 65:
        assert out == b"" and "cut.safetensors" in err  # seen before anything was done
        return
    assert status == 1 and lines(out)[-1]["summary"]["name"] == "good" and "cut" in err


def test_a_bank_paints_in_the_style_that_is_called_as_the_painting(call, outputs, slim, picture):
    import torch

    from styletools import methods, modelfile

    torch.manual_seed(0)
    bank = methods.create("johnson", {"styles": "wave,cubes", "widths": "4,4,4", "blocks": 1})
    with torch.no_grad():  # the styles of a fresh one are all alike
        for parameter in bank.nets.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    modelfile.save(outputs / "bank.safetensors", "johnson", bank)
    words = ["compare", "-m", "bank.safetensors", "--content", "c/a.png", "--style", "s", "--metrics", "psnr"]
    status, out, err = call("st-eval", *words, "--keep", "kept")
    assert status == 0 and "has its styles built in" in err
    pictures = [path.read_bytes() for path in sorted((outputs / "kept/bank").iterdir())]
    assert len(set(pictures)) == 2
    picture("s/other.png")
    status, out, err = call("st-eval", *words)
    assert status != 0 and "no style 'other' in this model" in err
