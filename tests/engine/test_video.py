"""Reading videos: clips that ffmpeg makes, whole, turned, cut off, and left early; their times and what they tell."""

import gc
import io
import os
import queue
import subprocess
import sys
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from styletools import errors
from styletools.engine import video

COLOURS = [(200, 30, 30), (30, 180, 40), (40, 60, 220), (220, 210, 60)]


@pytest.fixture(scope="module")
def clip(ffmpeg, tmp_path_factory):
    """A clip of four colours, 48 wide and 32 high, its left half darker."""
    frames = np.empty((4, 32, 48, 3), np.uint8)
    frames[:] = np.array(COLOURS, np.uint8)[:, None, None]
    frames[:, :, :24] //= 2
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "48x32", "-r", "10", "-i", "-"]
    ffmpeg(*raw, "-pix_fmt", "yuv420p", "-movflags", "+faststart", path, data=frames.tobytes())
    return path


@pytest.fixture(scope="module")
def long_clip(ffmpeg, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-t", "4", "-movflags", "+faststart", path)
    return path


@pytest.fixture
def children(monkeypatch):
    """The processes that are started."""
    started = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def test_frames_in_order(clip, children):
    found = list(video.frames(clip))
    assert [frame.name for frame in found] == ["000001", "000002", "000003", "000004"]
    assert [frame.index for frame in found] == [0, 1, 2, 3]
    for frame, colour in zip(found, COLOURS):
        assert frame.array.shape == (32, 48, 3) and frame.array.dtype == np.uint8
        assert np.abs(frame.array[8:-8, 32:40].mean((0, 1)) - colour).max() < 12
        assert np.abs(frame.array[8:-8, 8:16].mean((0, 1)) - np.array(colour) / 2).max() < 12
    assert {child.poll() for child in children} == {0}


@pytest.mark.parametrize("extension", ["mkv", "mov", "webm", "avi", "gif"])
def test_containers(clip, ffmpeg, tmp_path, extension):
    path = tmp_path / f"clip.{extension}"
    ffmpeg("-i", clip, *(["-deadline", "realtime"] if extension == "webm" else []), path)
    assert video.is_video(path)
    found = list(video.frames(path))
    assert len(found) == 4 and found[0].array.shape == (32, 48, 3)
    assert np.abs(found[2].array[8:-8, 32:40].mean((0, 1)) - COLOURS[2]).max() < 25


def test_a_turned_video_stands_upright(clip, ffmpeg, tmp_path):
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", clip, "-c", "copy", path)
    (frame, *_) = video.frames(path)
    assert frame.array.shape == (48, 32, 3)
    top, bottom = frame.array[4:20].mean(), frame.array[-20:-4].mean()
    assert max(top, bottom) > 1.6 * min(top, bottom)  # the dark half is now above or below


def test_frames_come_once_whatever_their_times(clip, ffmpeg, tmp_path):
    path = tmp_path / "uneven.mkv"
    ffmpeg("-i", clip, "-vf", "setpts='N*N*0.5/TB'", "-fps_mode", "passthrough", path)
    assert len(list(video.frames(path))) == 4


def test_names_that_look_like_something_else(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "pipe:0.mp4", "with space %d é.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert len(list(video.frames(name))) == 4


@pytest.mark.parametrize("data", [b"", b"this is no video\n" * 99, bytes(5000)], ids=["empty", "text", "zeros"])
def test_what_is_no_video(data, tmp_path, children):
    path = tmp_path / "bad.mp4"
    path.write_bytes(data)
    with pytest.raises(errors.DataError) as raised:
        list(video.frames(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "0x" not in message
    assert all(child.poll() is not None for child in children)


def test_sound_alone_has_no_frames(ffmpeg, tmp_path):
    path = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=440", "-t", "0.2", path)
    with pytest.raises(errors.DataError, match=r"sound\.mp4: .+"):
        list(video.frames(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(errors.MissingInput, match=r"gone\.mp4: no such file"):
        next(video.frames(tmp_path / "gone.mp4"))
    with pytest.raises(errors.DataError, match="directory"):
        next(video.frames(tmp_path))


def test_a_cut_off_video_does_not_end_in_silence(long_clip, tmp_path, capsys):
    path = tmp_path / "cut.mp4"
    path.write_bytes(long_clip.read_bytes()[: long_clip.stat().st_size // 2])
    count = 0
    for _ in video.frames(path):
        count += 1
    assert 10 < count < 90
    assert capsys.readouterr().err.count("cut.mp4: ") == 1


def test_ffmpeg_that_dies_is_an_error(long_clip, children):
    reading = video.frames(long_clip)
    next(reading)
    children[-1].kill()
    with pytest.raises(errors.DataError, match=r"long\.mp4: "):
        list(reading)


@pytest.mark.parametrize("leave", ["close", "forget", "raise"])
def test_ffmpeg_ends_with_the_iterator(long_clip, children, leave):
    reading = video.frames(long_clip)
    next(reading)
    assert children[-1].poll() is None
    if leave == "close":
        reading.close()
    elif leave == "raise":
        with pytest.raises(KeyboardInterrupt):
            reading.throw(KeyboardInterrupt)
    del reading
    gc.collect()
    assert children[-1].poll() is not None


PROBED = {
    "ntsc": {"width": 96, "height": 64, "rate": Fraction(30000, 1001), "pix_fmt": "yuv420p", "aspect": 1},
    "odd": {"width": 95, "height": 63, "pix_fmt": "yuv420p"},
    "turned": {"width": 64, "height": 96},
    "full-chroma": {"pix_fmt": "yuv444p", "time_base": Fraction(1, 1000)},
    "ten-bit": {"depth": 10, "pix_fmt": "yuv420p10le", "matrix": "bt2020nc", "primaries": "bt2020",
                "transfer": "arib-std-b67", "coefficients": "bt2020"},
    "full-range": {"is_full": True, "matrix": "bt709", "aspect": Fraction(4, 3), "coefficients": "bt709"},
    "bt601": {"is_full": False, "matrix": "smpte170m", "coefficients": "bt601", "pix_fmt": "yuv422p"},
    "uneven": {"time_base": Fraction(1, 30000)},
    "late": {"start": Fraction(1001, 5000), "duration": 1},
    "whole": {"chapters": 2, "duration": Fraction(41, 50)},
}  # fmt: skip


@pytest.mark.parametrize("name", PROBED)
def test_probe(clips, name):
    info = video.probe(clips[name])
    assert {key: getattr(info, key) for key in PROBED[name]} == PROBED[name]


def test_probe_tells_what_is_beside_the_video(clips, ffmpeg, tmp_path):
    info = video.probe(clips["whole"])
    assert [(each.codec, each.language) for each in info.of_kind("audio")] == [("aac", "deu"), ("aac", "fra")]
    assert [each.codec for each in info.of_kind("subtitle")] == ["subrip"]
    cover = tmp_path / "cover.png"
    ffmpeg("-i", clips["one"], "-frames:v", "1", cover)
    both = tmp_path / "both.mp4"
    mapped = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:0", "attached_pic"]
    ffmpeg("-i", cover, "-i", clips["ntsc"], *mapped, both)
    info = video.probe(both)
    assert sorted(each.cover for each in info.streams) == [False, True] and not info.streams[info.index].cover
    assert len(list(video.read(both))) == 24


def test_what_is_not_told_is_guessed_as_players_do():
    small = video.Info(720, 576, Fraction(25))
    assert small.coefficients == "bt601" and video.Info(1280, 720, Fraction(25)).coefficients == "bt709"


def test_what_is_no_film_is_called_so(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello there\n")
    os.mkfifo(tmp_path / "pipe.mp4")
    told = {"empty": "is empty", "text": r"not a video, .*\(moov atom not found\)", "pipe": "is a pipe"}
    for name, message in told.items():
        with pytest.raises(errors.DataError, match=rf"{name}\.mp4: {message}") as raised:
            video.probe(tmp_path / f"{name}.mp4")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["ntsc", "uneven", "late", "broadcast", "one", "full-chroma"])
def test_times_are_those_of_the_file(clips, ffmpeg, name):
    """What ffmpeg's own list of packets says, from the beginning of the file on."""
    words = ["-map", "0:v", "-map", "0:a?", "-c", "copy", "-f", "framecrc", "-"]  # the sound may begin before
    lines = ffmpeg("-i", clips[name], *words).decode().splitlines()
    base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb"))
    wanted = sorted(int(line.split(",")[2]) * base for line in lines if line.startswith("0,"))
    found = list(video.read(clips[name]))
    assert [frame.time for frame in found] == wanted
    assert all(before.end <= after.time for before, after in zip(found, found[1:])) or name == "uneven"


def test_deep_colours_stay_deep(clips):
    frame = next(video.read(clips["ten-bit"]))
    assert frame.image.array.dtype == np.uint16 and frame.image.array.max() > 60000
    assert len(np.unique(frame.image.array)) > 300
    assert next(video.read(clips["ten-bit"], deep=False)).image.array.dtype == np.uint8


def test_a_part_of_a_video(clips):
    whole = list(video.read(clips["ntsc"]))
    part = list(video.read(clips["ntsc"], start=Fraction(3, 10), duration=Fraction(1, 4)))
    wanted = [frame for frame in whole if Fraction(3, 10) <= frame.time < Fraction(11, 20)]
    assert len(part) == len(wanted) == 8
    for frame, same in zip(part, wanted):
        assert abs(frame.time - (same.time - Fraction(3, 10))) < Fraction(1, 15000)
        assert np.array_equal(frame.image.array, same.image.array)
    later = list(video.read(clips["ntsc"], skip=20))
    assert [frame.time for frame in later] == [frame.time for frame in whole[20:]]
    assert later[0].image.name == "000021" and np.array_equal(later[0].image.array, whole[20].image.array)
    assert not list(video.read(clips["ntsc"], skip=24))


def test_errors_in_the_midst_of_a_line_are_heard():
    """ffmpeg's threads write into each other's lines, and then leave out what they are and how bad it is."""
    frame = "[showinfo @ 0x1] [info] n:   0 pts:      3 pts_time:0.12 duration:  1 fmt:gray s:4x4 type:I {}\n"
    colour = "[showinfo @ 0x1] [info] color_range:tv color_space:bt709{}\n"
    for lines in ((frame.format("It ended"), colour.format("")), (frame.format(""), colour.format(" It ended"))):
        said = "[showinfo @ 0x1] [info] config in time_base: 1/25, frame_rate: 25/1\n" + "".join(lines)
        times, complaints, muffled = queue.Queue(), [], []
        video._listen(io.BytesIO(said.encode()), times, complaints, muffled)
        assert [times.get(), times.get()] == [(Fraction(3, 25), Fraction(1, 25)), None]
        assert (complaints, muffled) == ([], ["It ended"])


@pytest.mark.parametrize("extension", ["mp4", "mkv", "avi"])
def test_a_source_that_ends_early(long_clip, ffmpeg, tmp_path, extension):
    whole, path = tmp_path / f"whole.{extension}", tmp_path / f"cut.{extension}"
    ffmpeg("-i", long_clip, *(["-movflags", "+faststart"] if extension == "mp4" else []), whole)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    count = 0
    with pytest.raises(errors.DataError, match=rf"cut\.{extension}: ") as raised:
        for _ in video.read(path):
            count += 1
    assert 10 < count < 90 and "\n" not in str(raised.value) and "0x" not in str(raised.value)[-12:]


def test_a_broken_place_is_a_warning(ffmpeg, long_clip, tmp_path, capsys):
    path = tmp_path / "broken.avi"
    ffmpeg("-i", long_clip, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(range(256)) + bytes(44)
    path.write_bytes(data)
    assert len(list(video.read(path))) >= 95
    assert capsys.readouterr().err.count("broken.avi: ") == 1


def test_numbered_pictures(tmp_path):
    for number, colour in ((3, 10), (4, 20), (10, 30)):
        PIL.Image.new("RGB", (5, 4), (colour, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "fx.png").touch()
    pattern = tmp_path / "f%d.png"
    found = list(video.read(pattern, rate=Fraction(10)))
    assert [int(frame.image.array[0, 0, 0]) for frame in found] == [10, 20, 30]
    assert [frame.time for frame in found] == [0, Fraction(1, 10), Fraction(1, 5)]
    assert video.probe(pattern, rate=Fraction(10)).duration == Fraction(3, 10)
    with pytest.raises(errors.MissingInput, match="no such files"):
        next(video.read(tmp_path / "g%d.png"))


@pytest.mark.parametrize("extension", ["gif", "webp"])
def test_animations_keep_their_times(tmp_path, extension):
    pictures = [PIL.Image.new("RGB", (8, 6), colour) for colour in COLOURS]
    path = tmp_path / f"a.{extension}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 250, 40, 100], lossless=True)
    found = list(video.read(path))
    assert [frame.time for frame in found] == [0, Fraction(1, 10), Fraction(7, 20), Fraction(39, 100)]
    assert video.probe(path).duration == found[-1].end == Fraction(49, 100)
    for frame, colour in zip(found, COLOURS):
        assert np.abs(frame.image.array.astype(int) - colour).max() <= 1


def test_extensions():
    assert all(map(video.is_video, ("a.mp4", "b/c.MKV", "x.y.webm", "a.gif")))
    assert not any(map(video.is_video, ("a.png", "mp4", "a.mp4.txt", "", "folder/")))


def test_importing_it_is_cheap():
    program = (
        "import sys; from styletools.engine import video; video.is_video('a.mp4');"
        "sys.exit(bool({'torch', 'imageio_ffmpeg', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
