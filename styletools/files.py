"""Paths and files: atomic writing, make's rule, and where things are kept. Standard library only."""

import atexit
import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from styletools import errors

_unfinished: set[str] = set()


@contextlib.contextmanager
def atomic(path: str | os.PathLike, *, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file that appears under `path` only when the block ends without an exception.

    The bytes go to a hidden temporary file in the same folder, which is created where missing, and `os.replace` puts
    it into place, with the permissions of the file that it replaces. On any exception the temporary file is removed and
    an older `path` stays as it was. Where `path` exists and is no regular file (a pipe, /dev/null), it is written
    directly. `sync` flushes to the disk first, for files that took hours to make.
    Raises CannotCreate, NotPermitted or TryAgain when the file cannot be made.
    """
    path = os.fspath(path)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = None
    special = mode is not None and not stat.S_ISREG(mode)
    if special and not os.path.isdir(path):
        try:
            with open(path, "wb") as out:
                yield out
        except BrokenPipeError:
            raise
        except OSError as error:
            raise errors.from_os_error(error, path, output=True) from error
        return
    target = os.path.realpath(path)
    folder, base = os.path.split(target)
    # The name starts with a dot, so that globs and folder walks do not take it for a result; it is cut, since systems
    # limit names in bytes.
    start = os.fsencode(base)[:150].decode(errors="ignore")
    temporary = os.path.join(folder, f".{start}.{_host()}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        os.makedirs(folder, exist_ok=True)
        if os.path.isdir(target):
            raise errors.CannotCreate(f"{path}: is a directory")
        out = open(temporary, "xb")  # noqa: SIM115 - closed below, before the rename
    except OSError as error:
        raise errors.from_os_error(error, path, output=True) from error
    _unfinished.add(temporary)
    try:
        yield out
        out.flush()
        if mode is not None:
            os.fchmod(out.fileno(), stat.S_IMODE(mode))
        if sync:
            os.fsync(out.fileno())
        out.close()
        os.replace(temporary, target)
    except OSError as error:
        raise errors.from_os_error(error, path, output=True) from error
    finally:
        with contextlib.suppress(OSError):
            out.close()
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        _unfinished.discard(temporary)


def spool(path: str | os.PathLike) -> Path:
    """Copy what comes through a pipe into a temporary file, for what is read more than once; return that file.

    It goes with this process. Raises as reading and writing files do.
    """
    import shutil
    import tempfile

    try:
        with open(path, "rb") as source, tempfile.NamedTemporaryFile(prefix="styletools-", delete=False) as out:
            _unfinished.add(out.name)
            atexit.register(remove_unfinished)
            shutil.copyfileobj(source, out)
    except OSError as error:
        raise errors.from_os_error(error, os.fspath(path)) from error
    return Path(out.name)


def is_temporary(path: str | os.PathLike) -> bool:
    """Tell whether a file goes with this process."""
    return os.fspath(path) in _unfinished


def scratch() -> BinaryIO:
    """Open a file without a name, for what is too large for the memory; it goes when it is closed.

    It is in TMPDIR, else in /var/tmp, since /tmp is memory on many systems. Raises as making files does.
    """
    import tempfile

    try:
        return tempfile.TemporaryFile(dir=_scratch_folder(), prefix="styletools-")
    except OSError as error:
        raise errors.from_os_error(error, output=True) from error


def no_room(error: OSError, size: int) -> errors.StyletoolsError:
    """Return the error of a scratch file that could not take so many bytes."""
    folder = _scratch_folder()
    told = errors.from_os_error(error, folder, output=True)
    return type(told)(f"{told}: {size >> 20} MB are wanted there; TMPDIR names another folder")


def _scratch_folder() -> str:
    import tempfile

    return os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir())


def remove_unfinished() -> None:
    """Remove the temporary files of writes that are under way and of `spool`: the last act before the end."""
    for temporary in list(_unfinished):
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def remove_stale_parts(folder: str | os.PathLike) -> int:
    """Remove temporary files that a killed process of ours left in `folder`; return how many.

    A part file names the machine and the process that write it; only those of processes of this machine that are gone
    are removed.
    """
    removed = 0
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".part")]
    except OSError:
        return 0
    for name in names:
        rest, _, last = name.removesuffix(".part").rpartition(".")
        owner = last.partition("-")[0]
        if rest.endswith(f".{_host()}") and owner.isdigit() and not _is_running(int(owner)):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
                removed += 1
    return removed


def _host() -> str:
    """Return the name of this machine as a word for file names: folders may be shared with others."""
    return "".join(c for c in os.uname().nodename[:40] if c.isascii() and (c.isalnum() or c == "-")) or "here"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def up_to_date(output: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> bool:
    """Tell whether `output` exists, is not empty, and is newer than every one of `inputs` (make's rule).

    Times are compared in nanoseconds; an input that is missing counts as newer.
    """
    try:
        made = os.stat(output)
        if not stat.S_ISREG(made.st_mode) or made.st_size == 0:
            return False
        return all(os.stat(path).st_mtime_ns < made.st_mtime_ns for path in inputs)
    except OSError:
        return False


def output_path(source: str, root: str, target: str | os.PathLike, extension: str) -> Path:
    """Return where the result of `source`, found under `root`, goes below the folder `target`.

    The tree below `root` is kept. `extension` (".png") replaces the source's; an empty one keeps it.
    """
    relative = Path(os.path.relpath(source, root)) if root else Path(os.path.basename(source))
    return Path(target) / (relative.with_suffix(extension) if extension else relative)


def split_weight(text: str) -> tuple[str, float]:
    """Split NAME:WEIGHT; the weight is 1 where no number is given, or where a file has the whole text for its name."""
    name, colon, tail = text.rpartition(":")
    if colon and name and not os.path.exists(text):
        with contextlib.suppress(ValueError):
            return name, float(tail)
    return text, 1.0


def cache_dir() -> Path:
    """Return the folder for downloads and derived files (`STYLETOOLS_CACHE`, else the XDG default).

    It is not created here.
    """
    chosen = os.environ.get("STYLETOOLS_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "styletools"


def zoo_dir() -> Path:
    """Return the folder of the bundled models and styles."""
    return Path(__file__).parent / "zoo"


def offline() -> bool:
    """Tell whether downloads are forbidden (`STYLETOOLS_OFFLINE` set to anything but 0)."""
    return os.environ.get("STYLETOOLS_OFFLINE", "0") not in ("", "0")


def is_terminal(stream) -> bool:
    """Tell whether a file object is a terminal; a closed or exotic one is not."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError, OSError):
        return False


def standard_input() -> BinaryIO:
    """Return standard input as bytes, unbuffered, so that what is there is read at once."""
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
