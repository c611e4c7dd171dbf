"""The loop of every command, with a cheap function, and with st-cat as the program."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from styletools import errors, files, streams
from styletools.cli import _loop
from styletools.cli._loop import Deferred, Source, Target, find_sources, gather, run


def negative(image):
    """What the loop is tested with: cheap, and seen in the result."""
    return streams.Image(255 - image.array, image.name, image.index, image.meta)


def read(path):
    """Return the pixels of a file."""
    return streams.open_image(path).array


def paths(sources):
    return [source.path for source in sources]


# ---- what is read ----------------------------------------------------------------------------------------


def test_folders_are_walked_in_order_without_hidden_and_unknown_files(folder, picture):
    for name in ("in/b.png", "in/a/c.PNG", "in/.hidden.png", "in/.git/d.png", "in/z.jpg"):
        picture(name)
    (folder / "in/notes.txt").write_text("no picture")
    (folder / "elsewhere").mkdir()
    (folder / "in/link").symlink_to(folder / "elsewhere")
    assert paths(find_sources(["in"])) == ["in/b.png", "in/z.jpg", "in/a/c.PNG"]
    assert paths(find_sources(["in/.hidden.png", "in/notes.txt"])) == ["in/.hidden.png", "in/notes.txt"]
    assert paths(find_sources([])) == ["-"]


def test_the_output_folder_inside_the_input_folder_is_not_read(folder, picture):
    picture("in/a.png")
    picture("in/out/old.png")
    target = Target("in/out/", None)
    assert paths(find_sources(["in"], target=target)) == ["in/a.png"]
    assert run(find_sources(["in"], target=target), target, negative) == 0
    assert sorted(p.name for p in (folder / "in/out").iterdir()) == ["a.png", "old.png"]


def test_lists_of_names(folder):
    (folder / "lines").write_bytes(b"a.png\n\nwith space.png\n-dash.png")
    (folder / "nulls").write_bytes(b"new\nline.png\0b\xff.png\0")
    assert paths(find_sources(["first.png"], "lines")) == ["first.png", "a.png", "with space.png", "-dash.png"]
    assert paths(find_sources([], "nulls", null=True)) == ["new\nline.png", os.fsdecode(b"b\xff.png")]
    with pytest.raises(errors.MissingInput, match="gone"):
        list(find_sources([], "gone"))
    with pytest.raises(errors.UsageError, match="both"):
        list(find_sources(["-"], "-"))


# ---- where it goes ---------------------------------------------------------------------------------------


def test_the_tree_is_kept_in_an_output_folder(folder, picture):
    picture("in/a.png", seed=1)
    picture("in/deep/er/b.png", seed=2)
    target = Target("out/", None)
    assert run(find_sources(["in"], target=target), target, negative) == 0
    assert (read("out/a.png") == 255 - read("in/a.png")).all()
    assert (read("out/deep/er/b.png") == 255 - read("in/deep/er/b.png")).all()
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["a.png", "a.png", "b.png", "b.png"]


def test_extensions_follow_the_format(folder, picture):
    assert Target("out/", None).file_for(Source("in/a.JPG", "in")) == "out/a.JPG"
    assert Target("out/", "png").file_for(Source("in/a.jpg", "in")) == "out/a.png"
    assert Target("out/", None).file_for(Source("in/a.gif", "in")) == "out/a.png"
    assert Target("out/", None, "safetensors").file_for(Source("in/a.jpg", "in")) == "out/a.safetensors"
    assert Target("out/", None).file_for(Source("-")) == "out/stdin.png"
    assert Target("out/", None).file_for(Source("a.png"), 2) == "out/a-000003.png"


def test_pattern_numbers_the_results(folder, picture, capsys):
    picture("in/a.png", seed=1)
    picture("in/b.png", seed=2)
    (folder / "in/a1.png").write_bytes(b"broken")
    target = Target("100%/frame-%03d.png", None)
    assert run(find_sources(["in"]), target, negative) == 1
    # The broken one keeps its number.
    assert sorted(p.name for p in (folder / "100%").iterdir()) == ["frame-001.png", "frame-003.png"]
    assert (read("100%/frame-003.png") == 255 - read("in/b.png")).all()
    assert "in/a1.png" in capsys.readouterr().err


def test_pattern_without_width(folder, picture):
    picture("a.png")
    assert run(find_sources(["a.png"]), Target("f%d.png", None), negative) == 0
    assert (folder / "f1.png").exists()


def test_two_inputs_for_one_output_are_refused(folder, picture, capsys):
    picture("in/a.png", seed=1)
    picture("in/a.jpg", seed=2)
    target = Target("out/", "png")
    assert run(find_sources(["in"]), target, negative) == 1
    assert "would overwrite out/a.png, which is the result of in/a.jpg" in capsys.readouterr().err
    assert np.abs(read("out/a.png").astype(int) - (255 - read("in/a.jpg").astype(int))).max() == 0


def test_same_name_in_two_folders_is_refused_rather_than_lost(folder, picture, capsys):
    picture("x/a.png", seed=1)
    picture("y/a.png", seed=2)
    assert run(find_sources(["x", "y"]), Target("out/", None), negative) == 1
    assert "would overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["in/", "in/./", "link/"])
def test_an_input_is_never_overwritten_by_its_own_result(folder, picture, capsys, output):
    picture("in/a.png")
    before = (folder / "in/a.png").read_bytes()
    (folder / "link").symlink_to("in")
    assert run(find_sources(["in/a.png"]), Target(output, None), negative) == errors.UsageError.status
    assert (folder / "in/a.png").read_bytes() == before
    assert "would be overwritten" in capsys.readouterr().err


def test_the_one_output_is_never_one_of_the_inputs(folder, picture):
    picture("a.ppm", seed=1)
    picture("b.ppm", seed=2)
    before = (folder / "b.ppm").read_bytes()
    with pytest.raises(errors.UsageError, match="b.ppm: is input and output"):
        run(find_sources(["a.ppm", "b.ppm"]), Target("b.ppm", None), negative)
    assert (folder / "b.ppm").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["a.ppm", "b.ppm"]


def test_what_cannot_be_created_is_found_before_the_work(folder, picture):
    picture("a.png")
    for output, error in [
        ("a.png/x.png", errors.CannotCreate),
        ("a.png/deep/", errors.CannotCreate),
        ("x.unknown", errors.UsageError),
        ("noextension", errors.UsageError),
    ]:
        with pytest.raises(error):
            Target(output, None).check()
    for output in ("new/folder/", "new/x.png", "new/%d.png", "-"):
        Target(output, "png").check()
    assert sorted(p.name for p in folder.iterdir()) == ["a.png"]


def test_formats_of_the_wrong_kind_are_refused():
    for output, to_format in [("x.png", None), (None, "ppm"), ("%d.jpg", None), ("x.safetensors", "png")]:
        with pytest.raises(errors.UsageError, match="cannot hold tensors"):
            Target(output, to_format, holds="tensors")
    with pytest.raises(errors.UsageError, match="cannot hold pictures"):
        Target("x.npz", None, holds="image")
    Target("x.tar", None, holds="tensors")
    Target("x.png", "safetensors", holds="tensors")


def test_no_result_gives_an_empty_file_where_one_is_named(sh, folder):
    assert sh("st-cat -o out.png").returncode == 0
    assert (folder / "out.png").read_bytes() == b""


# ---- failures --------------------------------------------------------------------------------------------


def test_one_bad_of_several_is_1_and_the_others_are_done(folder, picture, capsys):
    for name in ("a", "c"):
        picture(f"{name}.png")
    (folder / "b.png").write_bytes(b"not a picture")
    target = Target("out/", None)
    assert run(find_sources(["a.png", "b.png", "gone.png", "c.png"]), target, negative) == 1
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a.png", "c.png"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "b.png: " in lines[0] and "gone.png: no such file" in lines[1]


def test_a_single_bad_one_has_its_own_status(folder, capsys):
    (folder / "b.png").write_bytes(b"not a picture")
    (folder / "empty.png").write_bytes(b"")
    for name, status in [("b.png", 65), ("gone.png", 66), ("empty.png", 65), (".", 65)]:
        assert run([Source(name)], Target("out/", None), negative) == status
    for kind in (errors.Unavailable, errors.DoesNotFit, errors.TryAgain, MemoryError, ZeroDivisionError):
        status = {MemoryError: 75, ZeroDivisionError: 70}.get(kind, getattr(kind, "status", None))

        def fail(record, kind=kind):
            raise kind("why")

        (folder / "good.ppm").write_bytes(b"P6 1 1 255\nabc")
        if kind is errors.Unavailable:
            with pytest.raises(errors.Unavailable):
                run([Source("good.ppm")], Target("out/", None), fail)
        else:
            assert run([Source("good.ppm")], Target("out/", None), fail) == status
    assert "Traceback" not in capsys.readouterr().err


def test_fail_fast_stops_at_the_first(folder, picture, capsys):
    for name in ("a", "c"):
        picture(f"{name}.png")
    (folder / "b.png").write_bytes(b"not a picture")
    assert run(find_sources(["a.png", "b.png", "c.png"]), Target("out/", None), negative, fail_fast=True) == 1
    assert [p.name for p in (folder / "out").iterdir()] == ["a.png"]


def test_a_failed_only_result_leaves_the_older_file(folder, capsys):
    (folder / "out.png").write_bytes(b"older")
    assert run([Source("gone.png")], Target("out.png", None), negative) == 66
    assert (folder / "out.png").read_bytes() == b"older"


def test_an_unwritable_folder_is_each_records_failure(folder, picture, capsys):
    picture("a.png")
    picture("b.png")
    (folder / "out").mkdir()
    (folder / "out/a.png").mkdir()
    assert run(find_sources(["a.png", "b.png"]), Target("out", None), negative) == 1
    assert "out/a.png: is a directory" in capsys.readouterr().err
    assert (folder / "out/b.png").is_file()


def test_deferred_functions_are_made_only_for_records(folder, picture, capsys):
    made = []

    def make():
        made.append(1)
        return negative

    assert run([Source("gone.png")], Target("out/", None), Deferred(make)) == 66
    assert not made
    picture("a.png")
    picture("b.png")
    assert run(find_sources(["a.png", "b.png"]), Target("out/", None), Deferred(make)) == 0
    assert made == [1]

    def fail():
        raise errors.Unavailable("no weights")

    with pytest.raises(errors.Unavailable):
        run(find_sources(["a.png", "b.png"]), Target("out/", None), Deferred(fail))


def test_finished_files_are_told(folder, picture):
    picture("a.png")
    told = []
    run(find_sources(["a.png"]), Target("out/", None), negative, finished=lambda *what: told.append(what))
    assert told == [(Source("a.png"), ["out/a.png"])]


def test_gather_shows_all_records_and_stops_at_the_first_failure(folder, picture):
    picture("a.ppm", seed=1)
    picture("b.ppm", seed=2)
    (folder / "two.ppm").write_bytes((folder / "a.ppm").read_bytes() + (folder / "b.ppm").read_bytes())
    seen = []

    def see(source, record):
        seen.append((source.path, record.index))

    assert gather(find_sources(["a.ppm", "two.ppm"]), see) == 3
    assert seen == [("a.ppm", 0), ("two.ppm", 0), ("two.ppm", 1)]
    with pytest.raises(errors.MissingInput, match="gone.ppm: no such file"):
        gather(find_sources(["a.ppm", "gone.ppm"]), lambda source, record: None)

    def fail(source, record):
        raise errors.DoesNotFit("does not")

    with pytest.raises(errors.DoesNotFit, match=r"^two\.ppm: does not$"):
        gather(find_sources(["two.ppm"]), fail)


def test_stale_part_files_are_swept_and_living_ones_kept(folder, picture):
    picture("a.png")
    (folder / "out").mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    with files.atomic(folder / "out/x.png") as out:
        pattern = Path(out.name).name
    stale, living = (
        folder / "out" / pattern.replace(f".{os.getpid()}-", f".{pid}-") for pid in (ended.pid, os.getpid())
    )
    stale.touch()
    living.touch()
    run(find_sources(["a.png"]), Target("out/", None), negative)
    assert living.exists() and not stale.exists()


# ---- as a program ----------------------------------------------------------------------------------------


@pytest.fixture
def big(folder):
    """A picture of 12 MB."""
    path = folder / "big.ppm"
    path.write_bytes(b"P6\n2000 2000\n255\n" + bytes(12_000_000))
    return path


def parts(folder):
    return [str(p) for p in folder.rglob(".*.part")]


def test_a_closed_pipe_ends_by_sigpipe_in_silence(sh, big):
    done = sh('st-cat big.ppm big.ppm | head -c1; echo " ${PIPESTATUS[0]}"')
    assert done.stdout.endswith(b" 141\n") and done.stderr == b""
    for command in ("st-cat -l big.ppm big.ppm", "st-model list"):
        done = sh(f'{command} | true; echo "${{PIPESTATUS[0]}}"')
        assert done.stdout == b"141\n" and done.stderr == b""


def test_a_full_disk_is_try_again(sh, big):
    for line in ("st-cat big.ppm > /dev/full", "st-cat -l big.ppm > /dev/full", "st-cat big.ppm --to png -o /dev/full"):
        done = sh(line)
        assert done.returncode == errors.TryAgain.status, line
        assert done.stderr == b"st-cat: no space left on device\n"


def test_closed_standard_streams(sh, big):
    assert sh("st-cat big.ppm >&-").returncode == errors.InputOutputError.status
    assert sh("st-cat <&-").returncode == errors.InputOutputError.status
    assert sh("st-cat gone.ppm 2>&-").returncode == errors.MissingInput.status
    assert sh("st-cat big.ppm -o out.ppm <&- >&- 2>&-").returncode == 0
    assert sh("cmp big.ppm out.ppm").returncode == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM)], ids=["int", "term"]
)
@pytest.mark.parametrize("output", ["out.ppm", "out/"])
def test_signals_end_it_and_leave_no_part_files(start, folder, big, number, status, output):
    (folder / "out.ppm").write_bytes(b"older")
    process = start("st-cat", "big.ppm", "-", "big.ppm", "-o", output)
    process.stdin.write(b"P6 4 4 255\n")
    ready = (lambda: parts(folder)) if output == "out.ppm" else (lambda: (folder / "out/big.ppm").exists())
    until(ready)
    process.send_signal(number)
    assert process.wait(20) == status
    assert process.stderr.read() == b""
    assert parts(folder) == []
    assert (folder / "out.ppm").read_bytes() == b"older"


def until(condition, seconds=30):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_sigkill_in_the_middle_of_a_folder_leaves_no_broken_file(start, sh, folder, big):
    for i in range(30):
        os.link(big, folder / f"in{i:02}.ppm")
    names = [f"in{i:02}.ppm" for i in range(30)]
    process = start("st-cat", *names, "-o", "out/")
    until(lambda: (folder / "out").is_dir() and len(list((folder / "out").glob("*.ppm"))) > 2)
    process.kill()
    process.wait()
    made = [p for p in (folder / "out").iterdir() if not p.name.startswith(".")]
    assert 2 < len(made) <= 30
    assert {p.stat().st_size for p in made} == {big.stat().st_size}
    assert sh("st-cat in00.ppm -o out/").returncode == 0
    assert parts(folder) == []


def frame(number):
    return b"P6\n2 1\n255\n" + bytes([number] * 6)


def test_each_record_comes_out_before_the_next_goes_in(start):
    process = start("st-cat")
    for number in range(5):
        for byte in frame(number):
            process.stdin.write(bytes([byte]))
        assert read_exactly(process.stdout, len(frame(number))) == frame(number)
    process.stdin.close()
    assert process.wait(20) == 0
    assert process.stdout.read() == b""


def read_exactly(stream, size):
    found = b""
    while len(found) < size and (more := stream.read(size - len(found))):
        found += more
    return found


def test_a_list_on_standard_input_keeps_a_warm_process(start, folder, picture):
    process = start("st-cat", "--files-from", "-", "-o", "out/")
    for number in range(3):
        picture(f"{number}.ppm", seed=number)
        process.stdin.write(b"%d.ppm\n" % number)
        until(lambda number=number: (folder / f"out/{number}.ppm").exists())
    process.stdin.close()
    assert process.wait(20) == 0


def test_a_warm_process_finishes_a_video_before_the_next_name(start, folder):
    (folder / "v.y4m").write_bytes(b"YUV4MPEG2 W2 H2 C444\n" + 3 * (b"FRAME\n" + bytes(range(12))))
    process = start("st-cat", "--files-from", "-", "-o", "out/")
    process.stdin.write(b"v.y4m\n")
    until((folder / "out/v.y4m").exists)
    assert len(list(streams.read((folder / "out/v.y4m").open("rb")))) == 3
    process.stdin.close()
    assert process.wait(20) == 0


def test_memory_does_not_grow_with_a_stream(folder):
    """Nothing is kept of what is through, but for the names in a folder, which must not be used twice."""
    import tracemalloc

    frame = streams.Image(np.zeros((1, 1, 3), np.uint8))
    with open("many.ppm", "wb") as out, streams.writer(out, "ppm") as writer:
        for _ in range(3000):
            writer.write(frame)
    sizes = []

    def look(record):
        if record.index in (1000, 2900):
            sizes.append(tracemalloc.get_traced_memory()[0])
        return record

    tracemalloc.start()
    try:
        assert run(find_sources(["many.ppm"]), Target("out.ppm", None), look) == 0
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 100_000


def test_names_with_newlines_and_dashes(sh, folder, picture):
    for name in ("new\nline.ppm", "-dash.ppm", "a b.ppm"):
        picture(name)
    assert sh("find . -name '*.ppm' -print0 | st-cat -0 --files-from - -o out/").returncode == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted(["new\nline.ppm", "-dash.ppm", "a b.ppm"])
    assert sh("st-cat -c -- -dash.ppm").stdout == b"1\n"
    done = sh("st-cat $'gone\\nfile'")
    assert done.returncode == 66 and done.stderr == b"st-cat: gone file: no such file or directory\n"


def test_damage_in_a_pipe_ends_it_after_what_was_whole(sh):
    done = sh("st-cat", stdin=frame(1) + frame(2) + b"P6\n2 1\n255\nabc")
    assert done.returncode == errors.DataError.status
    assert done.stdout == frame(1) + frame(2)
    assert done.stderr.startswith(b"st-cat: <stdin>: ") and done.stderr.count(b"\n") == 1
    assert sh("st-cat", stdin=b"nothing known, and long enough").returncode == errors.DataError.status


def test_empty_input_is_empty_output(sh):
    done = sh("st-cat")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_terminals_are_usage_errors(start, sh, folder, picture):
    picture("a.png")
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    for words in (["st-cat", "a.png"], ["st-cat", "-o", "x.png"], ["st-cat", "--files-from", "-", "-o", "out/"]):
        process = start(sys.executable, "-c", script, *words)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == errors.UsageError.status
        assert b"terminal" in output


BIN = Path(__file__).parents[2] / "bin"


def test_what_is_not_permitted(folder, environment, picture):
    picture("secret.png").chmod(0)
    picture("locked/a.png")
    picture("open.png")
    (folder / "locked").chmod(0)
    (folder / "kept").mkdir(mode=0o555)
    folder.chmod(0o755)
    # Root may do everything: it becomes somebody else, after having loaded what somebody else may not read.
    script = (
        "import difflib, io, os, sys; from styletools import streams; from styletools.cli.st_cat import main\n"
        "streams.writer(io.BytesIO(), 'png').write(streams.open_image('open.png'))\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "main()"
    )

    def run(*words):
        variables = environment | {"PYTHONPATH": str(BIN.parent)}
        return subprocess.run([sys.executable, "-c", script, *words], cwd=folder, env=variables, capture_output=True)

    try:
        for words in (
            ["-c", "secret.png"], ["-c", "locked"], ["-c", "locked/a.png"],
            ["open.png", "-o", "kept/"], ["open.png", "-o", "kept/x.png"], ["open.png", "-o", "kept/deep/x.png"],
        ):  # fmt: skip
            done = run(*words)
            assert done.returncode == errors.NotPermitted.status, words
            assert done.stderr.endswith(b": permission denied\n") and done.stderr.count(b"\n") == 1
    finally:
        (folder / "locked").chmod(0o755)


def test_full_file_system_leaves_no_part_file(sh, folder, big):
    (folder / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", "small"]
    if subprocess.run(mount, cwd=folder, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (folder / "small/out.ppm").write_bytes(b"older")
        for output in ("small/out.ppm", "small/"):
            done = sh(f"st-cat big.ppm -o {output}")
            assert done.returncode == errors.TryAgain.status
            assert b"no space left" in done.stderr
        assert [p.name for p in (folder / "small").iterdir()] == ["out.ppm"]
        assert (folder / "small/out.ppm").read_bytes() == b"older"
    finally:
        subprocess.run(["umount", "small"], cwd=folder, check=True)


def test_messages_as_json(sh):
    import json

    done = sh("st-cat --json gone.png")
    event = json.loads(done.stderr)
    assert event["level"] == "error" and event["status"] == 66 and event["record"] == "gone.png"


def test_tracebacks_only_with_v(sh):
    assert b"Traceback" not in sh("st-cat gone.png").stderr
    assert b"Traceback" in sh("st-cat -v gone.png").stderr


def test_the_reading_thread_hands_errors_over():
    def broken():
        yield 1
        raise ValueError("why")

    with _loop._Ahead(broken(), 2) as items, pytest.raises(ValueError, match="why"):
        assert next(iter(items)) == 1
        list(items)


def test_frames_that_are_left_out_are_told(call, folder):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    status, out, err = call("st-cat", "-c", "a.gif")
    assert (status, out.split()) == (0, [b"1"])
    assert err == "st-cat: warning: a.gif: only the first of its 3 frames is read\n"


# ---- several records at once -----------------------------------------------------------------------------


class Streaming:
    """What can work on several records at once: the negative of each, behind by up to `behind` records."""

    def __init__(self, behind=2, fails=()):
        self.behind, self.fails, self.bursts = behind, fails, []

    def __call__(self, image):
        raise AssertionError("records go to `stream`")

    def stream(self, records):
        self.bursts.append(0)
        pending = []
        for record in records:
            self.bursts[-1] += 1
            time.sleep(0.02)  # so that others come to wait
            pending.append(errors.DataError("no luck") if record.index in self.fails else negative(record))
            if len(pending) > self.behind:
                yield pending.pop(0)
        yield from pending


def test_records_that_wait_are_computed_together_and_keep_their_order(folder, picture, capsys):
    for number in range(9):
        picture(f"in/{number}.png", seed=number)
    (folder / "in/4.png").write_bytes(b"broken")
    function, told = Streaming(), []
    target = Target("out/", None)
    assert run(find_sources(["in"]), target, function, jobs=4, finished=lambda s, made: told.append(s.path)) == 1
    assert sum(function.bursts) == 8 and max(function.bursts) > 2
    assert "in/4.png" in capsys.readouterr().err
    assert told == [f"in/{number}.png" for number in range(9) if number != 4]
    for number in set(range(9)) - {4}:
        assert (read(f"out/{number}.png") == 255 - read(f"in/{number}.png")).all()


def test_one_of_several_at_once_fails_alone(folder, capsys):
    frames = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    (folder / "in.ppm").write_bytes(b"".join(b"P6 4 5 255\n" + frame.tobytes() for frame in frames))
    assert run(find_sources(["in.ppm"]), Target("out.ppm", None), Streaming(fails={2}), jobs=8) == 1
    assert "in.ppm: record 3: no luck" in capsys.readouterr().err
    with open("out.ppm", "rb") as out:
        made = [record.array for record in streams.read(out)]
    assert (np.stack(made) == 255 - np.delete(frames, 2, 0)).all()
    assert run(find_sources(["in.ppm"]), Target("out2.ppm", None), Streaming(fails={2}), fail_fast=True) == 1


def test_no_result_waits_for_a_record_that_is_not_there(folder):
    """The reader gives the next frame only once the one before has come out."""
    read_end, write_end = os.pipe()
    frame = b"P6 4 5 255\n" + bytes(60)

    class Out(Target):
        def write_stream(self, record, name, found):
            super().write_stream(record, name, found)
            if record.index < 4:
                os.write(write_end, frame)
            else:
                os.close(write_end)

    os.write(write_end, frame)
    function = Streaming(behind=3)
    with open(read_end, "rb", buffering=0) as source:
        os.mkfifo("fifo")
        threading.Thread(target=lambda: _copy(source, "fifo"), daemon=True).start()
        assert run(find_sources(["fifo"]), Out("out.ppm", None), function) == 0
    assert function.bursts == [1] * 5


def _copy(source, name):
    with open(name, "wb", buffering=0) as fifo:
        while block := source.read(65536):
            fifo.write(block)
