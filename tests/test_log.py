"""What is said on standard error, and when nothing is."""

import io
import json
import sys

import pytest

from styletools import log


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def restored():
    yield
    log.setup("styletools")


@pytest.mark.parametrize(("begun", "rate"), [(0, 0.101), (100, 0.001)])
def test_what_was_done_before_counts_but_not_for_the_rate(begun, rate, capsys):
    log.setup("st-train", as_json=True)
    progress = log.Progress(101, "step", begun=begun)
    progress.start -= 1000
    progress.update(101)
    event = json.loads(capsys.readouterr().err)
    assert event["done"] == 101 and event["rate"] == pytest.approx(rate, rel=0.02)


def test_one_line_an_event(capsys):
    log.setup("st-apply")
    log.error("a.png: no such file", status=66)
    log.warning("odd")
    log.info("nobody asked")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "st-apply: a.png: no such file\nst-apply: warning: odd\n"


def test_quiet_silences_warnings_but_no_errors(capsys):
    log.setup("st-apply", quiet=True)
    log.warning("odd")
    log.error("bad")
    assert capsys.readouterr().err == "st-apply: bad\n"


def test_verbose_shows_information(capsys):
    log.setup("st-apply", verbose=True)
    log.info("step 3")
    assert capsys.readouterr().err == "st-apply: step 3\n"
    assert log.verbose()


def test_names_cannot_break_lines_or_drive_the_terminal(capsys):
    log.setup("st-apply")
    log.error("a\nb\x1b[31m\r.png: bad")
    assert capsys.readouterr().err == "st-apply: a b?[31m?.png: bad\n"


def test_json_lines(capsys):
    log.setup("st-apply", as_json=True, quiet=True)
    log.error("schön\n", status=65, record="a.png")
    log.warning("odd")
    log.info("fine")
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["level"] == "error" and first["message"] == "schön\n" and first["program"] == "st-apply"
    assert first["status"] == 65 and first["record"] == "a.png" and first["time"] > 1e9
    assert (second["level"], third["level"]) == ("warning", "info")


def test_closed_stderr_is_no_reason_to_fail(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    log.error("nobody hears this")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (42.9, "42s"), (187, "3m07s"), (7500, "2h05m"), (360000, "100h00m")]
)
def test_duration(seconds, text):
    assert log.duration(seconds) == text


def test_no_progress_without_a_terminal(capsys):
    log.setup("st-apply")
    progress = log.Progress(3)
    for _ in range(3):
        progress.update()
    progress.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_on_a_terminal(monkeypatch, quiet):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    log.setup("st-apply", quiet=quiet)
    progress = log.Progress(2, "image")
    progress.update()
    progress.update(note="a.png")
    log.error("bad")
    progress.close()
    text = stream.getvalue()
    if quiet:
        assert text == "st-apply: bad\n"
    else:
        assert "st-apply: 2/2 " in text and "a.png" in text
        assert text.endswith("\r\x1b[Kst-apply: bad\n"), "a message wipes the line of progress first"


def test_progress_as_json(capsys):
    log.setup("st-train", as_json=True)
    progress = log.Progress(5, "step")
    for _ in range(5):
        progress.update(loss=0.5)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert events[-1]["level"] == "progress" and events[-1]["done"] == 5 and events[-1]["loss"] == 0.5
    assert len(events) == 1, "at most one event a second, and the last"


def test_dumb_terminal_gets_no_progress(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    log.setup("st-apply")
    assert not log.progress_is_shown()
