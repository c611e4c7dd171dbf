"""Styles over time, contact sheets, films from pipes. What processes do with films is in tests/cli/test_st_video.py."""

import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from styletools import errors, files, streams
from styletools.engine import film, video


def record(value: float) -> dict:
    return {"code": torch.tensor([value])}


@pytest.mark.parametrize("time, value", [(-1, 1), (0, 1), (1, 1), (1.5, 2), (2, 3), (3, 3), (4, 5), (9, 5)])
def test_a_course_goes_evenly_from_key_to_key(time, value):
    course = film.Course([(4, record(5)), (1, record(1)), (2, record(3)), (3, record(3))])
    assert course.at(time)["code"].item() == pytest.approx(value)


def frame(number: int, value: int = 0) -> video.Frame:
    array = np.full((30, 40, 3), value, np.uint8)
    return video.Frame(streams.Image(array), Fraction(number, 10), Fraction(1, 10))


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_sheet_shows_frames_evenly_spread(count):
    sheet = film.Sheet(count, Fraction(9))
    taken = []
    for number in range(90):
        if sheet.wants(frame(number)):
            taken.append(number)
        sheet.add(frame(number, number), frame(number, 255 - number))
    assert len(taken) == count and all(b - a == 90 // count for a, b in zip(taken, taken[1:]))
    picture = sheet.picture().array
    assert set(np.unique(picture)) >= {*taken, *(255 - number for number in taken)}
    assert (picture[:30, :40] == taken[0]).all() and (picture[30:60, :40] == 255 - taken[0]).all()


def test_a_look_at_a_long_film_reads_little_of_it(ffmpeg, tmp_path, monkeypatch):
    """The frames shown are the same as when all are read."""
    path = tmp_path / "long.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=4", "-t", "120", "-g", "20", path)
    look = film.Look(lambda image: image, None, 0)
    sheets, counts = [], []
    real = video.read

    def read(*args, **options):
        for frame in real(*args, **options):
            counts[-1] += 1
            yield frame

    monkeypatch.setattr(video, "read", read)
    for seeks in (True, False):
        monkeypatch.setattr(film.Source, "has_seeking", seeks)
        counts.append(0)
        sheets.append(film.Sheet(3, Fraction(110)))
        source = film.open_source(str(path), start=Fraction(5), duration=Fraction(110), rate=None,
                                  limits=streams.Limits())  # fmt: skip
        film.look_through(source, look, sheets[-1])
    assert (sheets[0].picture().array == sheets[1].picture().array).all()
    assert counts[0] < 40 < 300 < counts[1]


def test_a_film_shorter_than_it_said():
    sheet = film.Sheet(4, Fraction(100))
    sheet.add(frame(0), frame(0))
    with pytest.raises(errors.DataError, match="contact sheet"):
        sheet.picture()


def test_large_frames_are_shrunk():
    sheet = film.Sheet(1, Fraction(1, 10))
    large = video.Frame(streams.Image(np.zeros((1000, 2000, 3), np.uint16)), Fraction(0), Fraction(1, 10))
    sheet.add(large, large)
    assert sheet.picture().array.shape == (2 * film.TILE // 2, film.TILE, 3)


def test_part_of_a_pipe():
    info = video.Info(40, 30, Fraction(10))
    source = film.Source(None, info, Fraction(2, 10), Fraction(3, 10), stream=(frame(i).image for i in range(9)))
    assert [each.time for each in source.frames(1)] == [Fraction(1, 10), Fraction(2, 10)]


def test_segments_say_what_differs(tmp_path):
    output = tmp_path / "x.mp4"
    with pytest.raises(RuntimeError), film.Segments(output, {"a": 1}, resume=False, overwrite=False) as segments:
        segments.next.write_bytes(b"one")
        segments.finish(7, {"x": torch.ones(2)})
        raise RuntimeError
    with film.Segments(output, {"a": 1}, resume=True, overwrite=False) as segments:
        assert (segments.count, segments.frames) == (1, 7) and segments.state()["x"].tolist() == [1, 1]
    with pytest.raises(errors.DoesNotFit, match="differs in a"):
        film.Segments(output, {"a": 2}, resume=True, overwrite=False)
    segments.paths[0].unlink()
    with pytest.raises(errors.MissingInput, match="is gone"):
        film.Segments(output, {"a": 1}, resume=True, overwrite=False)
    with film.Segments(output, {"a": 2}, resume=False, overwrite=True) as segments:
        assert not segments.count
    assert not segments.folder.exists()


def test_segments_that_are_gone_are_not_promised(tmp_path, capsys):
    with pytest.raises(RuntimeError), film.Segments(tmp_path / "x.mp4", {}, resume=False, overwrite=False) as segments:
        segments.next.write_bytes(b"one")
        segments.finish(7, {})
        shutil.rmtree(segments.folder)
        raise RuntimeError
    assert "kept" not in capsys.readouterr().err


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    with files.atomic(tmp_path / "x.mp4") as out:
        running = Path(out.name)
        dead = Path(out.name.replace(f".{os.getpid()}-", f".{ended.pid}-"))
        dead.touch()
        with film.Segments(tmp_path / "x.mp4", {}, resume=True, overwrite=False):
            assert running.exists() and not dead.exists()


def test_a_state_that_is_damaged(tmp_path):
    (tmp_path / ".x.mp4.film").mkdir()
    (tmp_path / ".x.mp4.film/state.safetensors").write_bytes(b"no state")
    with pytest.raises(errors.DataError, match="not a safetensors file.*: --overwrite begins anew"):
        film.Segments(tmp_path / "x.mp4", {}, resume=True, overwrite=False)
    with film.Segments(tmp_path / "x.mp4", {}, resume=False, overwrite=True) as segments:
        assert not segments.count
