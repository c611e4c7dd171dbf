"""fid, kid and inception against torch-fidelity on the same files, over an Inception of random weights."""

import sys

import numpy as np
import pytest
import torch
from metric_samples import look
from PIL import Image

from styletools import errors, log, metrics
from styletools.metrics import _inception, fid

torch_fidelity = pytest.importorskip("torch_fidelity")

OUTPUTS = [look(i, 40 + 3 * i, 50) for i in range(6)]
STYLES = [look(20 + i, 60, 44 + i) for i in range(5)]


def create(word):
    return metrics.create(metrics.parse(word)[0])


def write(folder, looks):
    folder.mkdir()
    for i, each in enumerate(looks):
        array = (each.image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(array).save(folder / f"{i}.png")
    return str(folder)


@pytest.mark.slow
def test_they_are_torch_fidelitys(judges, tmp_path):
    theirs = torch_fidelity.calculate_metrics(
        input1=write(tmp_path / "o", OUTPUTS), input2=write(tmp_path / "s", STYLES), fid=True, kid=True, isc=True,
        kid_subset_size=5, isc_splits=6, batch_size=1, cuda=False, cache=False, save_cpu_ram=True, verbose=False,
        feature_extractor_weights_path=str(_inception.find_weights()),
    )  # fmt: skip
    found = {name: create(name) for name in ("fid", "kid", "inception")}
    for i, output in enumerate(OUTPUTS):
        found["kid"].pair(output, style=STYLES[i % 5])  # one comes twice, and counts once
        found["inception"].pair(output)
        if i < 5:
            found["fid"].pair(output, style=STYLES[i])
    found["fid"].outputs.append(found["kid"].outputs[5])  # more outputs than styles, as in the two folders
    totals = {name: metric.total() for name, metric in found.items()}
    assert totals["fid"][""] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert totals["fid"][""] > 0.01
    for name, key in (("kid", "kernel_inception_distance"), ("inception", "inception_score")):
        for part, end in (("", "mean"), ("std", "std")):
            assert totals[name][part] == pytest.approx(theirs[f"{key}_{end}"], rel=1e-3, abs=1e-6)


def test_few_outputs_are_warned_of_once(judges, monkeypatch):
    said = []
    monkeypatch.setattr(log, "warning", said.append)
    fid._warn.cache_clear()
    for _ in range(2):
        metric = create("fid")
        metric.pair(OUTPUTS[0], style=STYLES[0])
        metric.total()
    assert len(said) == 1 and said[0].startswith("fid: 1 outputs are fewer than 2048")


def test_statistics_of_fid_are_a_reference_for_it(judges, tmp_path):
    first, second = create("fid"), create("fid")
    for style in STYLES[:3]:
        first.pair(style, style=style)
    first.save_statistics(tmp_path / "styles.npz")
    with np.load(tmp_path / "styles.npz") as file:
        assert file["mu"].shape == (2048,) and file["sigma"].shape == (2048, 2048)
    second.use_reference(tmp_path / "styles.npz")
    for style in STYLES[:3]:
        second.pair(style)
    assert second.total()[""] == pytest.approx(0, abs=1e-6)


def test_too_few_for_kid(judges):
    metric = create("kid")
    metric.pair(OUTPUTS[0], style=STYLES[0])
    assert np.isnan(metric.total()[""])


def test_artfid_over_inception_is_that_of_fid(judges):
    one, other = create("artfid:inception"), create("fid")
    for output, style in zip(OUTPUTS[:2], STYLES):
        one.pair(output, output, style)
        other.pair(output, style=style)
    assert one.total()["fd"] == other.total()[""] and one.total()["lpips"] == 0


# ---- what is not there -----------------------------------------------------------------------------------


def test_no_package(judges, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(errors.Unavailable, match=r"pip install styletools\[eval\]"):
        _inception.Inception(_inception.find_weights())


def test_no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.Unavailable, match="weights of Inception v3 are not cached, and STYLETOOLS_OFFLINE"):
        create("fid")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("an object was unpickled",))


@pytest.mark.parametrize("content", [{"a": torch.zeros(1)}, {"a": Trap()}, Trap()], ids=["keys", "inside", "object"])
def test_weights_that_are_something_else(monkeypatch, tmp_path, content):
    """torch-fidelity would run what a pickle says; so it is given none but of plain tensors."""
    torch.save(content, tmp_path / _inception.URL.rpartition("/")[2])
    monkeypatch.setenv("STYLETOOLS_WEIGHTS", str(tmp_path))
    with pytest.raises(errors.DataError, match="not "):
        create("kid")
