"""st-apply --engine and st-model export: which engine computes, and that it loads no more than it needs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from styletools import files, onnxfile
from styletools.engine import graph

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(bool(graph.obstacle("auto", "")), reason="torch is taken on this machine")

WITHOUT_TORCH = """
import sys
from styletools.cli.st_apply import main
try:
    main.main(sys.argv[1:])
except SystemExit as ended:
    loaded = sorted({"torch", "torchvision", "onnx", "openvino.tools.ovc"} & set(sys.modules))
    sys.exit(f"loaded: {loaded}" if loaded else ended.code)
"""


@pytest.mark.parametrize(
    "words",
    [["-s", "great-wave"], ["-s", "s.png", "--style-size", "32"], ["-s", "great-wave:2,s.png", "--alpha", "0.5"],
     ["-s", "mistral", "--size", "20", "--mask", "s.png", "--outside", "the-scream", "--preserve-color", "luminance"]],
    ids=lambda words: "+".join(words[::2]),
)  # fmt: skip
def test_torch_is_not_loaded(words, folder, picture, environment):
    picture("s.png", 40, 36, seed=1)
    picture("a.png", 30, 20)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words, "a.png", "-o", "out.png"], capture_output=True, text=True,
        env=environment | {"PYTHONPATH": str(Path(graph.__file__).parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open("out.png").mode == "RGB"


def test_what_only_torch_can_do(call, picture, slim):
    picture("a.png", 30, 20)
    picture("tiny.png", 9, 9)
    for words, why in [
        (["-s", "mistral", "--preserve-color", "coral"], "coral takes torch"),
        (["-s", "mistral", "--device", "cuda"], "runs on the CPU only"),
        (["-m", "gatys", "-O", "steps=1", "-s", "a.png"], "gatys has no graph"),
        (["-s", "tiny.png", "--style-size", "9"], "less than 16 pixels"),
    ]:
        status, _, err = call("st-apply", "--engine", "graph", *words, "a.png", "-o", "out.png")
        assert status == 69 and "--engine graph: " in err and why in err and err.count("\n") == 1
        if "cuda" not in words:
            status, _, err = call("st-apply", "-v", *words, "a.png", "-o", "out.png")
            assert status == 0 and "restyled by torch: " in err and why in err


def test_engines_agree_and_the_graph_is_made_once(call, picture, live_model, folder):
    picture("a.png", 50, 41)
    picture("s.png", 40, 36, seed=1)
    words = ["-m", live_model, "-s", "s.png", "a.png"]
    results = []
    for engine in ("torch", "auto", "graph"):
        assert call("st-apply", "--engine", engine, *words, "-o", f"{engine}.png")[0] == 0
        results.append(np.asarray(Image.open(f"{engine}.png")).astype(int))
        graphs = list((files.cache_dir() / "graphs").glob("*.onnx"))
        assert len(graphs) == (engine != "torch")
        stamp = [path.stat().st_mtime_ns for path in graphs]
    assert stamp == [path.stat().st_mtime_ns for path in graphs]
    assert abs(results[1] - results[0]).max() <= 1 and (results[1] == results[2]).all()


def test_a_cache_that_cannot_be_written_leaves_it_to_torch(call, picture, live_model, folder, monkeypatch):
    (folder / "cache").write_text("a file")
    monkeypatch.setenv("STYLETOOLS_CACHE", str(folder / "cache"))
    picture("a.png", 30, 20)
    words = ["-v", "-m", live_model, "-s", "a.png", "a.png", "-o"]
    status, _, err = call("st-apply", *words, "b.png")
    assert status == 0 and "restyled by torch" in err
    status, _, err = call("st-apply", "-s", "mistral", "a.png", "-o", "c.png")
    assert (status, err) == (0, ""), "a bundled graph needs no cache"


def test_export(call, live_model, folder):
    assert call("st-model", "export", live_model, "-o", "x.onnx") == (0, b"", "")
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model("x.onnx", full_check=True)
    told = onnxfile.read_metadata("x.onnx")
    assert told["method"] == "live" and len(told["model_sha256"]) == 64
    status, _, err = call("st-model", "export", live_model, "-o", "x.png")
    assert status == 2 and "x.png: .onnx, .pt, .pt2 expected" in err
    status, _, err = call("st-model", "export", "slim", "-o", "y.onnx")
    assert status == 78 and "distill cannot be written as a graph" in err and "live" in err
    assert call("st-model", "export", "gone.safetensors", "-o", "y.onnx")[0] == 66
    assert not Path("y.onnx").exists()


@pytest.mark.slow
def test_frames_through_a_pipe_take_no_more_memory(sh, folder):
    """Many small frames: the process grows no further after the first thousand."""
    header, pixels = b"P6 24 16 255\n", np.random.default_rng(0).integers(0, 256, 24 * 16 * 3, dtype=np.uint8).tobytes()
    peaks = []
    for count in (1000, 10_000):
        (folder / "in.ppm").write_bytes((header + pixels) * count)
        script = (
            "import resource, subprocess; subprocess.run(['st-apply', '-s', 'mistral', '-'], stdin=open('in.ppm'), "
            "stdout=open('out.ppm', 'wb'), check=True); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
        )
        done = sh(f'{sys.executable} -c "{script}"', timeout=300)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
        assert (folder / "out.ppm").stat().st_size == count * (16 * 24 * 3 + 13)
    assert peaks[1] - peaks[0] < 20, "MB"


def test_what_is_too_large_for_the_memory_goes_to_torch(call, picture):
    picture("a.png", 160, 150)
    status, _, err = call("st-apply", "-v", "-s", "great-wave", "--max-memory", "1M", "a.png", "-o", "out.png")
    assert status == 0 and "restyled by torch: too large for the memory, but in tiles" in err
    assert call("st-apply", "-s", "great-wave", "--max-memory", "64g", "a.png", "-o", "whole.png")[0] == 0
    whole, tiled = (np.asarray(Image.open(name)).astype(int) for name in ("whole.png", "out.png"))
    assert abs(whole - tiled).max() <= 2, "and it is the same picture, up to bfloat16"


@pytest.mark.parametrize("size", ["0", "much", "-1G", "2X", ""])
def test_memory_is_a_number_of_bytes(call, picture, size):
    picture("a.png", 30, 20)
    status, _, err = call("st-apply", "-s", "great-wave", f"--max-memory={size}", "a.png", "-o", "out.png")
    assert status == 2 and "500M or 2G" in err
