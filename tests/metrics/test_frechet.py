"""Fréchet distances (fd, artfid) against SciPy's matrix root and torch-fidelity; files of statistics."""

import numpy as np
import pytest
import torch
from metric_samples import look
from scipy import linalg

from styletools import backbones, errors, metrics
from styletools.metrics import _frechet, _lpips


def rows(seed, count=60, size=12):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, size)) @ generator.standard_normal((size, size)) + generator.random(size)


def by_scipy(a, b):
    (mu, sigma), (other_mu, other_sigma) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    root = linalg.sqrtm(sigma @ other_sigma)
    return np.sum((mu - other_mu) ** 2) + np.trace(sigma + other_sigma - 2 * np.real(root))


def distance(a, b):
    return _frechet.frechet(*_frechet.statistics(a), *_frechet.statistics(b))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_formula_with_scipys_root(seed):
    a, b = rows(seed), rows(seed + 10, 40)
    assert distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-8)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-8)


@pytest.mark.parametrize("counts", [(60, 40), (5, 7), (2, 60)], ids=str)
def test_it_is_torch_fidelitys(counts):
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = rows(1, counts[0], 40), rows(2, counts[1], 40)
    sets = (theirs.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b))
    found = theirs.fid_statistics_to_metric(*sets, False)
    assert distance(a, b) == pytest.approx(found[theirs.KEY_METRIC_FID], rel=1e-5)


def test_singular_covariances_are_no_trouble():
    few = rows(1, 5, 50)
    assert distance(few, few) == pytest.approx(0, abs=1e-6)
    assert distance(few, few + 2) == pytest.approx(4 * 50, rel=1e-6)
    assert distance(few[:1], few[1:2]) == pytest.approx(np.sum((few[0] - few[1]) ** 2))
    flat = np.ones((4, 50))
    assert distance(flat, flat) == 0


def test_one_dimension_is_known():
    """Of two normal distributions it is (m1 - m2)² + (s1 - s2)²."""
    one, other = (np.array([1.0]), np.array([[4.0]])), (np.array([3.0]), np.array([[25.0]]))
    assert _frechet.frechet(*one, *other) == pytest.approx(13)


# ---- files -----------------------------------------------------------------------------------------------


def test_files_are_read_as_written_and_as_pytorch_fid_writes_them(tmp_path):
    mu, sigma = _frechet.statistics(rows(1))
    _frechet.save_npz(tmp_path / "own.npz", mu, sigma, "slim")
    np.savez_compressed(tmp_path / "theirs.npz", mu=mu, sigma=sigma)
    for name, network in (("own", "slim"), ("theirs", "")):
        found = _frechet.load_npz(tmp_path / f"{name}.npz")
        assert np.array_equal(found[0], mu) and np.array_equal(found[1], sigma) and found[2] == network
    with np.load(tmp_path / "own.npz") as file:  # as pytorch-fid reads them
        assert np.array_equal(file["mu"][:], mu) and np.array_equal(file["sigma"][:], sigma)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("an object was unpickled",))


BAD = {
    "text": lambda path: path.write_text("mu sigma"),
    "empty": lambda path: path.write_bytes(b""),
    "array": lambda path: np.save(path.open("wb"), np.ones(3)),
    "names": lambda path: np.savez(path, mean=np.ones(3), sigma=np.eye(3)),
    "shapes": lambda path: np.savez(path, mu=np.ones(3), sigma=np.eye(4)),
    "numbers": lambda path: np.savez(path, mu=np.full(3, np.nan), sigma=np.eye(3)),
    "words": lambda path: np.savez(path, mu=np.array(["a", "b"]), sigma=np.eye(2)),
    "objects": lambda path: np.savez(path, mu=np.array([Trap()], object), sigma=np.eye(1)),
}


@pytest.mark.parametrize("kind", BAD)
def test_other_files_are_refused(tmp_path, kind):
    path = tmp_path / "bad.npz"
    BAD[kind](path)
    with pytest.raises(errors.DataError, match="bad.npz: "):
        _frechet.load_npz(path)


def test_cut_and_missing_files(tmp_path):
    path = tmp_path / "bad.npz"
    _frechet.save_npz(path, *_frechet.statistics(rows(1)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(errors.DataError, match="not a statistics file"):
        _frechet.load_npz(path)
    with pytest.raises(errors.MissingInput, match="gone.npz"):
        _frechet.load_npz(tmp_path / "gone.npz")


# ---- metrics ---------------------------------------------------------------------------------------------


def create(word):
    return metrics.create(metrics.parse(word)[0])


OUTPUTS, CONTENTS, STYLES = ([look(10 * kind + i, 40, 30 + 3 * i) for i in range(4)] for kind in range(3))


def pooled(judge, layer, looks):
    with torch.no_grad():
        return np.stack([judge(each.image, (layer,))[layer].mean((0, 2, 3)).double().numpy() for each in looks])


@pytest.mark.parametrize("network, layer", [("slim", "relu4_1"), ("squeezenet", "fire9")])
def test_fd_is_the_distance_of_pooled_features_up_to_the_networks_scale(judges, network, layer):
    judge = backbones.load(network)
    seen = [pooled(judge, layer, looks) for looks in (OUTPUTS, STYLES, CONTENTS)]
    found = []
    for outputs in (OUTPUTS, CONTENTS):
        metric = create(f"fd:{network}")
        for output, style in zip(outputs, STYLES):
            assert metric.pair(output, style=style) == {}
        found.append(metric.total()[""])
    expected = [distance(seen[0], seen[1]), distance(seen[2], seen[1])]
    assert found[0] / found[1] == pytest.approx(expected[0] / expected[1], rel=1e-3)


def test_a_style_counts_as_often_as_it_occurs():
    metric = create("fd")
    for output, style in zip(OUTPUTS, [STYLES[0]] * 3 + [STYLES[1]]):
        metric.pair(output, style=style)
    twice = create("fd")
    for style in [STYLES[0]] * 3 + [STYLES[1]]:
        twice.pair(style, style=style)
    assert twice.total()[""] == pytest.approx(0, abs=1e-6) and metric.total()[""] > 0.01


def test_a_reference_stands_for_the_styles(tmp_path, judges):
    whole, of_styles, against = create("fd"), create("fd"), create("fd")
    for output, style in zip(OUTPUTS, STYLES):
        whole.pair(output, style=style)
        of_styles.pair(style, style=style)
    of_styles.save_statistics(tmp_path / "styles.npz")
    against.use_reference(tmp_path / "styles.npz")
    for output in OUTPUTS:
        against.pair(output)
    assert against.total()[""] == pytest.approx(whole.total()[""], rel=1e-6)
    mu, sigma = against.statistics()
    assert mu.shape == (len(mu),) and sigma.shape == (len(mu), len(mu))
    with pytest.raises(errors.DoesNotFit, match="styles.npz: statistics of slim, not of squeezenet"):
        create("fd:squeezenet").use_reference(tmp_path / "styles.npz")
    np.savez(tmp_path / "small.npz", mu=np.ones(3), sigma=np.eye(3))
    with pytest.raises(errors.DoesNotFit, match="small.npz: statistics of 3 features, slim has "):
        create("fd").use_reference(tmp_path / "small.npz")


def test_artfid_is_the_product_and_copying_wins_a_factor(judges):
    def total(word, outputs):
        metric = create(word)
        for output, content, style in zip(outputs, CONTENTS, STYLES):
            metric.pair(output, content if "art" in word else None, style)
        return metric.total()

    found = total("artfid", [o.fitted(c.image.shape[-2:]) for o, c in zip(OUTPUTS, CONTENTS)])
    lpips = _lpips.Lpips()
    assert found["lpips"] == pytest.approx(
        sum(float(lpips(o.image, c.image)) for o, c in zip(OUTPUTS, CONTENTS)) / 4, rel=1e-4
    )
    assert found["fd"] == pytest.approx(total("fd", OUTPUTS)[""])
    assert found[""] == pytest.approx((1 + found["lpips"]) * (1 + found["fd"]))
    copied, painted = total("artfid", CONTENTS), total("artfid", STYLES)
    assert copied["lpips"] == pytest.approx(0, abs=1e-6) and painted["fd"] == pytest.approx(0, abs=1e-5)
