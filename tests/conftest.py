"""Fixtures that tests of several folders share."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
def microast(reference) -> Path:
    """The folder with the four published files of MicroAST."""
    folder = reference.parent / "peers/microast"
    if not folder.is_dir():
        pytest.skip("the reference data have no published model of MicroAST")
    return folder


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
