"""st-video: from the command line to films that other programs read."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import streams
from styletools.cli.st_video import STEADY
from styletools.engine import steady, video


@pytest.fixture
def restyle(call, live_model, picture):
    """Run st-video with the tiny model and the style s.png; return the status."""
    picture("s.png", 40, 36, seed=99)
    picture("t.png", 40, 36, seed=98)

    def run(*words, stdin=b"", style="s.png"):
        status, run.out, run.err = call("st-video", "-m", live_model, "-s", style, *words, stdin=stdin)
        return status

    return run


def probe(path, *wanted) -> dict:
    """Return what ffprobe tells of a file: its streams, and `wanted` (frames, chapters, format)."""
    if not shutil.which("ffprobe"):
        pytest.skip("ffprobe is not here")
    shown = [f"-show_{each}" for each in ("streams", *wanted)]
    command = ["ffprobe", "-v", "error", "-of", "json", *shown, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


# ---- what is kept ----------------------------------------------------------------------------------------

KINDS = ("ntsc", "uneven", "odd", "full-chroma", "ten-bit", "full-range", "bt601", "one", "late", "broadcast",
         "turned", "whole")  # fmt: skip


def test_every_kind_of_clip_is_tried(clips):
    assert set(KINDS) == set(clips)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_their_times_are_the_films_own(restyle, clips, folder, kind):
    assert restyle(clips[kind], "-o", "out.mp4") == 0, restyle.err
    before, after = (list(video.read(path)) for path in (clips[kind], folder / "out.mp4"))
    assert len(before) == len(after)
    assert [frame.image.array.shape[:2] for frame in before] == [frame.image.array.shape[:2] for frame in after]
    tick = max(video.probe(clips[kind]).time_base, Fraction(1, 90_000))
    assert all(abs(a.time - b.time) <= tick for a, b in zip(before, after))
    assert abs(before[-1].end - after[-1].end) <= 2 * tick + Fraction(1, 1000)
    there, here = video.probe(clips[kind]), video.probe(folder / "out.mp4")
    assert there.aspect in (here.aspect, None) and (there.depth > 8) == (here.depth > 8)
    assert len(there.of_kind("audio")) == len(here.of_kind("audio"))
    # Painted, not copied.
    assert np.abs(before[0].image.array.astype(float) - after[0].image.array).mean() > 1


def test_all_that_goes_with_a_film(restyle, clips, folder):
    assert restyle(clips["whole"], "-o", "out.mp4") == 0 and not restyle.err
    told = probe(folder / "out.mp4", "chapters", "format")
    kinds = [(each["codec_type"], each.get("tags", {}).get("language")) for each in told["streams"]]
    kinds = [each for each in kinds if each[0] != "data"]  # QuickTime's track of chapters
    assert sorted(kinds[1:]) == [("audio", "deu"), ("audio", "fra"), ("subtitle", "eng")] and kinds[0][0] == "video"
    assert [chapter["tags"]["title"] for chapter in told["chapters"]] == ["one", "two"]
    assert told["format"]["tags"]["title"] == "My film"


def test_real_film_with_sound(restyle, reference, folder):
    source = reference.parent / "video/cockatoo_audio.mp4"
    assert restyle(source, "--start", "1", "--duration", "0.5s", "--size", "64", "-o", "out.mkv") == 0, restyle.err
    (picture, sound) = probe(folder / "out.mkv", "frames")["streams"]
    assert (picture["height"], picture["width"], sound["codec_type"]) == (64, 114, "audio")
    frames = list(video.read(folder / "out.mkv"))
    assert len(frames) == 10 and frames[0].time < Fraction(1, 20)


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm", "avi", "gif", "webp"])
def test_kinds_of_files(restyle, clips, folder, extension):
    assert restyle(clips["ntsc"], "--duration", "0.3", "-o", f"out.{extension}") == 0, restyle.err
    frames = list(video.read(folder / f"out.{extension}"))
    assert len(frames) == 9 and frames[0].image.array.shape == (64, 96, 3)
    assert abs(frames[-1].time - 8 * Fraction(1001, 30000)) < Fraction(1, 50)


# ---- pipes and pictures ----------------------------------------------------------------------------------


def test_y4m_through_pipes_keeps_its_rate(restyle, clips, ffmpeg):
    stream = ffmpeg("-i", clips["ntsc"], "-t", "0.2", "-f", "yuv4mpegpipe", "-")
    assert restyle(stdin=stream) == 0, restyle.err
    records = list(streams.read(io.BytesIO(restyle.out)))
    assert len(records) == 6 and records[0].meta["rate"] == "30000:1001"
    assert restyle(clips["ntsc"], "--duration", "0.2", "-o", "-") == 0
    assert list(streams.read(io.BytesIO(restyle.out)))[0].meta["rate"] == "30000:1001"
    decoded = ffmpeg("-i", "-", "-f", "framecrc", "-", data=restyle.out).decode().splitlines()
    assert sum(not line.startswith("#") for line in decoded) == 6


def test_a_pipe_into_a_file(restyle, clips, ffmpeg, folder):
    stream = ffmpeg("-i", clips["ntsc"], "-t", "0.2", "-f", "yuv4mpegpipe", "-")
    assert restyle("-o", "out.mp4", stdin=stream) == 0, restyle.err
    times = [frame.time for frame in video.read(folder / "out.mp4")]
    assert times == [Fraction(1001, 30000) * i for i in range(6)]
    bare = ffmpeg("-i", clips["ntsc"], "-t", "0.2", "-f", "image2pipe", "-c:v", "ppm", "-")
    assert restyle("--rate", "10", "-o", "slow.mp4", stdin=bare) == 0, restyle.err
    assert [frame.time for frame in video.read(folder / "slow.mp4")] == [Fraction(i, 10) for i in range(6)]


def test_an_empty_pipe(restyle, folder):
    assert restyle() == 0 and restyle.out == b""
    assert restyle("-o", "out.mp4") == 65 and "empty" in restyle.err
    assert not (folder / "out.mp4").exists()


def test_numbered_pictures_in_both_directions(restyle, clips, folder):
    assert restyle(clips["ntsc"], "--duration", "0.2", "-o", "frames/f-%03d.png") == 0, restyle.err
    assert sorted(os.listdir(folder / "frames")) == [f"f-{i:03}.png" for i in range(1, 7)]
    assert restyle("frames/f-%03d.png", "--rate", "30000/1001", "-o", "out.mp4") == 0, restyle.err
    assert len(list(video.read(folder / "out.mp4"))) == 6
    assert video.probe(folder / "out.mp4").rate == Fraction(30000, 1001)


# ---- styles over time, steadiness -------------------------------------------------------------------------


def test_the_default_is_the_librarys():
    assert STEADY == steady.DEFAULT_STRENGTH


def test_without_steadiness_frames_are_those_of_st_apply(restyle, call, clips, folder, live_model):
    assert restyle(clips["ntsc"], "--duration", "0.1", "--steady", "0", "-o", "f-%d.png") == 0, restyle.err
    for number, frame in enumerate(video.read(clips["ntsc"], duration=Fraction(1, 10)), 1):
        Image.fromarray(frame.image.array).save(folder / "in.png")
        words = ["-m", live_model, "-s", "s.png", "in.png", "-o", "applied.png"]
        assert call("st-apply", *words)[0] == 0
        assert (pixels(folder / "applied.png") == pixels(folder / f"f-{number}.png")).all()


@pytest.mark.slow
def test_frame_by_frame_takes_no_torch(clips, folder, live_model):
    """Where OpenVINO is; a film that is gone on with is the same, byte by byte."""
    pytest.importorskip("openvino")
    Image.linear_gradient("L").rotate(30).convert("RGB").save(folder / "s.png")
    words = [clips["ntsc"], "-m", live_model, "-s", "s.png", "--steady", "0", "--duration", "0.5", "--segment", "5"]
    script = """
import sys
from styletools.cli.st_video import main
from styletools.engine import film, graph
graph.LARGE = 0
if "stop" in sys.argv:
    sys.argv.remove("stop")
    finish = film.Segments.finish
    def stop(segments, frames, state):
        finish(segments, frames, state)
        if segments.count == 2:
            sys.exit(5)
    film.Segments.finish = stop
main(sys.argv[1:], standalone_mode=False)
assert "torch" not in sys.modules
"""

    def run(*more):
        done = subprocess.run([sys.executable, "-c", script, *map(str, [*words, *more])], cwd=folder, check=False)
        return done.returncode

    assert run("-o", "a.mp4") == 0
    assert run("-o", "b.mp4", "stop") != 0 and run("-o", "b.mp4", "--resume") == 0
    assert (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes()


def test_another_flow(restyle, clips, folder, monkeypatch):
    from torchvision.models import optical_flow

    words = (clips["ntsc"], "--duration", "0.1", "--steady", "1")
    assert restyle(*words, "--flow", "raft", "-o", "x.mp4") == 69 and restyle.err.count("\n") == 1, restyle.err
    weights = folder / Path(optical_flow.Raft_Small_Weights.C_T_V2.url).name
    torch.save(optical_flow.raft_small(weights=None).state_dict(), weights)
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(folder))
    for flow in ("raft", "plain"):
        assert restyle(*words, "--flow", flow, "-o", f"{flow}-%d.png") == 0, restyle.err
    assert (pixels(folder / "raft-1.png") == pixels(folder / "plain-1.png")).all()
    assert (pixels(folder / "raft-2.png") != pixels(folder / "plain-2.png")).any()


def test_styles_fade_into_each_other(restyle, clips, folder):
    words = (clips["ntsc"], "--duration", "0.5", "--steady", "0")
    for style, name in (("s.png@0.1,t.png@0.3s", "fade"), ("s.png", "first"), ("t.png", "second")):
        assert restyle(*words, "-o", f"{name}-%02d.png", style=style) == 0, restyle.err
    fade, first, second = ([pixels(folder / f"{name}-{i:02}.png").astype(float) for i in range(1, 16)]
                           for name in ("fade", "first", "second"))  # fmt: skip
    assert max(np.abs(fade[0] - first[0]).max(), np.abs(fade[14] - second[14]).max()) <= 1, "graphs round otherwise"
    from_first = [np.abs(a - b).mean() for a, b in zip(fade, first)]
    assert from_first[4] < from_first[6] < from_first[8] and from_first[2] < 0.01
    assert np.abs(fade[6] - second[6]).mean() > 0


def test_styles_of_one_time_are_mixed(restyle, clips, folder):
    for style, name in (("s.png@0,t.png@0", "timed"), ("s.png,t.png", "plain")):
        assert restyle(clips["one"], "-o", f"{name}-%d.png", style=style) == 0, restyle.err
    assert (pixels(folder / "timed-1.png") == pixels(folder / "plain-1.png")).all()


# ---- interruption -----------------------------------------------------------------------------------------


def wait_for(path: Path, process) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_job_goes_on_and_makes_the_same_film(restyle, start, clips, folder, live_model, number):
    words = ["-m", live_model, "-s", "s.png", clips["whole"], "--segment", "4"]
    process = start("st-video", *map(str, words), "-o", "killed.mp4")
    wait_for(folder / ".killed.mp4.film/000002.nut", process)
    process.send_signal(number)
    err = process.stderr.read().decode()
    assert process.wait() == -number
    if number != signal.SIGKILL:
        assert "--resume goes on" in err and "Traceback" not in err
    assert not (folder / "killed.mp4").exists()
    assert restyle(*words[4:], "-o", "killed.mp4") == 2 and "--resume" in restyle.err
    assert restyle(*words[4:], "-o", "killed.mp4", "--resume", "--alpha", "0.5") == 78 and "alpha" in restyle.err
    assert restyle(*words[4:], "-o", "killed.mp4", "--resume") == 0, restyle.err
    assert restyle(*words[4:], "-o", "whole.mp4") == 0
    assert (folder / "killed.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()
    assert not list(folder.glob(".*.film"))


def test_begin_anew(restyle, clips, folder, monkeypatch):
    left = folder / ".out.mp4.film"
    leave_segments(restyle, clips, monkeypatch)
    assert (left / "state.safetensors").exists()
    assert restyle(clips["ntsc"], "--overwrite", "-o", "out.mp4") == 0, restyle.err
    assert len(list(video.read(folder / "out.mp4"))) == 24 and not left.exists()


def leave_segments(restyle, clips, monkeypatch) -> None:
    """Stop a run in its second segment."""
    from styletools import errors
    from styletools.engine import mux

    real = mux.Writer.__exit__
    done = []

    def ends(self, *error):
        done.append(1)
        if len(done) == 2 and error[0] is None:
            real(self, errors.TryAgain, errors.TryAgain("full"), None)
            raise errors.TryAgain("full")
        return real(self, *error)

    monkeypatch.setattr(mux.Writer, "__exit__", ends)
    assert restyle(clips["ntsc"], "--segment", "5", "-o", "out.mp4") == 75
    monkeypatch.setattr(mux.Writer, "__exit__", real)
    assert "5 frames are kept" in restyle.err


def test_one_process_makes_a_film(restyle, clips, folder):
    from styletools.engine import film

    segments = film.Segments(folder / "out.mp4", {}, resume=False, overwrite=False)
    assert restyle(clips["one"], "-o", "out.mp4") == 75 and "another process" in restyle.err
    with segments:
        pass
    assert restyle(clips["one"], "-o", "out.mp4") == 0


def test_what_came_before_the_damage_is_saved(restyle, ffmpeg, folder):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10", "-t", "3", "-g", "5", folder / "all.mkv")
    data = (folder / "all.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert restyle("cut.mkv", "-o", "out.mp4") == 65
    assert "out.partial.mp4" in restyle.err and restyle.err.count("\n") == 1, restyle.err
    assert not (folder / "out.mp4").exists() and not list(folder.glob(".*.film"))
    assert 0 < len(list(video.read(folder / "out.partial.mp4"))) < 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk(restyle, clips, folder):
    (folder / "small").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder / "small"], check=False)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        assert restyle(clips["ntsc"], "--segment", "2", "--crf", "0", "-o", "small/out.mp4") == 75
        lines = restyle.err.splitlines()
        assert "no space left" in lines[-1].lower() and len(lines) <= 2
        assert not (folder / "small/out.mp4").exists()
    finally:
        subprocess.run(["umount", folder / "small"], check=True)


def test_a_closed_pipe(sh, clips, live_model, restyle):
    done = sh(f"st-video -m {live_model} -s s.png {clips['ntsc']} | head -c 100 > /dev/null; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 141 and done.stderr == b""


# ---- contact sheets, progress -----------------------------------------------------------------------------


def test_a_contact_sheet(restyle, clips, folder):
    assert restyle(clips["ntsc"], "--preview", "4", "-o", "sheet.png") == 0, restyle.err
    assert os.listdir(folder).count("sheet.png") == 1 and not list(folder.glob("*.mp4"))
    sheet = pixels(folder / "sheet.png")
    assert sheet.shape[0] % 128 == 0 and sheet.shape[1] % 96 == 0 and sheet.shape[0] * sheet.shape[1] == 8 * 64 * 96
    frames = [frame.image.array for frame in video.read(clips["ntsc"])]
    assert min(np.abs(sheet[:64, :96].astype(float) - frame).mean() for frame in frames) < 1  # of the source, above
    assert restyle(clips["ntsc"], "--preview", "2", "-o", "film.mp4") == 0, restyle.err
    assert (folder / "film.preview.png").exists() and len(list(video.read(folder / "film.mp4"))) == 24


def test_progress_as_json(restyle, clips):
    assert restyle("--json", clips["ntsc"], "-o", "out.mp4") == 0
    events = [json.loads(line) for line in restyle.err.splitlines()]
    assert events[-1]["done"] == events[-1]["total"] == 24 and {"rate", "eta"} <= set(events[-1])


# ---- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, status, told", [
    (["gone.mp4", "-o", "x.mp4"], 66, "gone.mp4"),
    (["s.png", "-o", "x.doc"], 2, "x.doc"),
    (["s.png", "-o", "x.png"], 2, "--preview"),
    (["s.png", "-o", "."], 2, "folder"),
    (["s.png", "-o", "x.mp4", "--codec", "nope"], 2, "nope"),
    (["s.png", "-o", "x.mp4", "-e", "nope=1"], 2, "nope"),
    (["s.png", "-o", "x.mp4", "-e", "nope"], 2, "KEY=VALUE"),
    (["s.png", "-o", "x.mp4", "--start", "soon"], 2, "--start soon"),
    (["s.png", "-o", "x.mp4", "--rate", "0"], 2, "--rate 0"),
    (["s.png", "-o", "x.mp4", "--steady", "nan"], 2, "--steady"),
    (["s.png", "-o", "x.mp4", "--resume", "--overwrite"], 2, "--overwrite"),
    (["s.png", "-o", "x-%d.png", "--crf", "3"], 2, "--crf"),
    (["s.png", "-o", "s.png/x.mp4"], 73, "s.png"),
    (["-o", "x.mp4", "--preview", "2"], 2, "--preview"),
    (["broken.mp4", "-o", "x.mp4"], 65, "broken.mp4"),
    (["s.png", "-o", "x.mp4", "--duration", "0"], 2, "--duration 0"),
    (["s.png", "--start", "9"], 65, "no frame"),
    (["s.png", "--start", "9", "-o", "x-%d.png"], 65, "no frame"),
    (["s.png", "--preview", "2"], 2, "--preview"),
    (["s.png", "-o", "x%d.mp4"], 2, "%d"),
    (["s.png", "-o", "pipe.mp4"], 2, "regular file"),
    (["s.png", "-o", "x.mp4", "--codec", "copy"], 2, "copy"),
    (["s.png", "-o", "x.mp4", "-e", "vf=hflip"], 2, "vf"),
    (["s.png", "-o", "x.mp4", "--max-pixels", "10"], 65, "10"),
])  # fmt: skip
def test_errors_are_one_line(restyle, folder, words, status, told):
    (folder / "broken.mp4").write_bytes(b"no film")
    os.mkfifo(folder / "pipe.mp4")
    assert restyle(*words) == status, restyle.err
    assert told in restyle.err and restyle.err.count("\n") == 1, restyle.err
    assert not [name for name in os.listdir(folder) if name.startswith(("x", ".x"))]


def test_a_file_where_a_stream_belongs(restyle, clips):
    assert restyle("-o", "x.mp4", stdin=clips["one"].read_bytes()) == 65
    assert "y4m" in restyle.err and restyle.err.count("\n") == 1


@pytest.mark.parametrize("program", ["/nonexistent", "."])
def test_without_ffmpeg(restyle, clips, folder, monkeypatch, program):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    assert restyle(clips["one"], "-o", "x.mp4") == 69
    assert "no ffmpeg" in restyle.err and restyle.err.count("\n") == 1 and not (folder / "x.mp4").exists()


def test_styles_with_and_without_times(restyle, clips):
    assert restyle(clips["one"], "-o", "x.mp4", style="s.png@1s,t.png") == 2 and "t.png" in restyle.err
    assert restyle(clips["one"], "-o", "x.mp4", style="s.png@soon") == 2 and "soon" in restyle.err


def test_a_film_is_not_written_over_itself(restyle, clips, folder):
    shutil.copy(clips["one"], folder / "a.mp4")
    assert restyle("a.mp4", "-o", "a.mp4") == 2 and "itself" in restyle.err


def test_after_the_end(restyle, clips, folder):
    assert restyle(clips["ntsc"], "--start", "1:00", "-o", "x.mp4") == 65 and restyle.err.count("\n") == 1
    assert not (folder / "x.mp4").exists()


def test_a_file_whose_name_has_an_at(restyle, clips, folder):
    shutil.copy(folder / "s.png", folder / "s@2s.png")
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        assert restyle(clips["one"], "-o", "x-%d.png", style="s@2s.png") == 0, restyle.err
