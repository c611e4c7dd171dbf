"""A folder spread over a Ray cluster: files go out as they are, what was made of them comes back.

One worker a GPU, or a CPU where there are none, holds the model and does what `_loop.run` does, one file at a time;
this process reads and writes all files, so that nothing is made twice or half, whatever becomes of the workers.
"""

import contextlib
import io
import json
import os
import signal
import socket
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styletools import errors, files, log
from styletools.cli import _command, _loop
from styletools.cli._loop import Source, Target

BUSY = 60  # seconds after which one is told that no worker has started
TRIES = 3  # workers that a file may take with it, and times that a worker may fail to start


@dataclass(frozen=True)
class Task:
    """What a worker has to know: how to set up, and what else `_loop.run` and `Target` take."""

    set_up: Callable[[], Callable]
    to_format: str | None
    quality: int | None
    from_format: str | None
    max_pixels: int | None


@dataclass(frozen=True)
class Made:
    """What a worker made of a file: its results by their names below the folder, and what it has to say."""

    status: int
    results: dict[str, bytes]
    events: list[dict[str, Any]]


class Worker:
    """What runs in the cluster, an actor of Ray."""

    def __init__(self, task: Task):
        self._task, self._function = task, None

    def start(self) -> tuple[int, str] | None:
        """Load what is heavy; return status and message of what prevents it."""
        try:
            self._set_up()
        except Exception as error:
            told = _command.as_styletools_error(error)
            return told.status, str(told)
        return None

    def _set_up(self) -> Callable:
        self._function = self._function or self._task.set_up()
        return self._function

    def make(self, source: Source, data: bytes) -> Made:
        """Restyle a file of which `data` is the content."""
        function = self._set_up()  # Ray may have begun anew since `start`
        task, said = self._task, io.StringIO()
        with tempfile.TemporaryDirectory(prefix="styletools-") as place:
            local = Source(os.path.join(place, "in", source.name), os.path.join(place, "in"))
            os.makedirs(os.path.dirname(local.path))
            Path(local.path).write_bytes(data)
            target = Target(os.path.join(place, "out", ""), task.to_format, quality=task.quality)
            log.setup("st-apply", as_json=True)
            with contextlib.redirect_stderr(said):
                status = _loop.run(
                    [local], target, function, from_format=task.from_format, max_pixels=task.max_pixels, jobs=1
                )
            made = [path for path in Path(target.path).rglob("*") if path.is_file()]
            results = {str(path.relative_to(target.path)): path.read_bytes() for path in made}
            lines = said.getvalue().replace(json.dumps(local.path)[1:-1], json.dumps(source.path)[1:-1]).splitlines()
        return Made(status, results, [json.loads(line) for line in lines if '"level": "progress"' not in line])


def spread(
    sources: Iterable[Source],
    target: Target,
    task: Task,
    *,
    address: str,
    device: str = "auto",
    fail_fast: bool = False,
    total: int | None = None,
    finished: Callable[[Source, list[str]], None] | None = None,
) -> int:
    """Do what `_loop.run` does for files and a folder, by the workers of a cluster; return the exit status.

    A file whose worker is lost goes to another one. Raises Unavailable without Ray or a cluster.
    """
    progress, statuses, good = log.Progress(total), [], 0
    with _connected(address) as ray:
        workers = _hire(ray, task, device)
        lost: Counter = Counter()
        again: deque[Source] = deque()
        coming = iter(sources)
        free: list = []
        running: dict[Any, tuple[Any, Source | None]] = {worker.start.remote(): (worker, None) for worker in workers}

        def failed(error: Exception, source: Source) -> None:
            statuses.append(_command.report(_command.as_styletools_error(error), source.label))

        def hand_out() -> None:
            """Give each free worker a file, as long as there are any."""
            while free and not (fail_fast and statuses):
                source = again.popleft() if again else next(coming, None)
                if source is None:
                    return
                try:
                    data = Path(source.path).read_bytes()
                except OSError as error:
                    failed(errors.from_os_error(error, source.label), source)
                    continue
                worker = free.pop()
                running[worker.make.remote(source, data)] = (worker, source)

        def take(made: Made, source: Source) -> None:
            """Put what was made of a file into its place."""
            nonlocal good
            first = target.file_for(source)
            paths = sorted((os.path.join(target.path, name) for name in made.results), key=lambda path: path != first)
            try:
                for index, path in enumerate(paths, paths[:1] != [first]):
                    target.own(path, source, index)
                    with files.atomic(path) as out:
                        out.write(made.results[os.path.relpath(path, target.path)])
            except Exception as error:
                failed(error, source)
                return
            for event in made.events:
                told = {name: event[name] for name in ("record", "status") if name in event}
                (log.error if event["level"] == "error" else log.warning)(event["message"], **told)
            good += len(paths)
            progress.update()
            if made.status:
                statuses.append(made.status)
            elif finished:
                finished(source, paths)

        began, told = time.monotonic(), False
        while True:
            hand_out()
            idle = not any(source for _, source in running.values())
            if idle and free:
                break
            if idle and not told and time.monotonic() - began > BUSY:
                told = True
                log.warning(f"--ray {address}: the cluster is busy; waiting for a worker")
            if not running:
                raise errors.Unavailable(f"--ray {address}: no worker could be started")
            for ref in ray.wait(list(running), timeout=0.5)[0]:
                worker, source = running.pop(ref)
                try:
                    came = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    raise errors.StyletoolsError(f"a worker failed: {error.cause} (-v shows where)") from error
                except ray.exceptions.RayError as error:
                    # Ray starts it again, where there is room; what it has loaded is lost.
                    log.info(f"a worker was lost: {str(error).splitlines()[0]}")
                    lost[source or id(worker)] += 1
                    if source and lost[source] < TRIES:
                        again.append(source)
                    elif source:
                        failed(errors.StyletoolsError(f"took {TRIES} workers with it"), source)
                    if source or lost[id(worker)] < TRIES:
                        running[worker.start.remote()] = (worker, None)
                    continue
                if source:
                    with _command.finishing():
                        take(came, source)
                elif came:
                    raise errors.of_status(*came)
                free.append(worker)
    progress.close()
    if len(statuses) == 1 and not good:
        return statuses[0]
    return errors.SomeFailed.status if statuses else 0


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Join a cluster until the block ends; yield the module of Ray."""
    try:
        import ray
    except ImportError as error:
        raise errors.Unavailable("--ray needs Ray: pip install 'styletools[ray]'") from error
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _check_address(address)
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except SystemExit:  # Ray's own answer to SIGTERM
        raise _command.Signalled(signal.SIGTERM) from None
    except Exception as error:
        what = "no Ray cluster there"
        if "InvalidAuthToken" in traceback.format_exc():
            what = "the cluster wants another token (RAY_AUTH_MODE, RAY_AUTH_TOKEN)"
        elif "ersion mismatch" in str(error):
            what = "the cluster has another version of Ray or Python"
        raise errors.Unavailable(f"--ray {address}: {what}") from error
    finally:
        for number, handler in handlers.items():  # Ray has its own
            signal.signal(number, handler)
    try:
        yield ray
    except SystemError as error:
        if isinstance(error.__cause__, _command.Signalled):  # compiled parts of Ray tell of a signal so
            raise error.__cause__ from None
        raise
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise Unavailable where nobody listens at HOST:PORT, which Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise errors.Unavailable(f"--ray {address}: no Ray cluster there ({error})") from error


def _hire(ray, task: Task, device: str) -> list:
    """Return the workers, as many as the cluster has GPUs, or CPUs; those for which it has no room now come later."""
    there = ray.cluster_resources()
    gpus, cpus = (int(there.get(name, 0)) for name in ("GPU", "CPU"))
    on_gpu = gpus and device != "cpu"
    kind = ray.remote(num_gpus=1 if on_gpu else 0, num_cpus=0 if on_gpu else 1, max_restarts=-1)(Worker)
    return [kind.remote(task) for _ in range(gpus if on_gpu else max(cpus, 1))]
