"""Commands that start at once: forks of one process that has imported torch already.

Dozens of examples, each loading torch for seconds, would be most of the time of the test suite. `Preloaded` starts
the process; the scripts that it writes hand their arguments, folder, environment and standard streams over to a fork
of it and end as that ends. What runs is the command itself; its own launcher is left out.
"""

import array
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch", "torch._dynamo", "safetensors.torch", "styletools.engine.features", "styletools.engine.infer",
    "styletools.engine.statistics", "styletools.engine.styles", "styletools.engine.train", "styletools.methods.live",
    "styletools.methods.gatys", "styletools.engine.evaluate",
)  # fmt: skip


class Preloaded:
    """The process and its scripts in a folder; a context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.socket, self.folder, self.environment = folder / ".preloaded", folder, environment

    def __enter__(self) -> "Preloaded":
        words = [sys.executable, __file__, "serve", str(self.socket)]
        environment = self.environment | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *unused) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def script(self, command: str, more: str = "") -> None:
        """Write a script called as a command; `more` is appended to its arguments."""
        path = self.folder / command
        path.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -S -E "{__file__}" run "{self.socket}" {command} "$@" {more}\n'
        )
        path.chmod(0o755)


def run(path: str, words: list[str]) -> None:
    """Have a command run by the process behind a socket, and end as it ends."""
    request = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendmsg([len(request).to_bytes(4, "little")], [_rights(array.array("i", [0, 1, 2]))])
        connection.sendall(request)
        for number in (0, 1):  # or the pipes to our neighbours would stay open as long as we live
            os.close(number)
        status = int(connection.recv(16) or b"70")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _rights(numbers: array.array) -> tuple:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers


def serve(path: str) -> None:
    """Import what is heavy, then fork for every connection."""
    for name in HEAVY:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _handle(connection)
            connection.close()


def _handle(connection: socket.socket) -> None:
    """Run one command in a fork of this fork, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    numbers = array.array("i")
    head, rights, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * numbers.itemsize))
    numbers.frombytes(rights[0][2])
    size, request = int.from_bytes(head, "little"), b""
    while len(request) < size:
        request += connection.recv(size - len(request))
    child = os.fork()
    if child == 0:
        connection.close()
        _become(json.loads(request), numbers)
    for number in numbers:
        os.close(number)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(ended).encode())
    os._exit(0)


def _become(request: dict, numbers: array.array) -> None:
    for number, given in enumerate(numbers):
        os.dup2(given, number)
        os.close(given)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    command, *words = request["words"]
    sys.argv = [command, *words]
    status = 70
    try:
        importlib.import_module(f"styletools.cli.{command.replace('-', '_')}").main.main(words)
    except SystemExit as ended:
        status = ended.code or 0
        sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        run(sys.argv[2], sys.argv[3:])
