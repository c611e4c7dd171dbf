"""Fixtures that tests of several folders share."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RATE = "30000/1001"
SOURCE = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={RATE}", "-t", "0.8"]
# Kind of clip -> its extension and what makes it.
CLIPS = {
    "ntsc": ("mp4", [*SOURCE, "-pix_fmt", "yuv420p"]),
    "uneven": ("mp4", [*SOURCE, "-vf", r"select=not(mod(n\,3))+not(mod(n\,7))", "-fps_mode", "passthrough",
                       "-enc_time_base", "1:30000", "-pix_fmt", "yuv420p"]),
    "odd": ("webm", [*SOURCE, "-vf", "format=yuv444p,crop=95:63", "-pix_fmt", "yuv420p", "-deadline", "realtime"]),
    "full-chroma": ("mkv", [*SOURCE, "-pix_fmt", "yuv444p"]),
    "ten-bit": ("mp4", [*SOURCE, "-vf", "scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le,setparams="
                        "range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc=arib-std-b67"]),
    "full-range": ("mp4", [*SOURCE, "-vf", "scale=out_color_matrix=bt709:out_range=pc,format=yuv420p,setparams="
                           "range=pc:colorspace=bt709:color_primaries=bt709:color_trc=bt709,setsar=4/3"]),
    "bt601": ("mp4", [*SOURCE, "-vf", "scale=out_color_matrix=bt601:out_range=tv,format=yuv422p,setparams="
                      "range=tv:colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m"]),
    "one": ("mp4", [*SOURCE, "-frames:v", "1", "-pix_fmt", "yuv420p"]),
    "late": ("mp4", ["-itsoffset", "0.2", *SOURCE, "-f", "lavfi", "-i", "sine", "-t", "1", "-pix_fmt", "yuv420p"]),
    "broadcast": ("ts", [*SOURCE, "-f", "lavfi", "-i", "sine", "-t", "0.8", "-pix_fmt", "yuv420p"]),
}  # fmt: skip


def pytest_configure(config):
    """Undo what a shell does to programs in the background: they and their children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    """Keep tests from the network and from the caches and settings of whoever runs them."""
    monkeypatch.setenv("STYLETOOLS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("STYLETOOLS_OFFLINE", "1")
    monkeypatch.delenv("STYLETOOLS_DEVICE", raising=False)


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of published weights."""
    folder = os.environ.get("STYLETOOLS_WEIGHTS")
    if not folder:
        pytest.skip("STYLETOOLS_WEIGHTS names no folder of published weights")
    return Path(folder)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference photographs and paintings: content/ and style/."""
    folder = os.environ.get("STYLETOOLS_REFERENCE")
    if not folder:
        pytest.skip("STYLETOOLS_REFERENCE names no folder of reference pictures")
    return Path(folder) / "reference"


@pytest.fixture(scope="session")
def peers(reference) -> Callable[[str], Path]:
    """Return the path of a published model, or a folder of them, by its name among the reference data."""

    def find(name: str) -> Path:
        path = reference.parent / "peers" / name
        if not path.exists():
            pytest.skip(f"the reference data have no published model {name}")
        return path

    return find


@pytest.fixture(scope="session")
def microast(peers) -> Path:
    """The folder with the four published files of MicroAST."""
    return peers("microast")


@pytest.fixture(scope="session")
def random_slim(tmp_path_factory) -> Path:
    """A folder with a backbone `slim` of random weights, for tests that do not depend on what it has learnt."""
    import torch

    from styletools import methods, modelfile

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.create("distill")
        for layer in method.nets.modules():
            if isinstance(layer, torch.nn.Conv2d):  # so that features do not fade with depth
                torch.nn.init.kaiming_normal_(layer.weight)
        modelfile.save(folder / "slim.safetensors", "distill", method)
    return folder


@pytest.fixture
def slim(random_slim, monkeypatch) -> Path:
    """Make the backbone `slim` be the random one."""
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(random_slim))
    return random_slim


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with eight small colourful pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(8):
        coarse = rng.integers(0, 256, (6 + i, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium, driven by selenium; it keeps the log of its console."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    words = [
        "headless=new", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ]  # fmt: skip
    if os.geteuid() == 0:
        words.append("no-sandbox")  # Chromium's sandbox does not start for root
    for word in words:
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Where both paths are given, selenium looks for nothing and downloads nothing.
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def ffmpeg():
    """Run ffmpeg with arguments and input; what it wrote to its standard output."""
    import imageio_ffmpeg

    def run(*arguments, data=None) -> bytes:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
        return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout

    return run


@pytest.fixture(scope="session")
def clips(ffmpeg, tmp_path_factory):
    """Clips by kind: those of CLIPS, one turned by a phone, one with all that a film may have beside pictures."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for name, (extension, words) in CLIPS.items():
        made[name] = folder / f"{name}.{extension}"
        ffmpeg(*words, made[name])
    made["turned"] = folder / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", made["ntsc"], "-c", "copy", made["turned"])
    (folder / "s.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nhello\n")
    (folder / "m.txt").write_text(
        ";FFMETADATA1\ntitle=My film\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=one\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=400\nEND=800\ntitle=two\n"
    )
    made["whole"] = folder / "whole.mkv"
    rising = "aevalsrc=sin(2*PI*(200+1500*t)*t):s=44100"
    sound = ["-f", "lavfi", "-i", rising, "-f", "lavfi", "-i", "sine=880"]
    ffmpeg(
        *SOURCE, *sound, "-i", folder / "s.srt", "-i", folder / "m.txt",
        "-map", "0", "-map", "1", "-map", "2", "-map", "3", "-t", "0.8", "-map_metadata", "4",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-c:s", "srt", "-metadata:s:a:0", "language=deu",
        "-metadata:s:a:1", "language=fra", "-metadata:s:s:0", "language=eng", made["whole"],
    )  # fmt: skip
    return made
