"""Writing films: what was read, written again unchanged, is the same film, with all that it had beside its pictures."""

import dataclasses
import itertools
import os
import re
import struct
import subprocess
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from styletools import errors, streams
from styletools.engine import mux, video

QUICK = {"libx264": {"crf": 0, "options": [("preset", "ultrafast")]}, "libvpx-vp9": {"options": [("cpu-used", "8")]}}


def make(source, output, folder, *, segment=10, start=None, duration=None, **asked):
    """Write the frames of a film into another, unchanged; return the segments and how they were encoded."""
    info = video.probe(source)
    encoding = mux.plan(output, info, **asked)
    paths = []
    reading = video.read(source, info=info, start=start, duration=duration)
    for first in reading:
        paths.append(folder / f"{output.name}.{len(paths)}")
        with mux.Writer(paths[-1], info, encoding) as writer:
            for frame in itertools.chain([first], itertools.islice(reading, segment - 1)):
                writer.write(frame)
    mux.assemble(paths, source, output, encoding, info=info, start=start, duration=duration)
    return paths, encoding


def packets(ffmpeg, path, stream="0:v:0") -> list[tuple[Fraction, str]]:
    """Return the packets of a stream by ffmpeg's own list: times, in order, and checksums.

    Times count from the beginning of the file: with the sound among what is listed, ffmpeg counts so.
    """
    words = ["-map", stream, "-map", "0:a?", "-c", "copy", "-f", "framecrc", "-"]
    lines = ffmpeg("-i", path, *words).decode().splitlines()
    base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb"))
    found = [line.split(",") for line in lines if line.startswith("0,")]
    return sorted((int(fields[2]) * base, fields[5]) for fields in found)


def frame(time=0, size=(64, 48), value=90, dtype=np.uint8):
    array = np.full((size[1], size[0], 3), value, dtype)
    array[: size[1] // 2] //= 2
    return video.Frame(streams.Image(array), Fraction(time), Fraction(1, 25))


INFO = video.Info(64, 48, Fraction(25), Fraction(1, 25), "yuv420p")


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "name", ["ntsc", "uneven", "odd", "full-chroma", "ten-bit", "full-range", "bt601", "one", "late", "broadcast",
             "turned", "whole"]
)  # fmt: skip
def test_a_film_unchanged_is_the_same_film(clips, ffmpeg, tmp_path, name, extension):
    output = tmp_path / f"out.{extension}"
    _, encoding = make(clips[name], output, tmp_path, **QUICK["libx264"])
    old, new = video.probe(clips[name]), video.probe(output)
    for key in ("width", "height", "matrix", "primaries", "transfer", "is_full", "depth", "chapters"):
        assert getattr(new, key) == getattr(old, key), key
    assert (new.aspect or 1) == (old.aspect or 1)
    formats = {each.replace("yuvj", "yuv") for each in (new.pix_fmt, encoding.pix_fmt)}
    assert formats == {"yuv444p" if name == "odd" else old.pix_fmt.replace("yuvj", "yuv")}
    # Files tell hundredths of a second; Matroska counts what a decoder of sound leaves out at its beginning, too.
    assert abs(new.duration - old.duration) <= Fraction(1, 40 if name == "whole" else 100)
    wanted, found = packets(ffmpeg, clips[name]), packets(ffmpeg, output)
    assert len(found) == len(wanted)
    exact = extension == "mp4"
    assert all(abs(a - b) <= (0 if exact else Fraction(1, 2000)) for (a, _), (b, _) in zip(found, wanted))
    lossless = [each.kind for each in old.streams if each.kind != "data"]
    assert [each.kind for each in new.streams if each.kind != "data"] == lossless


@pytest.mark.parametrize("name", ["cockatoo_audio.mp4", "bikes.mp4"])
def test_colours_come_back(reference, ffmpeg, tmp_path, name):
    source, short = reference.parent / "video" / name, tmp_path / "short.mp4"
    ffmpeg("-i", source, "-t", "0.6", "-c", "copy", short)
    make(short, tmp_path / "out.mp4", tmp_path, **QUICK["libx264"])
    for before, after in zip(video.read(short), video.read(tmp_path / "out.mp4")):
        error = np.abs(before.image.array.astype(int) - after.image.array)
        assert error.mean() < 0.7 and np.quantile(error, 0.999) <= 6
        assert abs(before.image.array.mean() - after.image.array.mean()) < 0.1


@pytest.mark.parametrize("name, tolerance", [("full-chroma", 0.3), ("ten-bit", 12), ("full-range", 9), ("bt601", 6)])
def test_colours_of_tagged_films_come_back(clips, tmp_path, name, tolerance):
    """Tolerances are those of chroma subsampling, which this test picture, of pure colours, suffers from most."""
    make(clips[name], tmp_path / "out.mp4", tmp_path, **QUICK["libx264"])
    pairs = list(zip(video.read(clips[name], deep=True), video.read(tmp_path / "out.mp4", deep=True)))
    error = [np.abs(a.image.array.astype(int) - b.image.array).mean() / 257 for a, b in pairs]
    assert np.mean(error) < tolerance
    shift = [(a.image.array.astype(int) - b.image.array).mean() / 257 for a, b in pairs]
    assert abs(np.mean(shift)) < 3  # a wrong matrix or range would shift all


def test_ten_bits_are_ten_bits(tmp_path):
    """A ramp of all levels of ten bits comes back finer than eight bits could hold it."""
    info = video.Info(1024, 16, Fraction(25), Fraction(1, 25), "yuv420p10le", depth=10, range="tv", matrix="bt709")
    ramp = np.broadcast_to(np.linspace(0, 65535, 1024).astype(np.uint16)[None, :, None], (16, 1024, 3))
    encoding = mux.plan(tmp_path / "x.mkv", info, crf=0)
    with mux.Writer(tmp_path / "s", info, encoding) as writer:
        writer.write(video.Frame(streams.Image(ramp), Fraction(0), Fraction(1, 25)))
    mux.assemble([tmp_path / "s"], None, tmp_path / "x.mkv", encoding, info=info)
    (back,) = video.read(tmp_path / "x.mkv")
    assert np.abs(back.image.array.astype(int) - ramp).max() < 160  # a step of eight bits is 257


@pytest.mark.parametrize("extension, codec", [("mp4", "aac"), ("mkv", "aac"), ("webm", "opus"), ("avi", "aac")])
def test_what_is_beside_the_video_is_kept(clips, ffmpeg, tmp_path, capsys, extension, codec):
    source, output = clips["whole"], tmp_path / f"out.{extension}"
    make(source, output, tmp_path, **QUICK["libvpx-vp9" if extension == "webm" else "libx264"])
    info = video.probe(output)
    sounds = info.of_kind("audio")
    assert [each.codec for each in sounds] == [codec] * 2
    if codec == "aac":
        for number in range(2):
            wanted = [checksum for _, checksum in packets(ffmpeg, source, f"0:a:{number}")]
            assert [checksum for _, checksum in packets(ffmpeg, output, f"0:a:{number}")] == wanted
    warned = capsys.readouterr().err
    if extension == "avi":
        assert warned.count("\n") == 1 and "subtitle 3 (subrip)" in warned
        return
    assert not warned
    assert [each.language for each in sounds] == ["deu", "fra"]
    assert b"hello" in ffmpeg("-i", output, "-map", "0:s:0", "-f", "srt", "-")
    told = ffmpeg("-i", output, "-f", "ffmetadata", "-").decode()
    assert "title=My film" in told and "title=two" in told and info.chapters == 2


def test_sound_can_be_left_out(clips, tmp_path):
    paths, encoding = make(clips["whole"], tmp_path / "a.mkv", tmp_path, **QUICK["libx264"])
    mux.assemble(paths, clips["whole"], tmp_path / "b.mkv", encoding, info=video.probe(clips["whole"]), audio=False)
    assert not video.probe(tmp_path / "b.mkv").of_kind("audio")


def test_a_cover_picture_is_kept(clips, ffmpeg, tmp_path):
    cover, source = tmp_path / "cover.png", tmp_path / "source.mp4"
    ffmpeg("-i", clips["one"], "-frames:v", "1", cover)
    mapped = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:0", "attached_pic"]
    ffmpeg("-i", cover, "-i", clips["ntsc"], *mapped, source)
    make(source, tmp_path / "out.mp4", tmp_path, **QUICK["libx264"])
    assert [each.codec for each in video.probe(tmp_path / "out.mp4").streams if each.cover] == ["png"]


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_part_of_a_film_has_that_part_of_its_sound(clips, ffmpeg, tmp_path, extension):
    part = {"start": Fraction(3, 10), "duration": Fraction(3, 10)}
    output = tmp_path / f"out.{extension}"
    make(clips["whole"], output, tmp_path, **part, **QUICK["libx264"])
    assert len(packets(ffmpeg, output)) == 9
    times = [time for time, _ in packets(ffmpeg, output, "0:a:0")]
    assert 0 <= times[0] < 0.025 and 0.25 < times[-1] < 0.3
    filled = ["-map", "0:a:0", "-af", "aresample=8000:async=1:first_pts=0", "-f", "s16le", "-"]
    sounds = [ffmpeg(*cut, "-i", path, *filled) for path, cut in ((clips["whole"], ["-ss", "0.3"]), (output, []))]
    before, after = (np.frombuffer(sound, "<i2").astype(float) for sound in sounds)
    middle = before[800:1600]
    best = max(range(600, 1000), key=lambda place: middle @ after[place : place + 800])
    assert abs(best - 800) <= 8  # a millisecond
    info = video.probe(output)
    assert info.chapters == 2 and info.duration < Fraction(35, 100)


@pytest.mark.parametrize("extension", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize("late", ["sound", "picture"])
def test_sound_and_picture_that_begin_apart_stay_apart(ffmpeg, tmp_path, late, extension):
    source, output = tmp_path / f"in.{extension}", tmp_path / "out.mp4"
    offset = {late: ["-itsoffset", "0.5"]}
    picture = [*offset.get("picture", []), "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25"]
    ffmpeg(*picture, *offset.get("sound", []), "-f", "lavfi", "-i", "sine", "-t", "1.5", "-c:a", "mp2",
           "-ar", "48000", source)  # fmt: skip

    def apart(path) -> float:
        """Return by how much the picture begins after the sound, of the file's own times."""
        words = ["-copyts", "-i", path, "-map", "0:v", "-map", "0:a", "-c", "copy", "-f", "framecrc", "-"]
        lines = ffmpeg(*words).decode().splitlines()
        bases = [Fraction(line.split()[-1]) for line in lines if line.startswith("#tb")]
        first = [min(int(line.split(",")[2]) * base for line in lines if line.startswith(f"{number},"))
                 for number, base in enumerate(bases)]  # fmt: skip
        return float(first[0] - first[1])

    assert abs(apart(source)) > 0.4
    make(source, output, tmp_path, **QUICK["libx264"])
    assert apart(output) == pytest.approx(apart(source), abs=0.03)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "ffv1"])
def test_segments_leave_no_seam(clips, ffmpeg, tmp_path, codec):
    """However a film is cut, its frames and their times are the same; the same frames make the same bytes."""
    asked = QUICK.get(codec) or ({"options": [("preset", "ultrafast")]} if codec == "libx265" else {})
    for name, segment in (("a", 7), ("b", 7), ("c", 99)):
        make(clips["uneven"], tmp_path / f"{name}.mkv", tmp_path, segment=segment, codec=codec, **asked)
    a, b, c = (tmp_path / f"{name}.mkv" for name in "abc")
    assert a.read_bytes() == b.read_bytes()
    assert [time for time, _ in packets(ffmpeg, a)] == [time for time, _ in packets(ffmpeg, c)]
    assert len(list(video.read(a))) == len(list(video.read(c))) == 10
    assert not re.search(rb"Lav[cf]\d", a.read_bytes())  # no version of ffmpeg


@pytest.mark.parametrize("segment", [1, 3, 99])
@pytest.mark.parametrize("frames", [3, 7, 8, 9, 10])
def test_the_end_of_films_of_uneven_rate(tmp_path, frames, segment):
    """By the head of the file, by its frames and by what ffmpeg says, whichever frame is coded last."""
    times = [Fraction(time, 100) for time in (0, 10, 13, 40, 43, 46, 90, 93, 120, 125, 128)]
    rng, paths = np.random.default_rng(0), []
    encoding = mux.plan(tmp_path / "x.mp4", INFO, options=[("bf", "3"), ("x264-params", "b-adapt=0")])
    for first in range(0, frames, segment):
        paths.append(tmp_path / f"s{first}")
        with mux.Writer(paths[-1], dataclasses.replace(INFO, time_base=Fraction(1, 100)), encoding) as writer:
            for number in range(first, min(first + segment, frames)):
                made = rng.integers(0, 99, (48, 64, 3), dtype=np.uint8)
                writer.write(video.Frame(streams.Image(made), times[number], times[number + 1] - times[number]))
    mux.assemble(paths, None, tmp_path / "x.mp4", encoding, info=INFO)
    assert [each.time for each in video.read(tmp_path / "x.mp4")] == times[:frames]
    assert movie_seconds(tmp_path / "x.mp4") == pytest.approx(float(times[frames]), abs=0.002)
    assert abs(video.probe(tmp_path / "x.mp4").duration - times[frames]) <= Fraction(1, 100)


def test_frames_that_are_coded_out_of_order(clips, ffmpeg, tmp_path):
    options = [("preset", "ultrafast"), ("bf", "3"), ("x264-params", "b-adapt=0")]
    output = tmp_path / "out.mp4"
    make(clips["ntsc"], output, tmp_path, segment=9, options=options)
    lines = ffmpeg("-i", output, "-c", "copy", "-f", "framecrc", "-").decode().splitlines()
    order = [int(line.split(",")[2]) for line in lines if not line.startswith("#")]
    assert order != sorted(order)
    wanted = [time for time, _ in packets(ffmpeg, clips["ntsc"])]
    assert [frame.time for frame in video.read(output)] == wanted
    assert video.probe(output).duration == video.probe(clips["ntsc"]).duration
    assert movie_seconds(output) == pytest.approx(movie_seconds(clips["ntsc"]), abs=0.002)


def movie_seconds(path) -> float:
    """Return the duration that an MP4 file has in its head, which ffmpeg itself does not go by, but players show."""
    data = path.read_bytes()
    place = data.index(b"mvhd") + 4
    assert data[place] == 0
    scale, length = struct.unpack(">II", data[place + 12 : place + 20])
    return length / scale


def test_odd_sizes_are_kept(clips, tmp_path, capsys):
    for name, pix_fmt in (("out.mp4", "yuv444p"), ("out.webm", "yuv420p")):
        assert mux.plan(tmp_path / name, video.probe(clips["odd"])).pix_fmt == pix_fmt
    assert capsys.readouterr().err.count("95x63 is odd") == 1


@pytest.mark.parametrize(
    "given, wanted",
    [("yuv420p", "yuv420p"), ("yuvj422p", "yuv422p"), ("gray", "yuv420p"), ("rgb24", "yuv420p"), ("gbrp", "yuv420p"),
     ("nv12", "yuv420p"), ("p010le", "yuv420p10le"), ("yuva444p12le", "yuv444p10le"), ("yuv411p", "yuv422p")],
)  # fmt: skip
def test_pixel_formats(tmp_path, given, wanted):
    depth = {"p010le": 10, "yuva444p12le": 12}.get(given, 8)
    info = video.Info(64, 48, Fraction(25), Fraction(1, 25), given, depth)
    assert mux.plan(tmp_path / "x.mp4", info).pix_fmt == wanted


@pytest.mark.parametrize(
    "name, asked, message",
    [("x.mp4", {"codec": "nope"}, "nope"), ("x.mp4", {"options": [("nope", "1")]}, "nope"),
     ("x.mp4", {"options": [("preset", "nope")]}, "nope"), ("x.mp4", {"codec": "ffv1", "crf": 3}, "crf"),
     ("x.mp4", {"options": [("f mp4", "1")]}, "f mp4"), ("x.webm", {"codec": "libx264"}, "VP8 or VP9"),
     ("x.txt", {}, "not a film"), ("x.gif", {"crf": 3}, "animation")],
)  # fmt: skip
def test_what_does_not_fit_is_found_before_work_begins(tmp_path, name, asked, message):
    with pytest.raises(errors.UsageError, match=message) as raised:
        mux.plan(tmp_path / name, INFO, **asked)
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("extension", ["gif", "webp"])
def test_animations(clips, tmp_path, extension):
    pictures = [PIL.Image.new("RGB", (32, 24), colour) for colour in ((200, 30, 30), (30, 180, 40), (40, 60, 220))]
    source = tmp_path / f"a.{extension}"
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[100, 250, 150])
    for output in (tmp_path / f"b.{extension}", tmp_path / "b.mp4"):
        make(source, output, tmp_path, segment=2)
        before, after = list(video.read(source)), list(video.read(output))
        assert [each.time for each in after] == [each.time for each in before]
        assert abs(video.probe(output).duration - Fraction(1, 2)) <= Fraction(1, 100)
        for old, new in zip(before, after):
            assert np.abs(old.image.array.astype(int) - new.image.array).mean() < 5


def test_numbered_pictures(tmp_path):
    pattern = tmp_path / "frame-%04d.png"
    with mux.Pictures(pattern) as writer:
        for number in range(3):
            writer.write(frame(number, value=60 + 10 * number))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"frame-{number:04}.png" for number in (1, 2, 3)]
    assert [each.image.array.max() for each in video.read(pattern)] == [60, 70, 80]
    with pytest.raises(errors.UsageError, match="this is not the extension"):
        mux.Pictures(tmp_path / "x%d.txt")


def test_the_shape_of_a_pixel_is_kept_exactly(ffmpeg, tmp_path):
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25,setsar=118/81:max=1000", "-frames:v", "1", source)
    make(source, output, tmp_path, **QUICK["libx264"])
    assert video.probe(source).aspect == video.probe(output).aspect == Fraction(118, 81)


def test_frames_that_cannot_be_written(tmp_path):
    encoding = mux.plan(tmp_path / "x.mp4", INFO)
    with pytest.raises(errors.DataError, match="50x48"), mux.Writer(tmp_path / "s", INFO, encoding) as writer:
        writer.write(frame(size=(50, 48)))
    with pytest.raises(ValueError, match="after one"), mux.Writer(tmp_path / "s", INFO, encoding) as writer:
        writer.write(frame(1))
        writer.write(frame(1))
    assert not list(tmp_path.iterdir())


def test_a_segment_appears_when_it_is_complete(tmp_path):
    encoding = mux.plan(tmp_path / "x.mp4", INFO)
    with pytest.raises(KeyboardInterrupt), mux.Writer(tmp_path / "s", INFO, encoding) as writer:
        for number in range(50):
            writer.write(frame(Fraction(number, 25)))
        raise KeyboardInterrupt
    assert writer._process.poll() is not None and not list(tmp_path.iterdir())


def test_ffmpeg_that_dies_is_an_error(tmp_path):
    encoding = mux.plan(tmp_path / "x.mp4", INFO)
    with pytest.raises(errors.InputOutputError), mux.Writer(tmp_path / "s", INFO, encoding) as writer:
        writer._process.kill()
        for number in range(200):
            writer.write(frame(Fraction(number, 25)))
    assert not list(tmp_path.iterdir())


def test_a_film_that_cannot_be_created(clips, tmp_path):
    paths, encoding = make(clips["ntsc"], tmp_path / "a.mp4", tmp_path, **QUICK["libx264"])
    info = video.probe(clips["ntsc"])
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for output in (tmp_path / "folder.mp4", tmp_path / "file/b.mp4"):
        with pytest.raises(errors.CannotCreate, match=re.escape(str(output))):
            mux.assemble(paths, clips["ntsc"], output, encoding, info=info)
    with pytest.raises(errors.MissingInput, match="gone"):
        mux.assemble([tmp_path / "gone"], clips["ntsc"], tmp_path / "b.mp4", encoding, info=info)
    assert not list(tmp_path.glob(".*.part")) and not (tmp_path / "b.mp4").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(clips, tmp_path, small_disk):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    encoding = mux.plan(tmp_path / "x.mp4", INFO, crf=0)
    shots = [video.Frame(streams.Image(each), Fraction(i, 25), Fraction(1, 25)) for i, each in enumerate(noise)]
    full = pytest.raises(errors.TryAgain, match=r"(s|mp4): no space left on device$")
    with full, mux.Writer(small_disk / "s", INFO, encoding) as writer:
        for each in shots:
            writer.write(each)
    assert not list(small_disk.iterdir())
    with mux.Writer(tmp_path / "s", INFO, encoding) as writer:
        for each in shots:
            writer.write(each)
    with full:
        mux.assemble([tmp_path / "s"], None, small_disk / "x.mp4", encoding, info=INFO)
    assert not list(small_disk.iterdir())
