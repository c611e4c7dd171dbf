"""What the results in a folder were made from, so that only what is out of date is made again.

Standard library only. The manifest is a file of JSON lines in the output folder, one line appended when a result
is in its place: it survives a kill at any moment, and a line that was cut off is passed over.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from styletools import errors, files, log

NAME = ".styletools.jsonl"
LOCK = ".styletools.lock"
_SOON = 2_000_000_000  # ns within which a file may change without another time: file systems count in steps


@dataclasses.dataclass(frozen=True)
class Seen:
    """An input as it was when it was about to be read: the digest of its content, and what tells cheaply of changes.

    `stamp` is its size and times; times that are too young to show a change that follows are left out.
    """

    digest: str
    stamp: tuple[int, ...]
    found: os.stat_result

    def still_holds(self, source: str) -> bool:
        """Tell whether nothing has touched the input since."""
        try:
            return _times(os.stat(source)) == _times(self.found)
        except OSError:
            return False


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is noted of an output: `source` is the absolute path of its input, `made` {file: digest}."""

    source: str
    recipe: str
    digest: str
    stamp: tuple[int, ...]
    made: dict[str, str]


class Manifest:
    """The results below one folder. `recipe`: all that made them but the input (model, style, parameters).

    An entry says of an output, which stands for all that came of one input, what it was made from, and which files
    there are. Runs that share a folder do each other no harm: lines of all of them are appended whole.
    """

    def __init__(self, folder: str | os.PathLike, recipe: dict):
        self.folder, self.path = Path(folder), Path(folder) / NAME
        self.recipe = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        self._made: dict[str, Entry] = {}
        self._touched: dict[str, Entry] = {}
        self._lines = 0
        with contextlib.suppress(OSError), open(_open(self.path, os.O_RDONLY), "rb") as lines:
            for line in lines:
                self._lines += 1
                with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    self._take(json.loads(line))

    def _take(self, told: dict) -> None:
        if told.get("removed"):
            self._made.pop(told["output"], None)
            return
        words = [told[name] for name in ("output", "source", "recipe", "digest")]
        stamp = tuple(int(number) for number in told["stamp"])
        made = {str(name): str(digest) for name, digest in told["made"].items()}
        text = "".join([*words, *made])
        os.fsencode(text)  # or it names no file
        if made and "\0" not in text:
            self._made[words[0]] = Entry(*words[1:], stamp, made)

    def see(self, source: str) -> Seen | None:
        """Return what tells an input's content from any other; None for what is no file, or not there to be read."""
        with contextlib.suppress(OSError):
            found = os.stat(source)
            if stat.S_ISREG(found.st_mode):  # a pipe can be read but once
                return Seen(_digest(source), _stamp(found), found)
        return None

    def is_current(self, source: str, output: str) -> bool:
        """Tell whether what stands under `output` was made from what `source` holds now, by this recipe, and is there.

        The content is read only where size and times do not prove that it is what it was.
        """
        name = self._relative(output)
        entry = self._made.get(name)
        if not entry or entry.recipe != self.recipe:
            return False
        if not all(files.up_to_date(self.folder / made, ()) for made in entry.made):
            return False
        try:
            found = os.stat(source)
        except OSError:
            return False
        stamp = entry.stamp
        if not stamp[1:] or stamp != _times(found):
            seen = self.see(source) if stamp[0] == found.st_size else None
            if seen is None or seen.digest != entry.digest:
                return False
            stamp = seen.stamp
        now = dataclasses.replace(entry, source=os.path.abspath(source), stamp=stamp)
        if now != entry:
            self._touched[name] = now
        return True

    def note(self, source: str, output: str, made: Collection[str], seen: Seen | None) -> None:
        """Remember that `made`, the files that `output` stands for, are made of `source` as it was `seen` before.

        Nothing is noted of an input that has changed since. A folder that takes no notes is no error.
        """
        if seen and seen.still_holds(source):
            with contextlib.suppress(OSError):
                digests = {self._relative(path): _digest(path) for path in made}
                path = os.path.abspath(source)
                self._append(self._relative(output), Entry(path, self.recipe, seen.digest, seen.stamp, digests))

    def refresh(self) -> None:
        """Note inputs that are equal, but were touched, lest they be read again the next time, or are elsewhere now."""
        while self._touched:
            self._append(*self._touched.popitem())

    def made(self, output: str) -> list[str]:
        """Return the files that stand for an output, as far as it is noted."""
        entry = self._made.get(self._relative(output))
        return [os.path.join(self.folder, name) for name in entry.made] if entry else []

    def lost(self, folders: Collection[str], outputs: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """Yield (output, entry) of results whose inputs were found below `folders` once, and are gone.

        outputs: those that this run has inputs for, whichever made them before.
        """
        below = tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)
        kept = {self._relative(output) for output in outputs}
        for name, entry in sorted(self._made.items()):
            if name not in kept and entry.source.startswith(below) and _is_gone(entry.source):
                yield os.path.join(self.folder, name), entry

    def remove(self, output: str, entry: Entry) -> list[str]:
        """Remove the files of an entry that are as we made them, and folders left empty; return those that are not.

        Files that another entry names stay, and are not returned. Raises as removing files does.
        """
        name = self._relative(output)
        others = {made for other, each in self._made.items() if other != name for made in each.made}
        changed = []
        for made, digest in entry.made.items():
            path = self.folder / made
            if made in others or _is_gone(path):
                continue
            if not self._is_ours(path) or _digest(path) != digest:
                changed.append(str(path))
                continue
            os.unlink(path)
            with contextlib.suppress(OSError):
                for above in path.relative_to(self.folder).parents[:-1]:
                    os.rmdir(self.folder / above)
        self._append(name, None)
        return changed

    def _append(self, name: str, entry: Entry | None) -> None:
        """Append a line that says what `name` is made from, or that it was removed."""
        with contextlib.suppress(OSError), open(_open(self.path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as out:
            _hold(out.fileno(), wait=True)
            size = os.fstat(out.fileno()).st_size
            cut_off = size and os.pread(out.fileno(), 1, size - 1) != b"\n"  # by a full disk, or a machine that died
            # In one write: lines of runs at the same time do not mix.
            out.write((b"\n" if cut_off else b"") + _line(name, entry))
            self._lines += 1
        if entry:
            self._made[name] = entry
        else:
            self._made.pop(name, None)

    def tidy(self) -> None:
        """Drop the lines that others replaced, where they are many. Only for who has the folder for himself."""
        if self._lines > 2 * len(self._made) + 100:
            with contextlib.suppress(OSError, errors.StyletoolsError), files.atomic(self.path) as out:
                for name, entry in self._made.items():
                    out.write(_line(name, entry))
            self._lines = len(self._made)

    def _is_ours(self, path: Path) -> bool:
        """Tell whether a file is one that we may have made: a regular one, really below the folder."""
        above = os.path.join(os.path.realpath(self.folder), "")
        return os.path.join(os.path.realpath(path.parent), "").startswith(above) and stat.S_ISREG(path.lstat().st_mode)

    def _relative(self, output: str) -> str:
        return os.path.relpath(output, self.folder)


def _line(name: str, entry: Entry | None) -> bytes:
    told = {"output": name, "removed": True} if entry is None else {"output": name} | vars(entry)
    return json.dumps(told).encode() + b"\n"


def _open(path: Path, flags: int) -> int:
    """Open a regular file of ours in a folder to which others may write, too; no link or pipe of its name.

    One that is to be written is made where missing.
    """
    made = 0 if flags == os.O_RDONLY else os.O_CREAT
    opened = os.open(path, flags | made | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return opened


def _is_gone(path: str | os.PathLike) -> bool:
    """Tell whether a file is not there any more; what the system does not say, for want of permission, say, is no."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _times(found: os.stat_result) -> tuple[int, ...]:
    """Return what differs after every change: the time of the last change of all (ctime) cannot be set by anybody."""
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    young = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SOON
    return (found.st_size,) if young else _times(found)


def _digest(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, cut to 32 digits."""
    made = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            made.update(block)
    return made.hexdigest()[:32]


# ---- one run at a time -----------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: str | os.PathLike, part: str = "", *, wait: bool = True) -> Iterator[bool]:
    """Have a folder, which is made where missing, for oneself until the block ends.

    Runs that do a `part` of the work ("2/8") share it with those of other parts. While another run has it, wait, which
    is said once, or raise TryAgain; yield whether there was one. The lock goes with the process, however that ends.
    A file system that has no locks is no error.
    """
    path = Path(folder) / LOCK
    new = not os.path.isdir(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise errors.from_os_error(error, os.fspath(folder), output=True) from error
    told = False
    while True:
        try:
            lock = _open(path, os.O_RDWR)
        except OSError as error:
            raise errors.from_os_error(error, os.fspath(path), output=True) from error
        try:
            if not _hold(lock, part, wait=False):
                if not wait:
                    raise errors.TryAgain(f"{folder}: another run is at work there")
                if not told:
                    log.warning(f"{folder}: another run is at work there; this one waits for it")
                    told = True
                _hold(lock, part, wait=True)
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    break
            os.close(lock)  # who had it took it away
        except BaseException:
            os.close(lock)
            raise
    try:
        yield told
    finally:
        with contextlib.suppress(OSError):
            if not part or _hold(lock, wait=False):  # nobody else's
                os.unlink(path)
                if new:
                    os.rmdir(folder)  # nothing came of it
        os.close(lock)


def _hold(lock: int, part: str = "", *, wait: bool) -> bool:
    """Lock an open file for oneself, or for one part among others; tell whether it was free."""
    how = 0 if wait else fcntl.LOCK_NB
    try:
        if not part:
            fcntl.lockf(lock, fcntl.LOCK_EX | how)
            return True
        fcntl.lockf(lock, fcntl.LOCK_SH | how, 1, 0)
        place = 1 + int(hashlib.sha256(part.encode()).hexdigest()[:8], 16)
        fcntl.lockf(lock, fcntl.LOCK_EX | how, 1, place)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
