"""Atomic writing and make's rule, with real pipes, kills and full disks."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from styletools import errors, files


def names(folder):
    return sorted(os.listdir(folder))


def test_a_file_appears_whole_and_only_at_the_end(tmp_path):
    path = tmp_path / "sub" / "a.bin"
    with files.atomic(path, sync=True) as out:
        out.write(b"half")
        out.flush()
        assert not path.exists()
        assert all(name.startswith(".") for name in names(path.parent)), "walks of the folder must not see it"
    assert path.read_bytes() == b"half"
    assert names(path.parent) == ["a.bin"]


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt(), errors.DataError("bad"), SystemExit(1)])
def test_a_failure_keeps_the_old_file(tmp_path, failure):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)), files.atomic(path) as out:
        out.write(b"new")
        raise failure
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_the_permissions_of_what_is_replaced_stay(tmp_path):
    path = tmp_path / "private"
    path.touch(mode=0o600)
    with files.atomic(path) as out:
        out.write(b"still mine alone")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == b"still mine alone"


def test_a_pipe_is_spooled_for_as_long_as_the_process_lives(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    script = (
        "import sys\nfrom styletools import files\nfound = files.spool(sys.argv[1])\n"
        "print(found, len(found.read_bytes()), len(found.read_bytes()))"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "pipe")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    (tmp_path / "pipe").write_bytes(b"x" * 200_000)
    name, first, second = process.communicate(timeout=30)[0].split()
    assert (first, second) == ("200000", "200000") and not os.path.exists(name)
    with pytest.raises(errors.MissingInput, match="none"):
        files.spool(tmp_path / "none")


def test_weights_behind_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("b:2").touch()
    found = [files.split_weight(text) for text in ("a:0.5", "a", "a:b", ":3", "b:2", "b:2:4", "", "x:y:-1")]
    assert found == [("a", 0.5), ("a", 1), ("a:b", 1), (":3", 1), ("b:2", 1), ("b:2", 4), ("", 1), ("x:y", -1)]


def test_mode_and_long_names(tmp_path):
    path = tmp_path / ("n" * 250)
    with files.atomic(path) as out:
        out.write(b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(errors.CannotCreate), files.atomic(tmp_path / ("n" * 300)):
        pass


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.bin"
    target.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    with files.atomic(link) as out:
        out.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "real") == ["a.bin"]


def test_no_place_for_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "a.bin"):
        with pytest.raises(errors.CannotCreate), files.atomic(path):
            pass
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(errors.NotPermitted), files.atomic(tmp_path / "locked" / "a.bin"):
        pass


def test_devices_are_written_directly():
    with files.atomic("/dev/null") as out:
        out.write(b"x" * 100)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_pipes_are_written_directly(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    with files.atomic(pipe) as out:
        out.write(b"through")
    reader.join(10)
    assert found == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


WRITER = """
import signal, sys, time
from styletools import files
if sys.argv[2] == "polite":
    def leave(number, frame):
        files.remove_unfinished()
        sys.exit(143)
    signal.signal(signal.SIGTERM, leave)
with files.atomic(sys.argv[1]) as out:
    out.write(b"half")
    out.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def writer(path, manner):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), manner], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_killed_process_leaves_only_a_hidden_part(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    process = writer(path, "plain")
    assert files.remove_stale_parts(tmp_path) == 0, "its writer lives"
    process.kill()
    process.wait()
    assert path.read_bytes() == b"old"
    (part,) = (name for name in names(tmp_path) if name != "a.bin")
    assert part.startswith(".a.bin.") and part.endswith(".part")
    (tmp_path / ".mine.part").write_bytes(b"somebody else's")
    assert files.remove_stale_parts(tmp_path) == 1
    assert names(tmp_path) == [".mine.part", "a.bin"]
    assert files.remove_stale_parts(tmp_path / "none") == 0


def test_the_part_of_another_machine_is_left_alone(tmp_path, monkeypatch):
    process = writer(tmp_path / "a.bin", "plain")
    process.kill()
    process.wait()
    (part,) = names(tmp_path)
    monkeypatch.setattr(files, "_host", lambda: "elsewhere")
    assert files.remove_stale_parts(tmp_path) == 0, "its number may be that of a process that lives there"
    assert names(tmp_path) == [part]


@pytest.mark.parametrize("name", ["a" * 250, "\u753b" * 80, "\U0001f3a8" * 60, "\udce9" * 250])
def test_names_as_long_as_the_system_allows(tmp_path, name):
    with files.atomic(tmp_path / f"{name}.png") as out:
        out.write(b"whole")
    assert (tmp_path / f"{name}.png").read_bytes() == b"whole"
    assert names(tmp_path) == [f"{name}.png"]


def test_a_name_that_is_too_long_cannot_be_created(tmp_path):
    with pytest.raises(errors.CannotCreate, match="too long"), files.atomic(tmp_path / ("a" * 300)):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_named():
    with pytest.raises(errors.TryAgain, match="/dev/full: no space"), files.atomic("/dev/full") as out:
        out.write(b"x")


def test_a_terminated_process_can_clean_up(tmp_path):
    process = writer(tmp_path / "a.bin", "polite")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk):
    path = small_disk / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(errors.TryAgain, match="a.bin: no space left on device"), files.atomic(path) as out:
        out.write(b"x" * 1_000_000)
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["a.bin"]


def test_a_full_disk_found_when_closing(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.TryAgain), files.atomic(path, sync=True) as out:
        out.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_up_to_date_is_makes_rule(tmp_path):
    source, other, output = (tmp_path / name for name in "abo")
    for path in (source, other):
        path.write_bytes(b"x")
    assert not files.up_to_date(output, [source])
    output.write_bytes(b"")
    assert not files.up_to_date(output, []), "an empty output is none"
    output.write_bytes(b"y")
    now = time.time_ns()
    os.utime(source, ns=(now, now))
    os.utime(other, ns=(now, now))
    os.utime(output, ns=(now + 1, now + 1))
    assert files.up_to_date(output, [source, other])
    os.utime(other, ns=(now + 1, now + 1))
    assert not files.up_to_date(output, [source, other]), "as old is not newer"
    assert not files.up_to_date(output, [source, tmp_path / "none"])
    assert not files.up_to_date(tmp_path, [source])


@pytest.mark.parametrize(
    ("source", "root", "extension", "expected"),
    [
        ("in/a/b.jpg", "in", ".png", "out/a/b.png"),
        ("in/b.jpg", "in", "", "out/b.jpg"),
        ("x/y/b.tar.gz", "", ".png", "out/b.tar.png"),
        ("in/no_suffix", "in", ".png", "out/no_suffix.png"),
    ],
)
def test_output_path(source, root, extension, expected):
    assert files.output_path(source, root, "out", extension) == Path(expected)


def test_cache_dir(monkeypatch):
    monkeypatch.setenv("STYLETOOLS_CACHE", "/c")
    assert files.cache_dir() == Path("/c")
    monkeypatch.delenv("STYLETOOLS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert files.cache_dir() == Path("/x/styletools")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert files.cache_dir() == Path("/h/.cache/styletools")


@pytest.mark.parametrize(("value", "expected"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_offline(monkeypatch, value, expected):
    monkeypatch.setenv("STYLETOOLS_OFFLINE", value)
    assert files.offline() is expected


def test_is_terminal():
    class Closed:
        def isatty(self):
            raise ValueError("closed")

    assert not files.is_terminal(Closed())
    assert not files.is_terminal(None)
    leader, follower = os.openpty()
    with open(follower, "w") as stream:
        assert files.is_terminal(stream)
    os.close(leader)


def test_standard_library_only():
    code = "import sys, styletools.files, styletools.log; print('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
