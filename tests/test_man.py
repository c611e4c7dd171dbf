"""The manual and the README tell the truth: options, formats, statuses, and every example, which is run."""

import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image
from preloaded import Preloaded

from styletools import backbones, errors, files, metrics, modelfile, streams

ROOT = Path(__file__).parents[1]
MAN = ROOT / "man"
PAGES = sorted(MAN.iterdir())
COMMANDS = sorted(path.stem for path in MAN.glob("*.1"))


def named(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def main_of(command: str) -> click.Command:
    return importlib.import_module(f"styletools.cli.{command.replace('-', '_')}").main


def parameters(command: str) -> list[click.Option]:
    """Return the options of a command and of its sub-commands, -h included."""
    main = main_of(command)
    context = click.Context(main, info_name=command, **main.context_settings)
    contexts = [context, *(click.Context(each, context) for each in getattr(main, "commands", {}).values())]
    found = [option for each in contexts for option in each.command.get_params(each)]
    return [option for option in found if isinstance(option, click.Option)]


def section(page: Path, title: str) -> str:
    found = re.search(rf"^\.Sh {title}\n(.*?)(?=^\.Sh |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def items(text: str) -> dict[str, str]:
    """Return {head: body} of the list items of mdoc."""
    return dict(re.findall(r"^\.It (.*)\n((?:(?!\.It |\.El).*\n?)*)", text, re.MULTILINE))


def plain(text: str) -> str:
    """Undo the escapes of mdoc that our pages use."""
    for escape, character in {r"\(aq": "'", r"\-": "-", r"\&": "", r"\(ti": "~", r"\e": "\\"}.items():
        text = text.replace(escape, character)
    return text


# ---- what is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_options(command):
    page = {}
    for head, body in items(section(MAN / f"{command}.1", "OPTIONS")).items():
        words = [f"-{word}" for word in re.findall(r"\bFl (\S+)", head)]
        assert not set(words) & set(page), "told twice"
        page |= {word: (set(words), plain(body)) for word in words}
    own = {word for option in parameters(command) for word in (*option.opts, *option.secondary_opts)}
    assert set(page) == own
    for option in parameters(command):
        spellings, body = page[option.opts[0]]
        assert spellings == set(option.opts)
        if option.show_default is True:
            assert re.search(rf"(?<![\w.]){re.escape(str(option.default))}(?![\w.])", body), f"{option.opts}: default"
        if isinstance(option.type, click.Choice):
            assert all(choice in body for choice in option.type.choices), option.opts
        if option.envvar:
            assert option.envvar in section(MAN / f"{command}.1", "ENVIRONMENT")


@named(sorted(MAN.glob("*.1")))
def test_sections(page):
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
    found = re.findall(r"^\.Sh (.+)$", page.read_text(), re.MULTILINE)
    assert [title for title in found if title in wanted] == wanted


@named(PAGES)
def test_references_lead_somewhere(page):
    foreign = {"tar(1)", "cat(1)", "ls(1)", "wc(1)", "find(1)", "ffmpeg(1)", "cron(8)", "make(1)"}
    ours = {f"{each.stem}({each.suffix[1:]})" for each in PAGES}
    for name, number in re.findall(r"\bXr (\S+) (\d)", page.read_text()):
        assert f"{name}({number})" in ours | foreign
    assert f"\n.Nm {page.stem}\n" in page.read_text()


@pytest.mark.parametrize("command", [name for name in COMMANDS if hasattr(main_of(name), "commands")])
def test_sub_commands(command):
    told = {head[3:] for head in items(section(MAN / f"{command}.1", "DESCRIPTION")) if head.startswith("Cm ")}
    assert told == set(main_of(command).commands)


@pytest.mark.parametrize("name", metrics.names())
def test_metrics(name):
    text = section(MAN / "st-eval.1", "METRICS")
    found = re.search(rf"^\.Ss {name}\n(.*?)(?=^\.Ss |\Z)", text, re.MULTILINE | re.DOTALL)
    words = " ".join(plain(found[1]).split())
    told = metrics.describe(name)
    better = "neither more nor less is better" if told.better == "neither" else f"{told.better} is better"
    assert f".Em Range : {told.range}; {better}." in words
    assert ".Em Source : " in words and ".Em Weakness : " in words
    assert all(role in words for role in told.needs)
    assert not told.network or told.network in words


def test_exit_statuses():
    told = {int(head): body.strip() for head, body in items(section(MAN / "styletools.7", "EXIT STATUS")).items()}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert set(told) == {0} | {kind.status for kind in kinds}
    assert all(told.values())
    for page in MAN.glob("*.1"):
        for status in re.findall(r"(?:^|, )(\d+)\b", section(page, "EXIT STATUS")):
            assert int(status) in told, page


def test_environment():
    told = {head.removeprefix("Ev ") for head in items(section(MAN / "styletools.7", "ENVIRONMENT"))}
    source = "\n".join(path.read_text() for path in (ROOT / "styletools").rglob("*.py"))
    assert told == set(re.findall(r"""["'](STYLETOOLS_[A-Z]+)["']""", source))


def test_formats():
    found = {}
    lists = section(MAN / "styletools-stream.5", "FORMATS").split("These hold one record")
    for streaming, text in zip((True, False), lists, strict=True):
        for head in items(text):
            names, _, extensions = head.removeprefix("Cm ").partition(" Pq Pa ")
            found |= dict.fromkeys([*names.split(), *extensions.split()], streaming)
    known = streams.names() + sorted(streams.extensions())
    assert set(found) == set(known)
    for name, streaming in found.items():
        assert streaming == streams.can_stream(name.lstrip(".")), name
    limits = section(MAN / "styletools-stream.5", "LIMITS")
    assert str(streams.Limits().max_pixels) in limits
    assert f"{streams.Limits().max_bytes >> 30} GiB" in limits


def metadata_keys(kind: str) -> set[str]:
    """Return the keys of a record's metadata that the page on model files names."""
    text = (MAN / "styletools-model.5").read_text()
    part = re.search(rf"^\.Ss kind = {kind}\n(.*?)(?=^\.S[sh] )", text, re.MULTILINE | re.DOTALL)[1]
    return {head.removeprefix("Cm ") for head in items(part)}


def test_metadata_of_bundled_files():
    """What the bundled files hold is what the page says that such files hold."""
    for path in files.zoo_dir().glob("*.safetensors"):
        for header in modelfile.read_headers(path):
            kind = header.metadata["kind"]
            assert set(header.metadata) - {"kind"} >= {"method"}
            own = {"title", "work", "artist", "year"} if kind == "style" else set()  # of works, beside the format's
            assert set(header.metadata) - {"kind"} - own <= metadata_keys(kind), path


def test_metadata_of_statistics(slim, pictures):
    from styletools.engine import features, statistics

    extractor = features.Extractor("slim", ["relu1_1"], size=32, lift=False, device="cpu")
    image = streams.open_image(pictures / "0.png")
    merger = statistics.Merger(extractor.statistics)
    merger.add(image)
    lifted = features.Extractor("slim", ["relu1_1"], lift=True, device="cpu").meta
    said = set(extractor.statistics(image).meta) | set(merger.merged("a").meta) | set(lifted) | {"name"}
    derived = {"gram", "covariance", "mean-std"}
    assert metadata_keys("stats") - derived == said - {"kind"}
    assert derived == set(statistics.DERIVED)
    assert set(extractor.features(image).meta) <= said


@named(PAGES)
def test_page_is_well_formed(page):
    if shutil.which("mandoc"):
        words = ["mandoc", "-T", "lint", "-W", "warning", str(page)]
    elif shutil.which("man"):
        words = ["man", "--warnings", "-E", "UTF-8", "-l", str(page)]
    else:
        pytest.skip("neither mandoc nor man is here")
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    complaints = done.stderr + (done.stdout if words[0] == "mandoc" else "")
    assert not complaints
    assert max(map(len, page.read_text().splitlines())) <= 160


def test_readme_names_what_there_is():
    text = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^\| `(st-\w+)` \|", text, re.MULTILINE))
    assert commands == set(COMMANDS)
    assert set(re.findall(r"\bst-[a-z]+\b", text)) <= commands
    known = {word for command in COMMANDS for option in parameters(command) for word in option.opts}
    # Blocks are run; what is named in the prose must be an option of some command.
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", prose):
        if not re.match(r"(?!st-)[\w./]+ ", code):  # options of other programs
            assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", code)) <= known, code
    methods = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert methods == {path.stem for path in (ROOT / "styletools/methods").glob("[!_]*.py")}
    assert all(f"`{name}`" in text for name in backbones.names())
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_bundled_works_are_named():
    text = (files.zoo_dir() / "README.md").read_text()
    told = re.findall(r"^\| ([\w-]+) \| [^|]+ \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)[1:]
    if not (files.zoo_dir() / "styles.safetensors").exists():
        pytest.skip("the styles of live are not bundled: make models")
    bundled = [header.metadata["name"] for header in modelfile.read_headers(files.zoo_dir() / "styles.safetensors")]
    assert sorted(told) == sorted(bundled)


def test_targets_of_the_readme_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)|^\$ make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


# ---- what is run -----------------------------------------------------------------------------------------


def blocks(page: Path) -> list[str]:
    """Return the examples of a page: its literal displays, or the sh blocks of Markdown."""
    text = page.read_text()
    if page.suffix == ".md":
        return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [plain(block) for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text, re.MULTILINE | re.DOTALL)]


def picture(path: Path, size: tuple[int, int], seed: int) -> None:
    """Write a small picture of soft colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def program(path: Path, line: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nexec {line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def run_example(tmp_path_factory):
    """Run an example in a folder that holds the files that examples speak of; the same one once only."""
    if not {"live.safetensors", "styles.safetensors"} <= set(os.listdir(files.zoo_dir())):
        pytest.skip("the model live and its styles are not bundled: make models")
    import imageio_ffmpeg

    folder = tmp_path_factory.mktemp("examples")
    picture(folder / "photo.jpg", (96, 64), 0)
    for number, name in enumerate(("hokusai.jpg", "wave.jpg", "paintings/one.jpg", "paintings/two.jpg")):
        picture(folder / name, (80, 72), 1 + number)
    for number, name in enumerate(("first.jpg", "second.jpg", "2024/third.jpg")):
        picture(folder / "photos" / name, (72, 64), 5 + number)
    for number, name in enumerate(("cultures/ink", "cultures/oil", "prints")):
        picture(folder / name / "one.jpg", (72, 64), 20 + number)
        picture(folder / name / "two.jpg", (72, 64), 30 + number)
    picture(folder / "mask.png", (96, 64), 9)
    program(folder / "bin/ffmpeg", f'"{imageio_ffmpeg.get_ffmpeg_exe()}" "$@"')
    program(folder / "bin/python3", f'"{sys.executable}" "$@"')
    (folder / "pictures").symlink_to(".")
    environment = os.environ | {
        "PATH": f"{folder}/bin:{ROOT}/bin:{os.environ['PATH']}", "HOME": str(folder), "OMP_NUM_THREADS": "1",
        "STYLETOOLS_CACHE": str(folder / "cache"), "STYLETOOLS_OFFLINE": "1", "STYLETOOLS_WEIGHTS": "",
    }  # fmt: skip
    environment.pop("STYLETOOLS_DEVICE", None)

    @functools.cache
    def run(block: str) -> None:
        script = block
        if block.startswith("# Makefile\n"):
            (folder / "Makefile").write_text(block)
            script = "make --no-print-directory"
        elif block.startswith("# crontab\n"):
            script = "\n".join(line.split(None, 5)[5] for line in block.splitlines()[1:])
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\nended with {done.returncode}\n{done.stderr}"
        complaints = [line for line in done.stderr.splitlines() if line.startswith("st-")]
        assert not complaints, f"{script}\n{complaints}"
        named_results = re.findall(r"(?:-o |> )([\w./%]+)", script)
        for result in named_results:
            assert any(folder.glob(re.sub(r"%0?\d*d", "*", result))), f"{script}\nmade no {result}"

    run("ffmpeg -v error -f lavfi -i testsrc2=size=64x48:rate=25 -f lavfi -i sine=440 -t 0.2 a.mp4")
    with Preloaded(folder / "bin", environment) as preloaded:
        for command in ("st-apply", "st-extract", "st-gram", "st-sample", "st-eval", "st-video"):
            preloaded.script(command)
        # Two steps stand for the hours that an example of training takes.
        preloaded.script("st-train", "--steps 2 --batch-size 2 --crop-size 64 --threads 1")
        yield run


@pytest.mark.slow
@named([page for page in [*PAGES, ROOT / "README.md"] if blocks(page)])
def test_examples(page, run_example):
    if any("flock" in block for block in blocks(page)) and not shutil.which("flock"):
        pytest.skip("flock is not here")
    for block in blocks(page):
        run_example(block)


def test_every_page_of_a_command_has_examples():
    for page in [*MAN.glob("*.1"), MAN / "styletools.7", ROOT / "README.md"]:
        assert blocks(page), page
    for page in MAN.glob("*.1"):
        assert page.stem in "".join(blocks(page))
