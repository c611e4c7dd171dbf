"""Models of styles of their own, from st-train to st-apply: one style needs no -s, of several -s takes the names."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from styletools import modelfile

pytestmark = pytest.mark.usefixtures("slim")

SMALL = ["--batch-size", "2", "--crop-size", "32", "--holdout", "4", "--threads", "1", "--seed", "3"]
TINY = ["-O", "widths=4,6,8", "-O", "blocks=1", "-O", "kernel=3"]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_one_style_is_built_in(call, pictures, folder):
    data = ["--content", pictures, "--style", f"{pictures}/0.png"]
    plan = [*SMALL, "--schedule", "constant"]
    assert call("st-train", "johnson", *data, "-o", "one.safetensors", *plan, *TINY, "--steps", "4")[::2] == (0, "")
    assert json.loads(modelfile.check("one.safetensors")["config"])["styles"] == "0"
    assert call("st-apply", "-m", "one.safetensors", f"{pictures}/1.png", "-o", "a.png")[::2] == (0, "")
    assert pixels("a.png").shape == pixels(f"{pictures}/1.png").shape
    assert call("st-apply", "-m", "one.safetensors", "-s", "0", f"{pictures}/1.png", "-o", "b.png")[0] == 0
    assert (pixels("a.png") == pixels("b.png")).all()

    call("st-train", "johnson", *data, "-o", "two.safetensors", *plan, *TINY, "--steps", "2")
    more = ["--steps", "4", "--resume"]
    assert call("st-train", "johnson", *data, "-o", "two.safetensors", *plan, *more)[::2] == (0, "")
    straight, parts = (modelfile.load(f"{name}.safetensors").nets.state_dict() for name in ("one", "two"))
    assert all((straight[key] == parts[key]).all() for key in straight)


def test_a_bank_of_styles(call, pictures, folder):
    styles = folder / "styles"
    styles.mkdir()
    shutil.copy(pictures / "0.png", styles / "great wave.png")
    shutil.copy(pictures / "1.png", styles / "plain.png")
    words = ["johnson", "--content", pictures, "--style", styles, "-o", "bank.safetensors", *SMALL, *TINY]
    assert call("st-train", *words, "-O", "lr=0.05", "--ema", "0", "--warmup", "0", "--steps", "6")[::2] == (0, "")
    assert json.loads(modelfile.check("bank.safetensors")["config"])["styles"] == "great-wave,plain"

    photo = pictures / "2.png"
    for name, style in [("a", "great-wave"), ("b", "plain"), ("c", "great-wave:3,plain"), ("d", "plain:2")]:
        assert call("st-apply", "-m", "bank.safetensors", "-s", style, photo, "-o", f"{name}.png")[::2] == (0, "")
    first, second, mixed, again = (pixels(f"{name}.png") for name in "abcd")
    assert (first != second).any() and (mixed != first).any() and (mixed != second).any()
    assert (second == again).all()

    for style, status, message in [
        ([], 2, "this model holds several styles: -s NAME, of great-wave, plain"),
        (["-s", "wave"], 2, "bank.safetensors has no style 'wave': it has great-wave, plain"),
        (["-s", "plain:-1"], 2, "0 or more"),
        (["-s", "plain:0"], 2, "more than 0"),
        (["-s", photo], 2, "has no style"),
    ]:
        found, _, err = call("st-apply", "-m", "bank.safetensors", *style, photo, "-o", "x.png")
        assert found == status and message in err and err.count("\n") == 1, err


def test_styles_of_one_name(call, pictures, folder):
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (40, 40)).save(name)
    words = ["johnson", "--content", pictures, "--style", "a.png", "--style", "a.jpg", "-o", "x.safetensors", *SMALL]
    status, _, err = call("st-train", *words)
    assert status == 2 and "two styles are called a: rename one" in err
