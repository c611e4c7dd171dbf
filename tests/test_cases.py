"""Shell lines and what they must print: tests/cases/<command>/<case>/{cmd,expout,status}.

A case's `cmd` is run by bash in a folder of its own, with bin/ in the PATH and a few small pictures: in/a.ppm,
in/b.ppm (4x3), in/deep/c.png (5x4, with alpha) and broken.png. `expout` is its standard output, of which
nothing may be missing or new; standard error must be empty unless there is a file `experr`. `status` (default 0) is
its exit status.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TESTS = Path(__file__).parent
CASES = sorted(path.parent for path in (TESTS / "cases").glob("*/*/cmd"))


@pytest.fixture
def folder(tmp_path):
    """A folder with the pictures that the cases use."""
    (tmp_path / "in/deep").mkdir(parents=True)
    steps = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(3, 4, 3)
    Image.fromarray(steps).save(tmp_path / "in/a.ppm")
    Image.fromarray(255 - steps).save(tmp_path / "in/b.ppm")
    Image.fromarray(np.arange(5 * 4 * 4, dtype=np.uint8).reshape(4, 5, 4)).save(tmp_path / "in/deep/c.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0")
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_case(case, folder, request):
    line = (case / "cmd").read_text()
    if "gatys" in line or "st-extract" in line or "-l relu" in line:
        request.getfixturevalue("slim")
    path = os.pathsep.join([str(TESTS.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
    )  # fmt: skip
    expected = {name: (case / name).read_text() if (case / name).exists() else "" for name in ("expout", "experr")}
    assert done.stderr.decode() == expected["experr"]
    assert done.stdout.decode() == expected["expout"]
    status = case / "status"
    assert done.returncode == (int(status.read_text()) if status.exists() else 0)
