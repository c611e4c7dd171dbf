"""Reading videos: clips that ffmpeg makes, whole, turned, cut off, and left early."""

import gc
import subprocess
import sys

import numpy as np
import pytest

from styletools import errors
from styletools.engine import video

COLOURS = [(200, 30, 30), (30, 180, 40), (40, 60, 220), (220, 210, 60)]


@pytest.fixture(scope="module")
def ffmpeg():
    """Run ffmpeg with arguments and input."""
    import imageio_ffmpeg

    def run(*arguments, data=None):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
        subprocess.run(command, input=data, capture_output=True, check=True, timeout=60)

    return run


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
    assert [child.poll() for child in children] == [0]


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
    children[0].kill()
    with pytest.raises(errors.DataError, match=r"long\.mp4: "):
        list(reading)


@pytest.mark.parametrize("leave", ["close", "forget", "raise"])
def test_ffmpeg_ends_with_the_iterator(long_clip, children, leave):
    reading = video.frames(long_clip)
    next(reading)
    assert children[0].poll() is None
    if leave == "close":
        reading.close()
    elif leave == "raise":
        with pytest.raises(KeyboardInterrupt):
            reading.throw(KeyboardInterrupt)
    del reading
    gc.collect()
    assert children[0].poll() is not None


def test_extensions():
    assert all(map(video.is_video, ("a.mp4", "b/c.MKV", "x.y.webm", "a.gif")))
    assert not any(map(video.is_video, ("a.png", "mp4", "a.mp4.txt", "", "folder/")))


def test_importing_it_is_cheap():
    program = (
        "import sys; from styletools.engine import video; video.is_video('a.mp4');"
        "sys.exit(bool({'torch', 'imageio_ffmpeg', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
