"""Jobs on folders: which inputs are ours and out of date, what arrives, what lost its input, what make has to know."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import click

from styletools import errors, files, log, manifest
from styletools.cli._loop import STDIN, Source, Target

EVERY = 0.5  # seconds between two looks at what has arrived


class Shard(click.ParamType):
    """I/N: the part of the work that a run does. `convert` returns (I, N)."""

    name = "shard"

    def convert(self, value, parameter, context):
        """Return (I, N) of "I/N". A usage error unless 1 <= I <= N."""
        if isinstance(value, tuple):
            return value
        number, slash, count = value.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            self.fail(f"{value!r}: I/N expected, as 1/8 ... 8/8", parameter, context)
        return int(number), int(count)


def in_shard(source: Source, shard: tuple[int, int] | None) -> bool:
    """Tell whether an input belongs to a shard; its name below its folder alone decides."""
    if not shard:
        return True
    number, count = shard
    told = hashlib.sha256(os.fsencode(source.name)).digest()
    return int.from_bytes(told[:8], "big") % count == number - 1


# ---- what arrives ----------------------------------------------------------------------------------------


def arriving(look: Callable[[], Iterable[Source]], is_current: Callable[[Source], bool]) -> Iterator[Source | None]:
    """Yield what `look` finds, now and later, unless it is current, once it is whole; never ends. None is a pause.

    Whole is a file of the same size and times at two looks, which nobody is writing as far as the system tells.
    One that failed comes again when it has changed.
    """
    before: dict[Source, tuple] = {}
    done: dict[Source, tuple] = {}
    while True:
        began, now = time.monotonic(), {}
        with contextlib.suppress(errors.StyletoolsError):  # folders may vanish while one looks
            for source in look():
                with contextlib.suppress(OSError):
                    found = os.stat(source.path)
                    now[source] = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        looked = time.monotonic() - began
        for source, stamp in now.items():
            if stamp[0] and before.get(source) == stamp != done.get(source) and not _is_being_written(source.path):
                done[source] = stamp
                if not is_current(source):
                    yield source
        before, done = now, {source: stamp for source, stamp in done.items() if source in now}
        yield None
        time.sleep(max(EVERY, 10 * looked))  # large folders are looked through less often


def _is_being_written(path: str) -> bool:
    """Tell whether a process has a file open for writing; False where the system does not say."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A lease for readers is not given while there is a writer. Who writes from now on ends it, which is told by
        # SIGIO, and that would be our end; nobody minds SIGURG.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(file)
    return False


# ---- what make has to know -------------------------------------------------------------------------------


def write_dependencies(path: str, made: dict[str, list[str]], common: Sequence[str]) -> None:
    """Write rules for make: each output depends on its inputs and on `common`.

    Inputs get empty rules of their own, so that make goes on where one of them is gone. Raises as files.atomic does.
    """
    lines, inputs = [f"{_EQUALS} := =\n"], {}
    for output, sources in made.items():
        needed = [*sources, *common]
        if any(map(_UNSAYABLE.search, [output, *needed])):
            log.warning(f"{output}: left out of {path}, since make cannot read such names")
            continue
        inputs |= dict.fromkeys(needed)
        lines.append(f"{_for_make(output, target=True)}: {' '.join(map(_for_make, needed))}\n")
    lines += [f"{_for_make(name, target=True)}:\n" for name in inputs]
    with files.atomic(path) as out:
        out.write(os.fsencode("".join(lines)))


_EQUALS = "st_equals"  # make knows no other way to quote it
# Ends of lines and rules, names of members of archives, and what make unquotes differently where both are there.
_UNSAYABLE = re.compile(
    r"[\n\r\t;]|[\s\\&]\Z|\(.*\)\Z|%.*[=#:*?\[ \\]|[=:*?\[\\].*%|\\.*[*?\[]|[*?\[].*\\"
)


def _for_make(name: str, target: bool = False) -> str:
    """Return a file's name as make reads it, in front of the colon (`target`) or after it."""
    special = r"(\\*)([ \t#:*?\[%])" if target else r"(\\*)([ \t#:*?\[|])"
    return re.sub(special, r"\1\1\\\2", name).replace("$", "$$").replace("=", f"$({_EQUALS})")


# ---- the work on one folder ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What the options of these names say."""

    force: bool = False
    dry_run: bool = False
    check: bool = False
    prune: bool = False
    watch: bool = False
    shard: tuple[int, int] | None = None
    ray: str | None = None
    no_wait: bool = False
    dependencies: str | None = None


def check_use(wanted: Wanted, target: Target, inputs: Sequence[str], files_from: str | None) -> None:
    """Raise UsageError for options that do not go together."""
    for option in ("check", "prune", "watch", "shard", "ray", "no_wait"):
        if getattr(wanted, option) and target.kind != "folder":
            raise errors.UsageError(f"--{option.replace('_', '-')} is for folders: -o DIR/")
    piped = STDIN in inputs or not inputs and files_from is None
    if piped and wanted.shard:
        raise errors.UsageError("--shard tells inputs by their names: standard input has none")
    if piped and wanted.ray:
        raise errors.UsageError("--ray sends files: standard input is none")
    if wanted.watch:
        for option in ("force", "dry_run", "check", "prune", "ray", "dependencies"):
            if getattr(wanted, option):
                raise errors.UsageError("--watch does not go with --force, --dry-run, --check, --prune, --ray and -MD")
        for path in inputs:
            if not os.path.isdir(path):
                raise errors.UsageError(f"--watch looks through folders: {path} is none")
        if piped or files_from:
            raise errors.UsageError("--watch looks through folders: name one")
    if files_from == STDIN and (wanted.check or wanted.prune or wanted.dependencies):
        raise errors.UsageError("names that are still to come do not go with --check, --prune and -MD")
    if wanted.dependencies and target.path == "-":
        raise errors.UsageError("-MD needs a name for what depends: -o FILE")


def make_files(
    target: Target, sources: Iterable[Source], work: Callable[..., int], wanted: Wanted, *, needed: Sequence[str]
) -> int:
    """Make one file of all sources, or numbered ones; return the status."""
    if wanted.dry_run:
        for number, source in enumerate(sources):
            made = target.path if target.kind == "stream" else target.file_for(source, number)
            _say(f"{source.label}\t{made}")
        return 0
    rules: dict[str, list[str]] = {}

    def finished(source, outputs):
        rules.update(dict.fromkeys(outputs, [source.path] if source.path != STDIN else []))

    known = isinstance(sources, list) and all(source.path != STDIN for source in sources)
    status = work(sources, finished, total=len(sources) if known else None)
    if wanted.dependencies and status == 0:
        if target.kind == "stream":
            rules[target.path] = [source.path for source in sources if source.path != STDIN]
        write_dependencies(wanted.dependencies, rules, needed)
    return status


def bring_up_to_date(
    target: Target,
    find: Callable[[], Iterable[Source]],
    work: Callable[..., int],
    recipe: dict,
    wanted: Wanted,
    *,
    inputs: Sequence[str],
    needed: Sequence[str],
) -> int:
    """Make in a folder what is not made from its input as it is now, and do what else is wanted; return the status.

    find: returns the sources, as a list where all are known now. work: `_loop.run` but for what is done here. recipe:
    what makes the results, beside the inputs; needed: the files of it. inputs: as they were named.
    """
    sources = find()
    if wanted.dry_run and not isinstance(sources, list):
        for source in sources:
            if in_shard(source, wanted.shard):
                _say(f"{source.label}\t{target.file_for(source)}")
        return 0
    with contextlib.ExitStack() as stack:
        if not (wanted.check or wanted.dry_run):
            part = "{}/{}".format(*wanted.shard) if wanted.shard else ""
            waited = stack.enter_context(manifest.locked(target.path, part, wait=not wanted.no_wait))
            sources = find() if waited and isinstance(sources, list) else sources
        noted = manifest.Manifest(target.path, recipe)
        if isinstance(sources, list):
            return _bring_up_to_date(target, sources, work, noted, wanted, inputs, needed)

        def is_ours(source):
            return in_shard(source, wanted.shard)

        if wanted.watch:
            coming = arriving(
                lambda: filter(is_ours, find()), lambda source: noted.is_current(source.path, target.file_for(source))
            )
        else:
            coming = filter(is_ours, sources)
        return work(*_noting(coming, target, noted))


def _bring_up_to_date(target, sources, work, noted, wanted, inputs, needed) -> int:
    lost, outputs = [], {source: target.file_for(source) for source in sources}
    if sources and (not wanted.shard or wanted.shard[0] == 1):  # nothing there at all is rather a disk that is not
        lost = list(noted.lost(_folders(inputs, sources), outputs.values()))
    ours = [source for source in sources if in_shard(source, wanted.shard)]
    todo = ours
    if not wanted.force:
        todo = [s for s in ours if s.path == STDIN or not noted.is_current(s.path, outputs[s])]
    if wanted.check:
        told = [f"{len(todo)} of {len(ours)} to be made"] if todo else []
        told += [f"{len(lost)} to be removed"] if lost and wanted.prune else []
        if told:
            _say(f"{target.path}: {', '.join(told)}")
        return errors.SomeFailed.status if told else 0
    if wanted.dry_run:
        for source in todo:
            _say(f"{source.label}\t{outputs[source]}")
        for output, _ in lost if wanted.prune else ():
            _say(f"\t{output}")
        return 0
    status, made = 0, {}
    if todo:
        total = len(todo) if all(source.path != STDIN for source in todo) else None
        coming, finished = _noting(todo, target, noted, made)
        status = work(coming, finished, total=total)
    else:
        log.info("nothing to do: " + (f"all {len(ours)} are up to date" if ours else "no pictures there"))
    noted.refresh()
    if wanted.prune:
        status = max(status, prune(noted, lost))
    for output, _ in () if wanted.prune else lost:
        log.warning(f"{output}: lost its input (--prune removes it)")
    if not wanted.shard:
        noted.tidy()
    if wanted.dependencies:
        for source in ours:
            if source not in made and source not in todo:
                made[source] = noted.made(outputs[source])
        rules = {output: [source.path] for source, outputs in made.items() for output in outputs}
        write_dependencies(wanted.dependencies, rules, needed)
    return status


def _noting(
    sources: Iterable[Source | None], target: Target, noted: manifest.Manifest, made: dict | None = None
) -> tuple[Iterator[Source | None], Callable[[Source, list[str]], None]]:
    """Return sources and a `finished` for `_loop.run`: what was made of which content is noted, and kept in `made`."""
    seen = {}

    def about_to_be_read():
        for source in sources:
            if source is not None and source.path != STDIN:
                seen[source] = noted.see(source.path)
            yield source

    def finished(source, outputs):
        if source in seen:
            noted.note(source.path, target.file_for(source), outputs, seen.pop(source))
        if made is not None and source.path != STDIN:
            made[source] = outputs

    return about_to_be_read(), finished


def _say(line: str) -> None:
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()


# ---- what lost its input ---------------------------------------------------------------------------------


def _folders(inputs: Iterable[str], sources: Iterable[Source]) -> set[str]:
    """Return the folders that a run looks through: results of what is gone from there have lost their inputs."""
    return {path for path in inputs if os.path.isdir(path)} | {
        os.path.dirname(source.path) or os.curdir for source in sources if not source.root
    }


def prune(noted: manifest.Manifest, lost: Iterable[tuple[str, manifest.Entry]]) -> int:
    """Remove results that lost their inputs, but what is not as it was made; return 1 where some cannot be."""
    status = 0
    for output, entry in lost:
        try:
            for path in noted.remove(output, entry):
                log.warning(f"{path}: lost its input, but is not what was made of that: it stays")
            log.info(f"{output}: removed")
        except OSError as error:
            log.error(str(errors.from_os_error(error, output)))
            status = errors.SomeFailed.status
    return status
