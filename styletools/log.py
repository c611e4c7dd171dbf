"""What commands say on standard error: one line an event, JSON lines with --json, progress on a terminal.

Standard library only.
"""

import json
import os
import sys
import time

_state = {"program": "styletools", "json": False, "quiet": False, "verbose": False, "on_bar": False}


def setup(program: str, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
    """Set how this process reports: `program` starts every line, the rest are the options of that name."""
    _state.update(program=program, json=as_json, quiet=quiet, verbose=verbose, on_bar=False)


def verbose() -> bool:
    """Tell whether -v was given."""
    return bool(_state["verbose"])


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads our complaints: there is nobody to complain to


def printable(text: str) -> str:
    """Return text as one line; what would drive the terminal, or is no character, becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text.replace("\n", " "))


def _emit(level: str, message: str, fields: dict) -> None:
    if _state["json"]:
        event = {"time": round(time.time(), 3), "level": level, "program": _state["program"], "message": message}
        _write(json.dumps(event | fields, ensure_ascii=False, default=str) + "\n")
        return
    clear = "\r\x1b[K" if _state["on_bar"] else ""
    _state["on_bar"] = False
    word = f"{level}: " if level == "warning" else ""
    _write(f"{clear}{_state['program']}: {word}{printable(message)}\n")


def error(message: str, **fields) -> None:
    """Report what failed. `fields` appear in the JSON form only (record=..., status=...)."""
    _emit("error", message, fields)


def warning(message: str, **fields) -> None:
    """Report what was done otherwise than asked, or may surprise."""
    if not _state["quiet"] or _state["json"]:
        _emit("warning", message, fields)


def info(message: str, **fields) -> None:
    """Report an event: always as JSON, as text only with -v, so that cron mails nothing on success."""
    if _state["json"] or _state["verbose"]:
        _emit("info", message, fields)


def progress_is_shown() -> bool:
    """Tell whether progress goes to the terminal: standard error is one, and neither -q nor --json is given."""
    if _state["quiet"] or _state["json"] or os.environ.get("TERM") == "dumb":
        return False
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def duration(seconds: float) -> str:
    """Return seconds as people write them: 42s, 3m07s, 2h05m."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"


class Progress:
    """A line that counts what is done, its rate and the time left: on a terminal only, redrawn in place.

    With --json, `update` reports an event at most once a second instead. `total` may be None (a pipe). What was done
    before, in an earlier run, is `begun`: it counts, but not for the rate.
    """

    def __init__(self, total: int | None = None, unit: str = "image", begun: int = 0):
        self.total, self.unit, self.done, self.begun = total, unit, begun, begun
        self.start = self.drawn = time.monotonic()
        self.shown = progress_is_shown()

    def update(self, done: int | None = None, note: str = "", **fields) -> None:
        """Say that `done` units are finished (default: one more). `note` is shown, `fields` go to JSON."""
        self.done = self.done + 1 if done is None else done
        now = time.monotonic()
        last = self.total is not None and self.done >= self.total
        interval = 0.1 if self.shown else 1.0
        if not (self.shown or _state["json"]) or (now - self.drawn < interval and not last):
            return
        self.drawn = now
        rate = (self.done - self.begun) / max(now - self.start, 1e-6)
        left = (self.total - self.done) / rate if self.total is not None and rate > 0 else None
        if _state["json"]:
            event = {"done": self.done, "total": self.total, "rate": round(rate, 3), "eta": left and round(left, 1)}
            _emit("progress", note or f"{self.done} {self.unit}s", event | fields)
            return
        count = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        speed = f"{rate:.1f} {self.unit}s/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s/{self.unit}"
        eta = f" ETA {duration(left)}" if left else ""
        text = f"{_state['program']}: {count} {speed}{eta} {note}".rstrip()
        columns = 80
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or columns
        except (OSError, ValueError, AttributeError):
            pass
        _write("\r\x1b[K" + text[: max(columns - 1, 1)])
        _state["on_bar"] = True

    def close(self) -> None:
        """Wipe the line."""
        if self.shown and _state["on_bar"]:
            _write("\r\x1b[K")
            _state["on_bar"] = False
