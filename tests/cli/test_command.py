"""How commands start and end, whatever they do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from styletools import __version__, errors
from styletools.cli import _command

ROOT = Path(__file__).parents[2]


def test_modules_in_the_current_folder_are_not_run(sh, folder):
    for name in ("click", "random", "signal"):
        (folder / f"{name}.py").write_text("raise SystemExit('not this one')")
    done = sh("st-cat --version")
    assert (done.returncode, done.stderr) == (0, b"") and __version__.encode() in done.stdout


def test_commands_run_through_links_from_anywhere(sh, folder):
    os.symlink(ROOT / "bin" / "st-cat", folder / "cat")
    os.symlink(ROOT / "bin", folder / "commands")
    for line in ("cd / && '{}'/cat --version", "cd / && '{}'/commands/st-cat --version", "commands/st-cat --version"):
        assert sh(line.format(folder)).returncode == 0, line


def test_a_python_without_packages_is_told_in_one_line(tmp_path):
    # -S hides what is installed.
    words = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import styletools.cli"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1 and "click" in done.stderr and "Traceback" not in done.stderr


def test_a_checkout_that_was_not_set_up_takes_python3(tmp_path):
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    os.symlink(ROOT / "styletools", tmp_path / "styletools")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([tmp_path / "bin" / "st-cat", "--version"], capture_output=True, env={"PATH": path})
    assert done.returncode == 0 and __version__.encode() in done.stdout


def test_a_missing_package_is_unavailable_and_a_missing_part_of_ours_a_bug():
    made = _command.as_styletools_error(ModuleNotFoundError("No module named 'numpy'", name="numpy"))
    assert type(made) is errors.Unavailable and "numpy is missing" in str(made)
    ours = _command.as_styletools_error(ModuleNotFoundError("No module named 'x'", name="styletools.x"))
    assert type(ours) is errors.StyletoolsError
