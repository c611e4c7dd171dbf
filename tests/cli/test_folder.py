"""Folders that nobody watches: what is made, what is removed, what waits, and what no accident leaves behind."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from styletools import manifest, streams
from styletools.cli import _folder, st_apply
from styletools.cli._loop import Source, find_sources
from styletools.manifest import LOCK, NAME


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that these tests have in common, so that the graph of the model is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_common(isolated, cache, monkeypatch):
    """Use the common cache."""
    monkeypatch.setenv("STYLETOOLS_CACHE", str(cache))


@pytest.fixture
def apply(call, live_model, picture):
    """Run st-apply with the tiny model: apply("in", "-o", "out/") returns the status."""
    picture("s.png", 40, 36, seed=99)

    def run(*words):
        status, run.out, run.err = call("st-apply", "-m", live_model, "-s", "s.png", *words)
        return status

    return run


@pytest.fixture
def program(start, live_model, picture):
    """Start st-apply as a program, with the tiny model."""
    picture("s.png", 40, 36, seed=99)
    return lambda *words: start("st-apply", "-m", live_model, "-s", "s.png", *words)


@pytest.fixture
def inputs(picture):
    """Twelve pictures of two sizes below in/."""
    for number in range(12):
        picture(f"in/{'deep/' * (number % 3)}{number:02}.png", 24 + 8 * (number % 2), 20, seed=number)


def below(folder):
    """Return the files below a folder, hidden ones too, and their bytes, but for the manifest."""
    if not Path(folder).exists():
        return {}
    found = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != NAME}


def until(condition, seconds=60):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def ended(process):
    """Return the status and standard error of a program that is about to end."""
    return process.wait(60), process.stderr.read().decode()


# ---- what is up to date ----------------------------------------------------------------------------------


def test_it_is_the_content_that_counts(apply, inputs):
    assert apply("in", "-o", "out/") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    for path in Path("in").rglob("*.png"):
        path.touch()
    Path("in").rename("other")
    assert apply("other", "-o", "out/", "--check") == 0 and apply.out == b""
    assert apply("other", "-o", "out/", "-v") == 0 and "all 12 are up to date" in apply.err
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")} == before
    assert apply("other", "-o", "out/", "--check", "--precise") == 1 and apply.out == b"out/: 12 of 12 to be made\n"


def test_looking_leaves_no_trace(apply, inputs, folder):
    for words in (["--check"], ["-n"], ["--check", "--prune"], ["-n", "--prune"]):
        assert apply("in", "-o", "out/", *words) == (1 if "--check" in words else 0)
        assert not (folder / "out").exists()


def test_nothing_to_do_loads_nothing_heavy(apply, inputs, sh, live_model):
    """Not even numpy, on which all else rests."""
    assert apply("in", "-o", "out/") == 0
    for name in ("torch", "numpy", "PIL", "openvino", "ray"):
        Path("stub", name).mkdir(parents=True)
        Path("stub", name, "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    for words in ("", "--check", "-n", "--prune", "--shard 1/2", "-MD deps.d"):
        done = sh(f"st-apply -m {live_model} -s s.png in -o out/ {words}", PYTHONPATH=str(Path("stub").absolute()))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), words


def test_outputs_that_lost_their_input(apply, inputs, picture):
    assert apply("in", "-o", "out/") == 0
    picture("named.png")
    assert apply("named.png", "-o", "out/") == 0 and apply.err == "", "nobody looked into in/"
    Path("in/00.png").unlink()
    Path("in/deep/01.png").rename("in/deep/new.png")
    assert apply("in", "-o", "out/") == 0
    assert apply.err.count("lost its input") == 2 and "out/deep/01.png: lost its input" in apply.err
    assert "deep/01.png" in below("out") and "deep/new.png" in below("out")
    assert apply("in", "-o", "out/", "--shard", "2/2", "--prune") == 0 and "deep/01.png" in below("out")
    assert apply("in", "-o", "out/", "--prune") == 0 and apply.err == ""
    assert sorted(below("out")) == sorted([*below("in"), "named.png"])
    Path("in").rename("away")
    Path("in").mkdir()
    assert apply("in", "-o", "out/", "--prune") == 0, "a disk that is not there is no reason to remove everything"
    assert sorted(below("out")) == sorted([*below("away"), "named.png"])


# ---- side by side ----------------------------------------------------------------------------------------


def test_the_same_bytes_in_any_order_by_any_number(apply, inputs, live_model, call):
    """Pictures of one size in a row make no difference either."""
    for engine in ("graph", "torch"):
        assert apply("in", "-o", f"{engine}/", "--engine", engine, "-j", "1") == 0, apply.err
        made = below(engine)
        assert sorted(made) == sorted(below("in"))
        for shard in ("3/3", "1/3", "2/3"):
            assert apply("in", "-o", f"{engine}-shards/", "--engine", engine, "-j", "3", "--shard", shard) == 0
        names = sorted(below("in"), key=lambda name: (Image.open(f"in/{name}").size, name), reverse=True)
        assert apply(*(f"in/{name}" for name in names), "-o", f"{engine}-named/", "--engine", engine) == 0
        named = {os.path.basename(name): data for name, data in made.items()}
        assert below(f"{engine}-shards") == made and below(f"{engine}-named") == named, engine


@pytest.mark.slow
def test_a_row_of_one_size_makes_no_difference(call, picture):
    """The bundled model, whose graph is compiled for one size after some pictures of it, if it may be."""
    for number in range(20):
        picture(f"in/{number:02}.png", 96, 64, seed=number)
    assert call("st-apply", "-s", "great-wave", "in", "-o", "out/", "--engine", "graph")[0] == 0
    assert call("st-apply", "-s", "great-wave", "in/19.png", "-o", "alone/", "--engine", "graph")[0] == 0
    assert below("out")["19.png"] == below("alone")["19.png"]


def test_shards_are_stable_and_make_everything_once(folder):
    sources = [Source(f"in/{number}.png", "in") for number in range(200)]
    for count in (1, 2, 7):
        shards = [[s for s in sources if _folder.in_shard(s, (i + 1, count))] for i in range(count)]
        assert sorted(s.name for shard in shards for s in shard) == sorted(s.name for s in sources)
        assert all(shards)
    moved = [Source(f"/somewhere/{number}.png", "/somewhere") for number in range(200)]
    for old, new in zip(sources, moved, strict=True):
        assert _folder.in_shard(old, (3, 7)) == _folder.in_shard(new, (3, 7))


def test_a_second_run_waits_or_ends_with_75(apply, inputs, program, folder):
    Path("out").mkdir()
    with manifest.locked("out"):
        second = program("in", "-o", "out/", "--no-wait")
        assert ended(second) == (75, "st-apply: out/: another run is at work there\n")
        waiting, shard = program("in", "-o", "out/"), program("in", "-o", "out/", "--shard", "1/2")
        for process in (waiting, shard):
            assert b"another run is at work there; this one waits" in process.stderr.readline()
        assert apply("in", "-o", "out/", "-n") == 0 and apply("in", "-o", "out/", "--check") == 1
        Path("in/00.png").unlink()  # before they had their turn: no failure
        assert below("out") == {LOCK: b""}
    for process in (waiting, shard):
        assert ended(process) == (0, "")
    assert sorted(below("out")) == sorted(below("in"))


# ---- accidents -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_finishes_what_is_at_work(program, apply, picture):
    for number in range(30):
        picture(f"in/{number:02}.png", 160, 120, seed=number)
    process = program("in", "-o", "out/", "--engine", "torch")
    until(lambda: len(below("out")) > 3)
    process.terminate()
    assert ended(process) == (-signal.SIGTERM, "")
    made = below("out")
    assert 3 <= len(made) < 30 and all(name.endswith(".png") for name in made), "nothing half, no lock"
    noted = (Path("out") / NAME).read_text().count("\n")
    assert noted == len(made), "all that is made is noted"
    assert apply("in", "-o", "out/", "--engine", "torch", "-n") == 0
    assert apply.out.count(b"\n") == 30 - len(made)


def running(script, environment):
    """Start a program that imports styletools."""
    words = [sys.executable, "-c", script]
    path = str(Path(manifest.__file__).parents[1])
    return subprocess.Popen(words, stdout=subprocess.PIPE, env=environment | {"PYTHONPATH": path})


def test_a_second_sigterm_does_not_wait(tmp_path, environment):
    script = """
import os, signal, time
from styletools.cli import _command
@_command.command("st-test")
def main():
    with _command.finishing():
        print("working", flush=True)
        time.sleep(60)
main.main([])
"""
    with running(script, environment) as process:
        assert process.stdout.readline() == b"working\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_what_is_half_written_goes_with_a_signal(number, folder, environment):
    script = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as if no nohup ran the tests
from styletools import files
from styletools.cli import _command
@_command.command("st-test")
def main():
    with files.atomic("a.png") as out:
        out.write(b"half")
        print("writing", flush=True)
        time.sleep(60)
main.main([])
"""
    with running(script, environment) as process:
        assert process.stdout.readline() == b"writing\n" and len(os.listdir()) == 1
        process.send_signal(number)
        assert process.wait(20) == -number
    assert os.listdir() == []


@pytest.fixture
def disk(folder):
    """Mount a small disk of its own: disk(kilobytes) returns the folder."""
    mounted = []

    def mount(kilobytes):
        path = folder / f"disk{len(mounted)}"
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(path)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_fills_up(apply, picture, disk):
    for number in range(8):
        picture(f"in/{number}.png", 100, 80, seed=number)  # 24 kB each
    small = disk(60)
    assert apply("in", "-o", f"{small}/out/") == 1
    made = below(small / "out")
    assert apply.err.count("no space left on device") == apply.err.count("\n") == 8 - len(made)
    assert 0 < len(made) < 8 and all(streams.open_image(small / "out" / name) for name in made)
    subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
    assert apply("in", "-o", f"{small}/out/") == 0
    assert sorted(below(small / "out")) == sorted(below("in"))
    assert made.items() <= below(small / "out").items()
    assert apply("in", "-o", f"{small}/out/", "--check") == 0


def test_a_target_that_cannot_be_written(apply, inputs, disk):
    target = disk(100)
    subprocess.run(["mount", "-o", "remount,ro", str(target)], check=True)
    assert apply("in", "-o", f"{target}/out/") == 73 and "read-only" in apply.err and apply.err.count("\n") == 1
    assert apply("in", "-o", f"{target}/out/", "-n") == 73


def test_inputs_that_vanish_or_change(apply, inputs, monkeypatch):
    """One goes and another changes after the folder was looked through."""
    see = manifest.Manifest.see

    def late(self, source):
        if source.endswith("in/03.png"):
            os.unlink(source)
        seen = see(self, source)
        if source.endswith("in/06.png"):
            Image.new("RGB", (50, 40)).save(source)
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(manifest.Manifest, "see", late)
        assert apply("in", "-o", "out/", "-j", "1") == 1
    assert apply.err == "st-apply: in/03.png: no such file or directory\n"
    assert sorted(below("out")) == sorted(below("in"))
    assert apply("in", "-o", "out/") == 0, "it is made again, as nobody knows which of the two was read"
    assert Image.open("out/06.png").size == (50, 40)


def test_pipes_in_folders_are_passed_over(folder, picture):
    picture("in/a.png")
    os.mkfifo("in/b.png")
    os.symlink("gone.png", "in/c.png")
    assert [source.path for source in find_sources(["in"])] == ["in/a.png", "in/c.png"]


@pytest.fixture
def restricted(sh):
    """Run a line of bash so that permissions hold even for root."""
    words = "exec setpriv --bounding-set -dac_override,-dac_read_search"
    if os.geteuid():
        return sh
    if sh(f"{words} true").returncode:
        pytest.skip("root cannot be kept from reading everything without setpriv")
    return lambda line: sh(f"{words} bash -c '{line}'")


def test_what_must_not_be_read_or_written(restricted, picture, live_model, folder):
    for name in ("s.png", "in/a.png", "in/secret.png", "in/deep/b.png"):
        picture(name, 40, 36)
    (folder / "out/deep").mkdir(parents=True)
    picture("in/closed/c.png")
    os.chmod("in/closed", 0)
    os.chmod("in/secret.png", 0)
    os.chmod("out/deep", 0o555)
    command = f"st-apply -m {live_model} -s s.png in -o out/"
    done = restricted(command)
    assert done.returncode == 1
    assert sorted(done.stderr.decode().splitlines()) == [
        "st-apply: in/closed: permission denied", "st-apply: in/deep/b.png: out/deep/b.png: permission denied",
        "st-apply: in/secret.png: permission denied",
    ]  # fmt: skip
    assert sorted(below("out")) == ["a.png"]
    os.chmod("in/closed", 0o755)
    os.chmod("in/secret.png", 0o444)
    os.chmod("out/deep", 0o755)
    assert restricted(command).returncode == 0
    assert sorted(below("out")) == ["a.png", "closed/c.png", "deep/b.png", "secret.png"]
    os.chmod("out", 0o555)
    done = restricted(f"{command} --force")
    assert (done.returncode, done.stderr) == (77, b"st-apply: out/: permission denied\n")
    os.chmod("out", 0o755)


# ---- what arrives ----------------------------------------------------------------------------------------


def test_who_writes_while_one_looks_does_no_harm(folder, monkeypatch):
    """The system tells whom it takes the lease from, by a signal."""
    Path("a.png").write_bytes(b"a")
    control, writers, told = fcntl.fcntl, [], []

    def late(file, command, *values):
        if (command, *values) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
            writers.append(subprocess.Popen(["sh", "-c", "echo >> a.png"]))
            until(lambda: "urgent" in told)
            assert writers[0].poll() is None
        return control(file, command, *values)

    monkeypatch.setattr(fcntl, "fcntl", late)
    numbers = {signal.SIGIO: "end", signal.SIGURG: "urgent"}
    before = {n: signal.signal(n, lambda number, frame: told.append(numbers[number])) for n in numbers}
    try:
        assert not _folder._is_being_written("a.png")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert told == ["urgent"] and writers[0].wait(60) == 0


@pytest.mark.slow
def test_watching(program, picture, folder):
    """What is there, what comes, what is slow to come, what is broken and mended; then the end."""
    picture("in/a.png")
    process = program("in", "-o", "out/", "--watch")
    until(lambda: "a.png" in below("out"))
    picture("elsewhere/b.png", seed=2)
    (folder / "elsewhere").rename("in/more")
    whole = picture("c.png", seed=3).read_bytes()
    with open("in/c.png", "wb") as slow:
        slow.write(whole[:30])
        slow.flush()
        until(lambda: "more/b.png" in below("out"))
        time.sleep(2 * _folder.EVERY)
        slow.write(whole[30:])
    until(lambda: "c.png" in below("out"))
    (folder / "in/d.png").write_bytes(whole[:30])
    line = process.stderr.readline()
    assert b"in/d.png" in line
    (folder / "in/d.png").write_bytes(whole)
    until(lambda: "d.png" in below("out"))
    before = below("out")["a.png"]
    picture("in/a.png", seed=9)
    until(lambda: below("out").get("a.png") != before)
    assert ended(program("in", "-o", "out/", "--no-wait"))[0] == 75
    process.terminate()
    assert ended(process) == (-signal.SIGTERM, "")
    assert sorted(below("out")) == ["a.png", "c.png", "d.png", "more/b.png"]
    assert (Path("out") / NAME).read_text().count("\n") == 5, "each as it was made"


@pytest.mark.slow
def test_watching_takes_no_more_memory_in_time(program, picture, folder):
    picture("in/first.png")
    process = program("in", "-o", "out/", "--watch")
    until(lambda: "first.png" in below("out"))

    def resident():
        return next(int(line.split()[1]) for line in Path(f"/proc/{process.pid}/status").open() if "VmRSS" in line)

    sizes = []
    for burst in range(3):
        for number in range(70):
            picture(f"new/{burst}-{number}.png", 16, 16, seed=number)
        (folder / "new").rename(f"in/{burst}")
        until(lambda burst=burst: len(below(f"out/{burst}")) == 70 and not list(Path("out").rglob("*.part")))
        sizes.append(resident())
    process.send_signal(signal.SIGINT)
    assert ended(process) == (-signal.SIGINT, "")
    assert sizes[-1] < sizes[0] + 16_000, "kB"  # 140 pictures: no tenth of a megabyte of each; threads cost some once


# ---- what make knows -------------------------------------------------------------------------------------


NAMES = ["plain.png", "a b.png", "#x$y%.png", "a:b=c.png", "t~[1]*?.png", "q'\"`.png", "back\\slash.png", "b\\ #.png",
         "(x)|{y}&!@,+^.png", "ünïcode 画.png"]  # fmt: skip


def test_make_knows_what_is_out_of_date(apply, picture, folder):
    for name in NAMES:
        picture(f"in/{name}")
    assert apply("in", "-o", "out/", "-MD", "deps.d") == 0 and apply.err == ""
    (folder / "Makefile").write_text("include deps.d\nout/%.png:\n\t@printf '%s\\n' $(call quoted,$@)\n"
                                     "quoted = '$(subst ','\\'',$1)'\n")  # fmt: skip

    def out_of_date():
        done = subprocess.run(["make", "-s", *(f"out/{name}" for name in NAMES)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [os.path.basename(name) for name in done.stdout.splitlines() if name.startswith("out/")]

    assert out_of_date() == []
    later = time.time() + 100
    for name in NAMES:
        os.utime(f"in/{name}", (later, later))
        assert out_of_date() == [name]
        os.utime(f"in/{name}", (1, 1))
    os.utime("s.png", (later, later))
    assert out_of_date() == NAMES, "the style"
    os.utime("s.png", (1, 1))
    for name in NAMES:
        os.unlink(f"in/{name}")
    assert out_of_date() == NAMES, "an input that is gone is no error of make"


@pytest.mark.parametrize("name", ["a;b", "a\nb", "a\rb", "a\tb", "a ", "a\\", "a&", "a(b)", "50%=a", "%*", "[\\"])
def test_make_is_not_told_what_it_would_misread(name, folder, capsys):
    _folder.write_dependencies("deps.d", {"out": [name], "out2": ["in"]}, [])
    assert "out:" not in Path("deps.d").read_text() and "out2: in\n" in Path("deps.d").read_text()
    assert "out: left out of deps.d, since make cannot read such names" in capsys.readouterr().err


def test_dependencies_of_what_is_up_to_date_and_of_single_files(apply, picture, folder, live_model):
    picture("in/a.png")
    picture("in/b;.png")
    assert apply("in", "-o", "out/") == 0
    assert apply("in", "-o", "out/", "-MD", "deps.d") == 0
    assert "make cannot read such names" in apply.err
    assert f"out/a.png: in/a.png {live_model} s.png\n" in Path("deps.d").read_text()
    assert "b;" not in Path("deps.d").read_text()
    assert apply("in/a.png", "-o", "x.png", "-MD", "x.d") == 0
    assert f"x.png: in/a.png {live_model} s.png\n" in Path("x.d").read_text()
    assert apply("in/a.png", "in/b;.png", "-o", "f%d.png", "-MD", "f.d") == 0
    assert f"f1.png: in/a.png {live_model} s.png\n" in Path("f.d").read_text()
    assert apply("gone.png", "in/a.png", "-o", "one/", "-MD", "one.d") == 1
    assert "one/a.png: in/a.png" in Path("one.d").read_text() and "gone" not in Path("one.d").read_text()
    assert apply("in/a.png", "-MD", "y.d") == 2 and not Path("y.d").exists()


# ---- words -----------------------------------------------------------------------------------------------


def test_help_is_in_sections(call):
    status, out, _ = call("st-apply", "--help")
    titles = [line for line in out.decode().splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert status == 0
    assert titles == ["Style:", "Input and output:", "Folders:", "Speed and limits:", "Others:"]
    own = {option.opts[-1] for option in st_apply.main.params if option.opts[-1].startswith("-")}
    assert all(out.decode().count(f"{name} ") for name in own)


def test_names_that_come_one_by_one(call, picture, live_model, folder):
    """They are neither read nor made with -n, and divided like others."""
    names = [f"in/{number}.png" for number in range(9)]
    lines = "\n".join(names).encode()
    command = ["-m", live_model, "-s", picture("s.png", 40, 36), "--files-from", "-", "-o", "out/", "-n"]
    status, out, _ = call("st-apply", *command, stdin=lines)
    assert status == 0 and out.decode().split("\n")[:-1] == [f"{name}\t{name.replace('in', 'out')}" for name in names]
    parts = [call("st-apply", *command, "--shard", f"{i}/2", stdin=lines)[1].splitlines() for i in (1, 2)]
    assert all(parts) and sorted(sum(parts, [])) == out.splitlines()
    assert not (folder / "out").exists()
    assert call("st-apply", *command[:-1], "--check", stdin=lines)[0] == 2
