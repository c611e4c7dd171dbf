"""The order of the house: who imports whom, what costs what, what stands where."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from styletools import backbones, errors, methods, metrics, streams

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "styletools"
MODULES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = sorted(path.stem.replace("_", "-") for path in (PACKAGE / "cli").glob("st_*.py"))

# Each imports from itself and from those before.
LAYERS = (
    {"", "errors", "files", "log", "manifest", "onnxfile"},
    {"streams"},
    {"nn", "losses", "stats", "optim", "backbones"},
    {"modelfile"},
    {"methods", "metrics"},
    {"engine"},
    {"cli"},
)
# The one exception: a model file is read as the method that it names, whichever that is.
LOADER = ("modelfile", "methods")
HEAVY = ("torch", "torchvision", "numpy", "PIL", "safetensors", "imageio", "onnxruntime", "openvino")


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    """Return the part of the package that a module belongs to: styletools.methods.live -> methods."""
    return (module.split(".") + [""])[1]


def rank(layer: str) -> int:
    return next(i for i, layers in enumerate(LAYERS) if layer in layers)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(path: Path, top_only: bool = False) -> list[tuple[str, bool]]:
    """Return (module, whether at the top) for all imports of a module, except those for type checkers."""
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{path}: relative import"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    is_module = (ROOT / whole.replace(".", "/")).with_suffix(".py").exists()
                    is_module = is_module or (ROOT / whole.replace(".", "/") / "__init__.py").exists()
                    found.append((whole if is_module else child.module, top))
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return [entry for entry in found if entry[1] or not top_only]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_layers(path):
    own = layer_of(name_of(path))
    for module, top in imports(path):
        if module.split(".")[0] != "styletools":
            continue
        other = layer_of(module)
        if (own, other) == LOADER and not top:
            continue
        assert rank(other) <= rank(own), f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("folder", ["methods", "metrics", "backbones"])
def test_siblings_do_not_import_each_other(folder):
    for path in (PACKAGE / folder).glob("[!_]*.py"):
        for module, _ in imports(path):
            parts = module.split(".")
            sibling = parts[:2] == ["styletools", folder] and len(parts) > 2 and not parts[2].startswith("_")
            assert not sibling, f"{name_of(path)} imports {module}"


def test_only_commands_know_click():
    for path in MODULES:
        if layer_of(name_of(path)) != "cli":
            assert "click" not in {module.split(".")[0] for module, _ in imports(path)}, path


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=name_of)
def test_top_imports_of_commands(path):
    allowed = {"click", "styletools"} | set(sys.stdlib_module_names)
    assert {module.split(".")[0] for module, _ in imports(path, top_only=True)} <= allowed
    for module, _ in imports(path, top_only=True):
        parts = module.split(".")
        other_command = parts[:2] == ["styletools", "cli"] and parts[2].startswith("st_")
        assert not other_command, f"{name_of(path)} imports {module}"


PROBE = """
import sys
from styletools.cli.{module} import main
for words in (["--help"], ["--version"], ["--no-such-option"], []):
    sys.stdin = open("/dev/null")
    try:
        main.main(words)
    except SystemExit:
        pass
loaded = sorted(set({heavy!r}) & set(sys.modules))
print(loaded, file=sys.stderr)
sys.exit(bool(loaded))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_usage_errors_load_nothing_heavy(command):
    script = PROBE.format(module=command.replace("-", "_"), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


LATE = {
    "st-apply": (["-s", "gone.jpg", "a.png"], ["-m", "nope", "a.png"], ["-m", "gatys", "-O", "nope=1", "a.png"],
                 ["-m", "gatys", "--direction", "b2a", "-s", "a.png", "a.png"]),
    "st-cat": (["gone.png"], ["a.png", "--to", "nope"]),
    "st-eval": (
        [],
        ["--output", "gone", "--content", "gone"],
        ["--output", "a.png", "--content", "a.png", "--metrics", "nope"],
        ["--output", "a.png", "--content", "a.png", "--metrics", "adversarial:gone.safetensors"],
        ["--output", "a.png", "--content", "a.png", "--metrics", "psnr", "--fail-if", "ssim<1"],
        ["compare", "-m", "nope"],
        ["study", "--methods", "gone"],
    ),
    "st-extract": (["-l", "relu9_9", "a.png"], ["-b", "nope", "a.png"], ["gone.png"], ["a.png", "-o", "x.png"]),
    "st-gram": (["--for", "nope", "a.png"], ["--for", "gatys", "-O", "nope=1", "a.png"], ["gone.png"], ["-l", "x"]),
    "st-model": (["show", "gone"], ["list"], ["nope"], ["import", "gone.pth", "-o", "x.safetensors"],
                 ["import", "a.png", "-o", "x.safetensors"], ["export", "live", "-o", "x.gif"],
                 ["export", "live", "--layout", "nope", "-o", "x.pth"], ["export", "slim", "-o", "x.pt"]),
    "st-sample": (
        [],
        ["-m", "gone.safetensors"],
        ["-m", "live", "--sheet", "-o", "x.png"],
        ["-m", "dcgan", "--sheet", "-o", "x.png"],
        ["-m", "live", "--truncation", "0"],
    ),
    "st-train": (
        ["nope", "-o", "x.safetensors"],
        ["live", "-o", "x.safetensors"],
        ["live", "-o", "x.safetensors", "--content", "gone", "--style", "gone"],
        ["distill", "-o", "x.safetensors", "--images", ".", "-O", "nope=1"],
        ["distill", "-o", "x.safetensors", "--images", ".", "--resume"],
        ["cyclegan", "-o", "x.safetensors", "--data", "."],
    ),
    "st-video": (
        ["gone.mp4", "-s", "great-wave", "-o", "x.mp4"],
        ["a.png", "-s", "gone.jpg", "-o", "x.mp4"],
        ["a.png", "-s", "a.png", "-o", "x.doc"],
        ["a.png", "-s", "a.png", "-o", "x.png"],
        ["a.png", "-s", "a.png@x", "-o", "x.mp4"],
        ["a.png", "-s", "a.png", "-o", "x.mp4", "--codec", "nope"],
        ["a.png", "-s", "a.png", "-o", "x.mp4", "-e", "preset=nope"],
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_can_be_found_early_is_found_without_torch(command, tmp_path):
    script = f"""
import sys
sys.stdout = open("/dev/null", "w")
from styletools.cli.{command.replace("-", "_")} import main
for words in {LATE.get(command, ())!r}:
    try:
        main.main(words)
    except SystemExit as ended:
        assert ended.code or words == ["list"], words
    assert "torch" not in sys.modules, words
"""
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "STYLETOOLS_WEIGHTS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--no-such-option"]], ids=["help", "usage-error"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_usage_errors_are_quick(command, words, record_property):
    def seconds() -> float:
        script = f"from styletools.cli.{command.replace('-', '_')} import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", script, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        return used.ru_utime + used.ru_stime

    best = min(seconds() for _ in range(5))
    record_property("cpu_seconds", best)
    print(f"{command} {words[0]}: {best:.3f} s of CPU time, best of 5")
    assert best < 0.5


def test_one_set_of_commands():
    launchers = sorted(path.name for path in (ROOT / "bin").iterdir())
    assert launchers == COMMANDS
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.scripts]\n")[2].partition("\n[")[0]
    points = dict(re.findall(r'^([\w-]+) = "(.+)"$', section, re.MULTILINE))
    assert points == {name: f"styletools.cli.{name.replace('-', '_')}:main" for name in COMMANDS}
    pages = sorted(path.stem for path in (ROOT / "man").glob("st-*.1"))
    assert pages == COMMANDS
    for name in COMMANDS:
        launcher = ROOT / "bin" / name
        assert os.access(launcher, os.X_OK)
        assert len(launcher.read_text().splitlines()) == 4
        assert f"styletools.cli.{name.replace('-', '_')} " in launcher.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_explain_themselves(command):
    main = importlib.import_module(f"styletools.cli.{command.replace('-', '_')}").main
    assert main.help
    for each in (main, *getattr(main, "commands", {}).values()):
        assert each.help, each.name
        for parameter in each.params:
            assert parameter.param_type_name == "argument" or parameter.help, f"{command} {parameter.opts}"


def test_exit_statuses_are_one_table():
    table = dict(re.findall(r"([A-Z]\w+) +(\d+)  ", errors.__doc__))
    classes = {
        name: str(kind.status)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.StyletoolsError)
    }
    assert table == classes
    assert all(kind.__doc__ for kind in vars(errors).values() if isinstance(kind, type))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_have_docstrings(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_modules_are_named_after_what_they_are():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools", "base"}
    assert not [path for path in ROOT.glob("[!.]*/**/*.py") if path.stem.strip("_") in vague]


def texts_of(folder: str) -> str:
    """Return the names and the text of all tests of one part."""
    return "\n".join(f"{p.stem}\n{p.read_text()}" for p in sorted((ROOT / "tests" / folder).glob("*.py")))


@pytest.mark.parametrize("name", sorted({path.stem for path in (PACKAGE / "streams").glob("[!_]*.py")}))
def test_every_format_is_tested(name):
    assert streams.kind(name if name in streams.names() else "png")
    assert (ROOT / "tests/streams" / f"test_{name}.py").exists() or re.search(rf"\b{name}\b", texts_of("streams"))


@pytest.mark.parametrize("name", methods.names())
def test_every_method_is_tested(name):
    assert re.search(rf"\b(test_)?{name}\b", texts_of("methods"))


@pytest.mark.parametrize("name", metrics.names())
def test_every_metric_is_tested(name):
    assert (ROOT / "tests/metrics" / f"test_{name}.py").exists() or re.search(rf"\b{name}\b", texts_of("metrics"))


@pytest.mark.parametrize("name", metrics.names())
def test_metrics_say_all_of_themselves(name):
    told = metrics.describe(name)
    assert set(told.needs) <= {"content", "style"} and told.scope in ("pair", "set", "sequence")
    assert told.better in ("lower", "higher", "neither") and told.range
    text = ast.get_docstring(ast.parse((PACKAGE / f"metrics/{name}.py").read_text(encoding="utf-8")))
    assert text.startswith(f"{name}: ") and "Weakness: " in text
    assert not told.network or told.networks == metrics.MODEL or told.network in told.networks


@pytest.mark.parametrize("name", backbones.names())
def test_every_backbone_is_tested(name):
    assert re.search(rf"\b(test_)?{name}\b", texts_of("backbones"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_tested(command):
    assert (ROOT / "tests/cli" / f"test_{command.replace('-', '_')}.py").exists()
    assert any((ROOT / "tests/cases" / command).glob("*/cmd"))


def tracked() -> list[Path]:
    """Return the files of the repository, or skip where this is none."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split(b"\0") if name and (path := ROOT / os.fsdecode(name)).is_file()]


def test_the_tree_speaks_of_itself_alone():
    # Written so that this file does not hold them.
    places = [r"(?<![\w.])/" + "work" + "/", r"\.\./" + "shared", "/tmp/" + "venv"]
    numbers = [r"\b[Ii]ssues?" + r" #?\d", r"(?<![\w&])#" + r"\d{1,4}\b"]
    pattern = re.compile("|".join(places + numbers))
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert not found


def test_no_large_file_but_in_the_zoo():
    limits = {ROOT / "docs/gallery.jpg": 1_500_000}
    others = [path for path in tracked() if path.parent != PACKAGE / "zoo"]
    assert not [path for path in others if path.stat().st_size > limits.get(path, 500_000)]


def test_the_makefile_sets_a_variable_once():
    """The last setting of a variable counts for all recipes, also for those above it."""
    names = re.findall(r"^(\w+) *[:?+]?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)


def test_the_first_command_restyles_in_bundled_styles():
    from styletools.engine import styles

    said = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True).stdout
    wanted = re.search(r"for style in (.+); do", said)[1].split()
    assert len(wanted) == 3 and set(wanted) <= set(styles.bundled())
