"""What the results in a folder were made from."""

import json
import os
import threading

import pytest

from styletools.manifest import NAME, Manifest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an input and its result."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "in.png").write_bytes(b"input")
    (tmp_path / "out/in.png").write_bytes(b"result")
    return tmp_path


def made(recipe="x", source="in.png", output="out/in.png", files=None):
    manifest = Manifest("out", {"recipe": recipe})
    manifest.note(output, files or [output], manifest.key(source))
    return manifest


def is_current(recipe="x", source="in.png", output="out/in.png"):
    return Manifest("out", {"recipe": recipe}).is_current(source, output)


def lines(folder):
    return (folder / "out" / NAME).read_text().splitlines()


def test_current_until_the_input_the_recipe_or_the_result_changes(folder):
    assert not is_current()
    made()
    assert is_current() and not is_current("another")
    os.utime("in.png", ns=(1, 1))
    assert not is_current(), "an older time is a change, too"
    made()
    (folder / "in.png").write_bytes(b"another input")
    assert not is_current()
    made()
    (folder / "out/in.png").write_bytes(b"")
    assert not is_current()
    (folder / "out/in.png").unlink()
    assert not is_current()
    (folder / "in.png").unlink()
    assert not is_current()


def test_what_changed_while_it_was_read_is_not_current(folder):
    manifest = Manifest("out", {})
    key = manifest.key("in.png")
    (folder / "in.png").write_bytes(b"changed meanwhile")
    manifest.note("out/in.png", ["out/in.png"], key)
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


@pytest.mark.parametrize("name", ["new\nline.png", "b\udcff.png", "ünïcode 画.png", 'quote".png'])
def test_any_name(folder, name):
    (folder / "out" / name).write_bytes(b"result")
    made(output=f"out/{name}")
    assert is_current(output=f"out/{name}")
    assert len(lines(folder)) == 1


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe", b"[]\n", b"{}\n", b'{"output": []}\n', b"null\n", b'{"output": 1, "key": {}}\n', b"[" * 5000 + b"\n",
     b'{"output": "in.png", "key": "x", "files": 3}\n', b'{"output": "in.png"'],
)  # fmt: skip
def test_damaged_lines_are_passed_over_and_harm_no_others(folder, damage):
    made()
    with open(f"out/{NAME}", "ab") as out:
        out.write(damage)
    assert is_current()
    (folder / "out/b.png").write_bytes(b"result")
    made(output="out/b.png")
    assert is_current() and is_current(output="out/b.png"), "not even the one after a line that was cut off"


def test_it_does_not_grow_without_bound(folder):
    for _ in range(40):
        manifest = Manifest("out", {"recipe": "x"})
        for _ in range(10):
            manifest.note("out/in.png", ["out/in.png"], manifest.key("in.png"))
    assert len(lines(folder)) < 150
    assert is_current()


def test_tidying_keeps_all_that_counts(folder):
    (folder / "out/two.png").write_bytes(b"result")
    made(files=["out/in.png", "out/two.png"])
    with open(f"out/{NAME}", "a") as out:
        for number in range(200):
            out.write(json.dumps({"output": "gone.png", "key": str(number)}) + "\n")
    (folder / "out/b.png").write_bytes(b"result")
    made(output="out/b.png")
    assert len(lines(folder)) == 3
    assert is_current() and is_current(output="out/b.png")
    (folder / "out/two.png").unlink()
    assert not is_current()


def test_runs_at_the_same_time(folder):
    """Lines of several writers do not mix."""
    for number in range(8):
        (folder / f"out/{number}.png").write_bytes(b"result")

    def work(manifest, number):
        for _ in range(50):
            manifest.note(f"out/{number}.png", [f"out/{number}.png"], manifest.key("in.png"))

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
    manifest = Manifest("out", {})
    manifest.note("out/in.png", ["out/in.png"], manifest.key("gone.png"))
    assert not (folder / "out" / NAME).exists()
