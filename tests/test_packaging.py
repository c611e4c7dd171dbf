"""What is installed: commands, models, manual, completions, and nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the tree, without the network."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("source") / "styletools"
    copy.mkdir()
    # tests and bin are in the copy to see that they stay out of the wheel.
    for name in ("styletools", "man", "completions", "bin", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    script = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, copy.parent], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = copy.parent.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_the_package(names):
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "styletools").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == source
    zoo = {f"styletools/zoo/{path.name}" for path in (ROOT / "styletools/zoo").iterdir() if path.name[0] != "."}
    assert zoo <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.split("/")[0] not in ("styletools",) and "styletools-" not in name]


def test_wheel_holds_manual_and_completions(names):
    shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    manual = {f"share/man/man{path.suffix[1]}/{path.name}" for path in (ROOT / "man").iterdir()}
    completions = {
        path
        for command in COMMANDS
        for path in (
            f"share/bash-completion/completions/{command}",
            f"share/zsh/site-functions/_{command}",
            f"share/fish/vendor_completions.d/{command}.fish",
        )
    }
    assert shared == manual | completions


def test_installation(wheel, tmp_path):
    """pip puts commands where PATH finds them and pages where man does."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", "--prefix", tmp_path,
         "--ignore-installed", "--disable-pip-version-check", wheel],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (site,) = tmp_path.glob("lib*/python*/site-packages")
    assert {path.name for path in (tmp_path / "bin").iterdir()} == set(COMMANDS)
    done = subprocess.run(
        [tmp_path / "bin/st-model", "list"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "slim" in done.stdout
    if not shutil.which("man"):
        pytest.skip("man is not here")
    for command in COMMANDS:
        found = subprocess.run(["man", "-M", tmp_path / "share/man", "-w", command], capture_output=True, text=True)
        assert found.stdout.strip().endswith(f"share/man/man1/{command}.1"), found.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_completion(command):
    """The files are there and sound; the command answers what they ask it."""
    done = subprocess.run(["bash", "-n", ROOT / "completions/bash" / command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"#compdef {command}\n" in (ROOT / "completions/zsh" / f"_{command}").read_text()
    assert f"--command {command} " in (ROOT / "completions/fish" / f"{command}.fish").read_text()
    variable = f"_{command.upper().replace('-', '_')}_COMPLETE"
    assert variable in (ROOT / "completions/bash" / command).read_text()
    script = f"from styletools.cli.{command.replace('-', '_')} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {variable: "bash_complete", "COMP_WORDS": f"{command} --ver", "COMP_CWORD": "1"},
    )  # fmt: skip
    assert sorted(done.stdout.split()) == ["plain,--verbose", "plain,--version"], done.stderr
