"""What the results in a folder were made from."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from styletools import errors, manifest
from styletools.manifest import LOCK, NAME, Manifest, locked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an input and its result."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "in.png").write_bytes(b"input")
    (tmp_path / "out/in.png").write_bytes(b"result")
    return tmp_path


def made(recipe="x", source="in.png", output="out/in.png", files=None):
    noted = Manifest("out", {"recipe": recipe})
    noted.note(source, output, files or [output], noted.see(source))
    return noted


def is_current(recipe="x", source="in.png", output="out/in.png"):
    return Manifest("out", {"recipe": recipe}).is_current(source, output)


def lines(folder):
    return (folder / "out" / NAME).read_text().splitlines()


def backdate(path, seconds=100):
    """Make a file look as if it had been changed a while ago, as far as anybody can."""
    then = time.time_ns() - seconds * 10**9
    os.utime(path, ns=(then, then))


@pytest.fixture
def patient(monkeypatch):
    """Let times show every change at once, as they do for files that are a few seconds old."""
    monkeypatch.setattr(manifest, "_SOON", 0)


@pytest.fixture
def read(monkeypatch):
    """The files whose content was read."""
    done, digest = [], manifest._digest
    monkeypatch.setattr(manifest, "_digest", lambda path: done.append(str(path)) or digest(path))
    return done


def test_current_until_the_input_the_recipe_or_the_result_changes(folder):
    assert not is_current()
    made()
    assert is_current() and not is_current("another")
    os.utime("in.png", ns=(1, 1))
    assert is_current(), "it is the content that counts"
    (folder / "in.png").write_bytes(b"another input")
    assert not is_current()
    made()
    (folder / "out/in.png").write_bytes(b"")
    assert not is_current()
    (folder / "out/in.png").unlink()
    assert not is_current()
    (folder / "in.png").unlink()
    assert not is_current()


def test_another_content_of_the_same_size_and_time_is_found(folder, patient):
    made()
    found = os.stat("in.png")
    (folder / "in.png").write_bytes(b"INPUT")
    os.utime("in.png", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert os.stat("in.png").st_mtime_ns == found.st_mtime_ns and os.stat("in.png").st_size == found.st_size
    assert not is_current()


def test_what_times_prove_is_not_read_again(folder, patient, read):
    made()
    read.clear()
    assert is_current() and read == []
    os.utime("in.png")
    noted = Manifest("out", {"recipe": "x"})
    assert noted.is_current("in.png", "out/in.png") and read == ["in.png"]
    noted.refresh()
    read.clear()
    assert is_current() and read == [], "that it is equal is noted"


def test_times_of_files_that_just_changed_prove_nothing(folder, read):
    made()
    read.clear()
    assert is_current() and read == ["in.png"]


def test_pipes_are_not_read(folder):
    os.mkfifo("pipe.png")
    assert Manifest("out", {}).see("pipe.png") is None


def test_what_changed_while_it_was_read_is_not_current(folder):
    noted = Manifest("out", {})
    seen = noted.see("in.png")
    (folder / "in.png").write_bytes(b"changed meanwhile")
    noted.note("in.png", "out/in.png", ["out/in.png"], seen)
    assert not Manifest("out", {}).is_current("in.png", "out/in.png")


def test_recipes_are_the_same_in_any_order(folder):
    assert Manifest("out", {"a": 1, "b": [2.0, None]}).recipe == Manifest("out", {"b": [2.0, None], "a": 1}).recipe


def test_all_files_of_an_input_must_be_there(folder):
    (folder / "out/in-000002.png").write_bytes(b"second")
    made(files=["out/in.png", "out/in-000002.png"])
    assert is_current()
    (folder / "out/in-000002.png").unlink()
    assert not is_current()


def test_the_folder_may_be_moved(folder):
    made()
    (folder / "out").rename(folder / "moved")
    assert Manifest("moved", {"recipe": "x"}).is_current("in.png", "moved/in.png")


def test_inputs_may_be_moved(folder):
    made()
    (folder / "moved").mkdir()
    (folder / "in.png").rename("moved/in.png")
    noted = Manifest("out", {"recipe": "x"})
    assert noted.is_current("moved/in.png", "out/in.png")
    noted.refresh()
    (folder / "moved/in.png").unlink()
    assert lost("moved") == ["out/in.png"], "it is known from where"


@pytest.mark.parametrize("name", ["new\nline.png", "b\udcff.png", "ünïcode 画.png", 'quote".png'])
def test_any_name(folder, name):
    (folder / "out" / name).write_bytes(b"result")
    made(output=f"out/{name}")
    assert is_current(output=f"out/{name}")
    assert len(lines(folder)) == 1


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe", b"[]\n", b"{}\n", b'{"output": []}\n', b"null\n", b'{"output": 1, "key": {}}\n', b"[" * 5000 + b"\n",
     b'{"output": "in.png", "source": "in.png", "recipe": "x", "digest": "x", "stamp": 3, "made": []}\n',
     b'{"output": "in.png", "key": "x:5:1", "files": ["a.png"]}\n', b'{"output": "out/in.png", "removed": 1}\n',
     rb'{"output": "\u0000", "source": "/", "recipe": "x", "digest": "", "stamp": [3], "made": {"\u0000": ""}}' + b"\n",
     rb'{"output": "\ud800", "source": "/", "recipe": "x", "digest": "", "stamp": [3], "made": {"\ud800": ""}}' + b"\n",
     b'{"output": "in.png"'],
)  # fmt: skip
def test_damaged_lines_are_passed_over_and_harm_no_others(folder, damage):
    made()
    with open(f"out/{NAME}", "ab") as out:
        out.write(damage)
    assert is_current() and not lost("/")
    (folder / "out/b.png").write_bytes(b"result")
    made(output="out/b.png")
    assert is_current() and is_current(output="out/b.png"), "not even the one after a line that was cut off"


def test_a_line_that_another_process_cut_off_harms_no_other(folder):
    noted = Manifest("out", {"recipe": "x"})
    with open(f"out/{NAME}", "ab") as out:
        out.write(b'{"output": "b.p')
    noted.note("in.png", "out/in.png", ["out/in.png"], noted.see("in.png"))
    assert is_current()


@pytest.mark.parametrize("name", [NAME, LOCK])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_else_of_that_name_is_written_to(folder, name, kind):
    if kind == "link":
        (folder / "out" / name).symlink_to("../in.png")
    else:
        os.mkfifo(f"out/{name}")
    made()
    with contextlib.suppress(errors.StyletoolsError), locked("out"):
        pass
    assert (folder / "in.png").read_bytes() == b"input"


def test_it_does_not_grow_without_bound(folder):
    for _ in range(40):
        noted = Manifest("out", {"recipe": "x"})
        for _ in range(10):
            noted.note("in.png", "out/in.png", ["out/in.png"], noted.see("in.png"))
        noted.tidy()
    assert len(lines(folder)) < 150
    assert is_current()


def test_tidying_keeps_all_that_counts(folder):
    (folder / "out/two.png").write_bytes(b"result")
    for _ in range(60):
        made(files=["out/in.png", "out/two.png"])
        made(output="out/two.png")
    (folder / "out/b.png").write_bytes(b"result")
    made(output="out/b.png").tidy()
    assert len(lines(folder)) == 3
    assert is_current() and is_current(output="out/b.png")
    (folder / "out/two.png").unlink()
    assert not is_current()


def test_runs_at_the_same_time(folder):
    """Lines of several writers do not mix."""
    for number in range(8):
        (folder / f"out/{number}.png").write_bytes(b"result")

    def work(noted, number):
        for _ in range(50):
            noted.note("in.png", f"out/{number}.png", [f"out/{number}.png"], noted.see("in.png"))

    threads = [threading.Thread(target=work, args=(Manifest("out", {"recipe": "x"}), n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(folder)) == 400 and all(json.loads(line) for line in lines(folder))
    assert all(is_current(output=f"out/{number}.png") for number in range(8))


def test_a_folder_that_takes_no_notes_is_no_error(folder):
    (folder / "out" / NAME).mkdir()
    made()
    assert not is_current()


def test_an_input_that_is_gone_is_not_noted(folder):
    noted = Manifest("out", {})
    noted.note("gone.png", "out/in.png", ["out/in.png"], noted.see("gone.png"))
    assert not (folder / "out" / NAME).exists()


# ---- results that lost their inputs ----------------------------------------------------------------------


def lost(*folders, outputs=()):
    return [output for output, _ in Manifest("out", {}).lost(folders, outputs)]


def test_what_lost_its_input(folder):
    made()
    assert lost(".") == []
    (folder / "in.png").rename("moved.png")
    assert lost(".") == lost(folder) == lost(folder.parent) == ["out/in.png"]
    assert lost("elsewhere") == lost("out") == [], "where nobody looked, nothing is known to be lost"
    assert lost(".", outputs=["out/in.png"]) == [], "another input has taken its place"


def test_removing_takes_what_is_ours_and_unchanged(folder):
    for name in ("deep/er/a.png", "deep/b.png", "changed.png", "shared.png"):
        (folder / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "out" / name).write_bytes(b"result")
    made(output="out/a", files=["out/deep/er/a.png", "out/shared.png"])
    made(output="out/b", files=["out/deep/b.png", "out/changed.png"])
    made(output="out/c", files=["out/shared.png"])
    (folder / "out/changed.png").write_bytes(b"RESULT")
    (folder / "in.png").unlink()
    noted = Manifest("out", {})
    first, second = noted.lost(["."], ["out/c"])
    assert noted.remove(*first) == []
    assert not (folder / "out/deep/er").exists() and (folder / "out/deep").exists(), "empty folders go"
    assert (folder / "out/shared.png").exists(), "it is another's, too"
    assert noted.remove(*second) == ["out/changed.png"]
    assert not (folder / "out/deep").exists() and (folder / "out/changed.png").exists()
    assert lost(".", outputs=["out/c"]) == []


@pytest.mark.parametrize("name", ["../in.png", "{}/in.png", "link.png", "up/in.png", "deep/../../in.png", "pipe.png"])
def test_a_forged_manifest_removes_nothing_elsewhere(folder, name):
    (folder / "out/link.png").symlink_to("../in.png")
    (folder / "out/up").symlink_to("..")
    (folder / "out/deep").mkdir()
    os.mkfifo("out/pipe.png")
    name, digest = name.format(folder), manifest._digest("in.png")
    told = {"output": "x", "source": str(folder / "gone"), "recipe": "", "digest": "", "stamp": [1]}
    told["made"] = {name: digest}
    (folder / "out" / NAME).write_text(json.dumps(told) + "\n")
    noted = Manifest("out", {})
    ((output, entry),) = noted.lost(["."], [])
    assert len(noted.remove(output, entry)) == 1
    assert (folder / "in.png").exists() and (folder / "out/link.png").is_symlink()


def test_what_cannot_be_seen_is_not_lost(folder, monkeypatch):
    made()
    (folder / "in.png").unlink()

    def refuse(path):
        raise PermissionError(13, "permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", refuse)
        assert lost(".") == []
    assert lost(".") == ["out/in.png"]


# ---- one run at a time -----------------------------------------------------------------------------------


HOLD = """
import sys
from styletools.manifest import locked
with locked(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(folder):
    """Have another process hold the lock of a folder: hold(part); release() ends all of them."""
    running = []

    def start(part=""):
        words = [sys.executable, "-c", HOLD, "out", part]
        environment = os.environ | {"PYTHONPATH": str(Path(manifest.__file__).parents[1])}
        running.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment))
        assert running[-1].stdout.readline() == b"held\n"
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_one_run_at_a_time(folder, hold, capsys):
    process = hold()
    for part in ("", "1/2"):
        with pytest.raises(errors.TryAgain, match="another run"), locked("out", part, wait=False):
            pass
    release = threading.Timer(0.3, process.kill)
    release.start()
    with locked("out") as waited:
        assert waited
    release.join()
    assert capsys.readouterr().err.count("another run is at work there") == 1
    with locked("out") as waited:
        assert not waited
    assert not (folder / "out" / LOCK).exists()


def test_parts_go_side_by_side_but_not_the_same_twice(folder, hold):
    hold("1/2")
    for part, free in {"2/2": True, "1/2": False, "": False}.items():
        if free:
            with locked("out", part, wait=False):
                assert (folder / "out" / LOCK).exists()
        else:
            with pytest.raises(errors.TryAgain), locked("out", part, wait=False):
                pass
    assert (folder / "out" / LOCK).exists(), "it is still held"


def test_a_folder_of_which_nothing_came_goes_again(folder):
    with locked("new"):
        assert (folder / "new").is_dir()
    assert not (folder / "new").exists() and (folder / "out").exists()
    (folder / "file").write_bytes(b"")
    with pytest.raises(errors.CannotCreate), locked("file/new"):
        pass
