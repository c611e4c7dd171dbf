"""st-gram: statistics, merged, and style records."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from styletools import modelfile, stats, streams
from styletools.engine import styles
from styletools.methods import live

pytestmark = pytest.mark.usefixtures("slim")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def statistics(call, picture, folder):
    """Make a file of statistics of one picture: statistics(name, *options, seed=0, width=24)."""

    def make(name, *options, seed=0, width=24):
        picture(f"{name}.png", width, 20, seed)
        status, out, err = call("st-gram", *(options or ("-l", "relu1_1,relu2_1")), f"{name}.png")
        assert (status, err) == (0, "")
        (folder / f"{name}.safetensors").write_bytes(out)
        return f"{name}.safetensors"

    return make


def test_statistics_of_pictures_are_those_of_their_features(call, picture, records):
    picture("in/wave.png", 24, 20)
    (features,) = records(call("st-extract", "in/wave.png")[1])
    status, direct, _ = call("st-gram", "in/wave.png")
    (record,) = records(direct)
    (piped,) = records(call("st-gram", stdin=call("st-extract", "in/wave.png")[1])[1])
    assert status == 0
    assert record.meta["kind"] == "stats" and record.meta["count"] == "1" and record.name == piped.name == "wave"
    assert record.meta == piped.meta
    for layer, array in features.tensors.items():
        tensor = torch.from_numpy(array.copy())
        for found in (record, piped):
            np.testing.assert_allclose(found.tensors[f"{layer}.mean"], stats.mean(tensor), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.tensors[f"{layer}.moment"], stats.moment(tensor), rtol=1e-4, atol=1e-6)


def test_merging_is_exact(call, statistics, records):
    a, b, c = (records(statistics(name, seed=seed))[0] for name, seed in [("a", 1), ("b", 2), ("c", 3)])
    (all_three,) = records(call("st-gram", "a.png", "b.png", "c.png", "-l", "relu1_1,relu2_1")[1])
    assert all_three.meta["count"] == "3" and all_three.name == "a+b+c" and "image_size" not in all_three.meta
    Path("ab.safetensors").write_bytes(call("st-gram", "a.safetensors", "b.safetensors")[1])
    (two_steps,) = records(call("st-gram", "ab.safetensors", "c.safetensors")[1])
    (weighted,) = records(call("st-gram", "--merge", "ab.safetensors:0.6", "c.safetensors:0.4", "--name", "mix")[1])
    assert weighted.name == "mix" and weighted.meta["count"] == two_steps.meta["count"] == "3"
    for key in a.tensors:
        mean = (a.tensors[key].astype(np.float64) + b.tensors[key] + c.tensors[key]) / 3
        np.testing.assert_allclose(all_three.tensors[key], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(two_steps.tensors[key], mean, rtol=1e-5, atol=1e-7)
        other = 0.3 * a.tensors[key] + 0.3 * b.tensors[key] + 0.4 * c.tensors[key]
        np.testing.assert_allclose(weighted.tensors[key], other, rtol=1e-5, atol=1e-7)


def test_weights_belong_to_names(call, statistics, records, folder):
    for name, seed in [("a", 1), ("x:1", 2)]:
        statistics(name, seed=seed)
    (folder / "x:1.safetensors").rename("x:0.5")
    first, other = records("a.safetensors")[0], records("x:0.5")[0]
    for words, share in [
        (["a.safetensors:3", "x:0.5"], 0.25),  # a file whose name ends so
        (["a.safetensors:3", "x:0.5:1"], 0.25),
        (["a.safetensors", "a.safetensors:1", "x:0.5:2"], 0.5),
    ]:
        status, out, err = call("st-gram", "--merge", *words)
        assert (status, err) == (0, "")
        key = "relu1_1.mean"
        expected = (1 - share) * first.tensors[key] + share * other.tensors[key]
        np.testing.assert_allclose(records(out)[0].tensors[key], expected, rtol=1e-5)
    assert call("st-gram", "a.safetensors:3")[0] == 66  # no weights without --merge
    for bad in ("a.safetensors:0", "a.safetensors:-1", "a.safetensors:inf", "a.safetensors:nan"):
        assert call("st-gram", "--merge", bad)[0] == 2


def test_a_folder_has_one_weight(call, picture, records):
    for name, seed in [("many/a", 1), ("many/b", 2), ("c", 3)]:
        picture(f"{name}.png", 24, 20, seed)
    (mixed,) = records(call("st-gram", "--merge", "many:1", "c.png:1", "-l", "relu1_1")[1])
    expected = 0
    for name, share in [("many/a", 0.25), ("many/b", 0.25), ("c", 0.5)]:
        (alone,) = records(call("st-gram", f"{name}.png", "-l", "relu1_1")[1])
        expected = expected + share * alone.tensors["relu1_1.mean"]
    np.testing.assert_allclose(mixed.tensors["relu1_1.mean"], expected, rtol=1e-4)


def test_each_makes_a_record_an_input(call, picture, records, folder):
    for seed, name in enumerate(("a", "b")):
        picture(f"{name}.png", 24, 20, seed)
    assert call("st-gram", "--each", "-l", "relu1_1", "a.png", "b.png", "-o", "both.safetensors")[0] == 0
    assert [record.name for record in records("both.safetensors")] == ["a", "b"]
    (folder / "bad.png").write_bytes(b"bad")
    assert call("st-gram", "--each", "-l", "relu1_1", "a.png", "bad.png", "b.png", "-o", "out/")[0] == 1
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a.safetensors", "b.safetensors"]


def test_one_result_of_a_folder(call, picture, records):
    picture("in/a.png")
    picture("in/b.png", seed=1)
    assert call("st-gram", "-l", "relu1_1", "in", "-o", "out/", "--name", "x/y.z")[0] == 0
    assert records("out/x_y.z.safetensors")[0].name == "x/y.z"


def test_a_part_that_fails_is_no_result(call, picture, folder):
    picture("a.png")
    (folder / "bad.png").write_bytes(b"bad")
    for bad, status in [("bad.png", 65), ("gone.png", 66)]:
        found, out, err = call("st-gram", "-l", "relu1_1", "a.png", bad, "-o", "x.safetensors")
        assert found == status and err.count("\n") == 1 and bad in err
        assert not Path("x.safetensors").exists()
    assert call("st-gram", stdin=b"")[:2] == (0, b"")


def test_derived_statistics(call, picture, records):
    picture("a.png", 24, 20)
    (features,) = records(call("st-extract", "-l", "relu2_1", "a.png")[1])
    tensor = torch.from_numpy(features.tensors["relu2_1"].copy())
    mean, std = stats.mean_std(tensor)
    expected = {
        "gram": {"relu2_1.gram": stats.gram_matrix(tensor)},
        "covariance": {"relu2_1.covariance": stats.covariance(tensor)},
        "mean-std": {"relu2_1.mean": mean, "relu2_1.std": std},
    }
    for wanted, tensors in expected.items():
        _, out, _ = call("st-gram", "-l", "relu2_1", "--as", wanted, "a.png")
        (record,) = records(out)
        assert record.meta["kind"] == wanted and set(record.tensors) == set(tensors)
        for key, value in tensors.items():
            np.testing.assert_allclose(record.tensors[key], value, rtol=1e-3, atol=1e-5)
        status, _, err = call("st-gram", stdin=out)
        assert status == 78 and "cannot be merged" in err


def test_what_does_not_belong_together_is_told(call, statistics, records, folder):
    statistics("a")
    (record,) = records("a.safetensors")

    def changed(tensors=None, **meta):
        with open("b.safetensors", "wb") as out, streams.writer(out, "safetensors") as writer:
            writer.write(streams.Tensors(tensors or record.tensors, "b", meta=record.meta | {"name": "b"} | meta))
        return call("st-gram", "a.safetensors", "b.safetensors")

    assert changed()[0] == 0
    for meta, message in [
        ({"backbone": "vgg16"}, "statistics of vgg16, those before are of slim"),
        ({"backbone_sha256": "0"}, "slim with other weights"),
        ({"layers": "relu1_1"}, "statistics of layers relu1_1, those before are of relu1_1,relu2_1"),
        ({"lifted": "true"}, "--lift"),
    ]:
        status, out, err = changed(**meta)
        assert (status, out) == (78, b"") and message in err and "b.safetensors: b: " in err
    halved = {key: array[: len(array) // 2] for key, array in record.tensors.items()}
    assert changed(halved)[0] == 65
    smaller = {key: array[(slice(8),) * array.ndim] for key, array in record.tensors.items()}
    assert changed(smaller)[0] == 78
    for meta, status in [({"kind": "model"}, 78), ({"kind": ""}, 78), ({"layers": ""}, 65), ({"count": "x"}, 65)]:
        assert changed(**meta)[0] == status


def test_options_that_do_not_go_together(call, picture, folder):
    picture("a.png")
    for words in (
        ["--each", "--merge"], ["--each", "--name", "x"], ["--for", "gatys", "--as", "gram"], ["-O", "steps=3"],
        ["--for", "gatys", "-b", "slim"], ["--for", "gatys", "-l", "relu1_1"], ["--for", "gatys", "--lift"],
        ["--for", "nope/nope"], ["--for", "distill"], ["--refine", "."], ["--for", "gatys", "--refine", "."],
        ["--for", "gatys", "-O", "nope=1"], ["-l", "nope"],
    ):  # fmt: skip
        status, out, err = call("st-gram", *words, "a.png")
        assert (status, out) == (66 if "nope/nope" in words else 2, b""), (words, err)


# ---- style records ---------------------------------------------------------------------------------------


def test_style_records_of_a_model(call, picture, records, live_model):
    for seed, name in enumerate(("great-wave", "night")):
        picture(f"{name}.png", 24, 20, seed)
    encode = ["st-gram", "--for", live_model]
    status, _, err = call(*encode, "--each", "great-wave.png", "night.png", "-o", "styles.safetensors")
    assert (status, err) == (0, "")
    found = records("styles.safetensors")
    assert [record.name for record in found] == ["great-wave", "night"]
    digest = modelfile.digest(live_model)
    method = modelfile.load(live_model)
    for record in found:
        assert record.meta["kind"] == "style" and record.meta["method"] == "live"
        assert record.meta["model_sha256"] == digest
        image = styles.load_image(f"{record.name}.png")
        with torch.no_grad():
            expected = method.encode_style([image], [1.0])["code"]
        np.testing.assert_allclose(record.tensors["code"], expected, atol=1e-5)
    first, second = (record.tensors["code"] for record in found)
    (mixed,) = records(call(*encode, "--merge", "great-wave.png:3", "night.png:1", "--name", "m")[1])
    np.testing.assert_allclose(mixed.tensors["code"], 0.75 * first + 0.25 * second, atol=1e-5)
    (again,) = records(call(*encode, "styles.safetensors")[1])
    assert again.name == "great-wave+night" and again.meta["count"] == "2"
    np.testing.assert_allclose(again.tensors["code"], 0.5 * first + 0.5 * second, atol=1e-5)


def test_a_record_is_fitted_to_photographs(call, picture, records, live_model, monkeypatch):
    monkeypatch.setattr(live, "STEPS", 4)
    for seed in range(3):
        picture(f"photos/{seed}.png", 40, 36, seed)
    picture("wave.png", 44, 40, 9)
    encode = ["st-gram", "--for", live_model, "wave.png"]
    (guessed,) = records(call(*encode)[1])
    (first,), (second,) = (records(call(*encode, "--refine", "photos")[1]) for _ in range(2))
    assert first.meta == guessed.meta and first.name == "wave"
    np.testing.assert_array_equal(first.tensors["code"], second.tensors["code"])
    change = np.abs(first.tensors["code"] - guessed.tensors["code"])
    assert 0.001 < change.max() < 0.2
    call(*encode, "-o", "wave.safetensors")
    for words, status, why in (
        (["wave.safetensors", "--refine", "photos"], 78, "only pictures"),
        (["wave.png", "--refine", "none"], 66, "none"),
    ):  # fmt: skip
        code, out, err = call("st-gram", "--for", live_model, *words)
        assert (code, out, err.count("\n")) == (status, b"", 1) and why in err


def test_style_records_of_another_model_do_not_fit(call, picture, live_model, statistics, folder, records):
    picture("a.png", 24, 20)
    call("st-gram", "--for", live_model, "a.png", "-o", "style.safetensors")
    (record,) = records("style.safetensors")
    with open("other.safetensors", "wb") as out, streams.writer(out, "safetensors") as writer:
        writer.write(streams.Tensors(record.tensors, meta=record.meta | {"model_sha256": "0" * 64}))
    for name in ("other.safetensors", statistics("b")):
        status, out, err = call("st-gram", "--for", live_model, name)
        assert (status, out) == (78, b"") and err.startswith(f"st-gram: {name}: ") and err.count("\n") == 1
    status, _, err = call("st-gram", "style.safetensors")
    assert status == 78 and "holds a style" in err
    status, _, err = call("st-gram", "--for", "style.safetensors", "a.png")
    assert status == 78 and "not a model" in err


def test_methods_without_a_model_take_statistics(call, statistics, records, picture):
    layers = "style_layers=relu1_1,relu2_1"
    for name, options in [("lifted", ["--lift"]), ("plain", [])]:
        statistics(name, *options, "-l", "relu1_1,relu2_1,relu3_1")
    (made,) = records(call("st-gram", "--for", "gatys", "-O", layers, "--size", "20", "plain.png")[1])
    fits = {16: ["plain", "lifted"], 64: ["lifted", "plain"]}[len(made.tensors["relu1_1.mean"])]
    status, out, err = call("st-gram", "--for", "gatys", "-O", layers, f"{fits[0]}.safetensors")
    assert (status, err) == (0, "")
    (passed,) = records(out)
    assert passed.meta["kind"] == "style" and passed.meta["method"] == "gatys" and passed.meta["backbone"] == "slim"
    assert set(passed.tensors) == set(made.tensors) == {
        f"{layer}.{what}" for layer in ("relu1_1", "relu2_1") for what in ("mean", "moment")
    }
    for key, array in made.tensors.items():
        np.testing.assert_allclose(passed.tensors[key], array, rtol=1e-3, atol=1e-5)
    status, _, err = call("st-gram", "--for", "gatys", "-O", layers, f"{fits[1]}.safetensors")
    assert status == 78 and "--lift" in err
    status, _, err = call("st-gram", "--for", "gatys", "-O", "backbone=vgg19", f"{fits[0]}.safetensors")
    assert status == 78 and "statistics of slim, but gatys uses vgg19" in err


def test_arithmetic_on_files_needs_no_torch(statistics, folder):
    statistics("a", seed=1)
    statistics("b", seed=2)
    script = (
        "import sys; from styletools.cli.st_gram import main\n"
        "try: main.main(['--merge', 'a.safetensors:0.7', 'b.safetensors:0.3', '-o', 'x.safetensors'])\n"
        "except SystemExit as ended: sys.exit(ended.code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert Path("x.safetensors").exists()
