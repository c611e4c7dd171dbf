"""The torch-free path: the same pictures as by torch, of every size and kind."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from styletools import errors, files, modelfile, streams
from styletools.engine import graph, infer, styles

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def live():
    """The bundled model: its method, digest and graph."""
    path = modelfile.find("live")
    digest = modelfile.digest(path)
    return modelfile.load(path), digest, graph.Graph(graph.find(path, digest), precise=True)


def pair(live, specs, *, loaded=None, outside=(), **options):
    """Return the same restyler twice: by torch, and by the graph."""
    method, digest, precise = live
    loaded = loaded or precise
    told = {"size": 64, "method_name": "live", "model_digest": digest}
    chosen, other = styles.parse(specs), styles.parse(outside)
    mask = options.pop("mask", None)
    reference = infer.Restyler(
        method, styles.encode(method, chosen, **told), mask=infer.to_plane(mask) if mask else None,
        outside=styles.encode(method, other, **told) if outside else None, **options,
    )  # fmt: skip
    return reference, graph.Restyler(
        loaded, graph.encode(loaded, chosen, **told), mask=graph.to_plane(mask) if mask else None,
        outside=graph.encode(loaded, other, **told) if outside else None, **options,
    )  # fmt: skip


def image(height, width, channels=3, dtype=np.uint8, seed=0):
    """Return a picture of soft shapes and some noise, over the whole range."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 16 + 2, width // 16 + 2, channels), dtype=np.float32)
    soft = graph.resize(coarse, (height, width), graph.Image.Resampling.BICUBIC)
    top = np.iinfo(dtype).max
    array = ((soft + rng.normal(0, 0.02, soft.shape)) * top).clip(0, top).astype(dtype)
    return streams.Image(array, "x.png", 3, {"icc": b"profile"})


def differ(reference, restyler, given):
    """Return how many levels of 255 two restylers differ by at most; all but pixels must be the same."""
    before = given.array.copy()
    wanted, found = reference(given), restyler(given)
    assert (given.array == before).all()
    assert (found.name, found.index, found.meta) == (wanted.name, wanted.index, wanted.meta)
    assert found.array.dtype == wanted.array.dtype and found.array.shape == wanted.array.shape
    return abs(found.array.astype(int) - wanted.array).max() / (np.iinfo(found.array.dtype).max // 255)


SIZES = [(1, 1), (1, 300), (300, 1), (16, 16), (17, 33), (120, 91), (500, 701)]


@pytest.mark.parametrize("size", SIZES)
def test_any_size(live, size):
    # One colour has no variance: normalisation makes 300 times as much of what is left of it by rounding.
    assert differ(*pair(live, ["great-wave"]), image(*size)) <= (2 if size == (1, 1) else 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_kind(live, dtype, channels):
    assert differ(*pair(live, ["the-scream"]), image(45, 62, channels, dtype)) <= 1


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0.0}, {"alpha": 0.4}, {"size": 40}, {"size": 130}, {"size": (33, 71)}, {"preserve_color": "luminance"},
     {"mask": image(9, 12, 1)}, {"mask": image(200, 100, 4, seed=4)}, {"mask": image(9, 12), "outside": ["mistral"]},
     {"alpha": 0.7, "size": 50, "mask": image(9, 9), "outside": ["starry-night"], "preserve_color": "luminance"}],
    ids=lambda options: "+".join(options),
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_options(live, options, dtype):
    options = dict(options)
    # Blobs of random colours have extreme codes, which alpha takes: rounding shows more than in photographs.
    most = 2 if "alpha" in options else 1
    assert differ(*pair(live, ["great-wave:2", "mistral"], **options), image(60, 83, 4, dtype)) <= most


@pytest.mark.xfail(reason="live guesses extreme codes for blobs of random colours; rounding shows by up to 35 levels")
def test_styles_of_pictures_and_records(live, tmp_path):
    from PIL import Image

    method, digest, _ = live
    for number, side in enumerate((90, 40)):
        Image.fromarray(image(side, 131, 4, seed=number).array).save(tmp_path / f"{number}.png")
    record = styles.to_record(
        styles.encode(method, styles.parse(["mistral"]), method_name="live", model_digest=digest),
        name="r", method_name="live", model_digest=digest,
    )  # fmt: skip
    with open(tmp_path / "r.safetensors", "wb") as out, streams.writer(out, "safetensors") as writer:
        writer.write(record)
    specs = [f"{tmp_path}/0.png:2,{tmp_path}/1.png", f"{tmp_path}/r.safetensors:0.5", "the-scream:0"]
    assert differ(*pair(live, specs), image(64, 80)) <= 1


def test_what_does_not_fit(live, tmp_path):
    from PIL import Image

    loaded = live[2]
    told = {"size": None, "method_name": "live", "model_digest": live[1]}
    Image.fromarray(image(90, 12).array).save(tmp_path / "thin.png")
    with pytest.raises(graph.NotPossible, match="less than 16"):
        graph.encode(loaded, styles.parse([f"{tmp_path}/thin.png"]), **told)
    with pytest.raises(errors.DoesNotFit, match="another model"):
        graph.encode(loaded, styles.parse(["mistral"]), **told | {"model_digest": "0"})
    restyler = graph.Restyler(loaded, graph.encode(loaded, styles.parse(["mistral"]), **told))
    with pytest.raises(errors.DataError, match="not a picture"):
        restyler(streams.Tensors({}))
    restyler.size, restyler.limits = 512, streams.Limits(max_pixels=1_000_000)
    with pytest.raises(errors.DataError, match="over the limit"):
        restyler(image(3000, 1))


@pytest.fixture
def film(live):
    """What restyles frames in bfloat16 where it may, and what does so in float32."""
    path = modelfile.find("live")
    loaded = graph.Graph(graph.find(path, live[1]))
    if not loaded.half:
        pytest.skip("this CPU has no bfloat16")
    return loaded, live[2]


def frames(count, seed=0):
    """Return the frames of a pan over a picture."""
    whole = image(300, 420, seed=seed).array
    return [np.ascontiguousarray(whole[:288, 2 * number : 288 + 2 * number]) for number in range(count)]


@pytest.mark.parametrize("name", ["acrobats", "etretat", "mistral"])
def test_frames_in_bfloat16_differ_by_two_levels_at_most(film, live, name):
    loaded, precise = film
    told = {"size": None, "method_name": "live", "model_digest": live[1]}
    style = graph.encode(precise, styles.parse([name]), **told)
    off = [abs(loaded.paint(frame, style).astype(int) - precise.paint(frame, style)) for frame in frames(8)]
    assert loaded._scene.is_near, "soft pictures bear it"
    assert max(each.max() for each in off) <= 2 and 0 < np.mean(off[-1]) < 0.3


def test_pictures_that_are_no_film_are_in_float32(film, live):
    """So are the first ones, those in other styles, small ones, those of 16 bits, and those that would change more."""
    loaded, precise = film
    style, other = ({"code": np.full(loaded.shapes["code"], value, np.float32)} for value in (0, 0.1))

    def exact(picture, style) -> bool:
        return abs(loaded.paint(picture, style).astype(int) - precise.paint(picture, style)).max() <= 1

    assert all(exact(frames(1, seed)[0], style) for seed in range(4))
    assert all(exact(frame, style if number % 2 else other) for number, frame in enumerate(frames(4)))
    pair(live, ["mistral"], loaded=loaded)[1](image(200, 200))
    assert not any(half for _, half in loaded._requests)
    wild = {"code": np.random.default_rng(0).normal(0, 3, loaded.shapes["code"]).astype(np.float32)}
    assert all(exact(frame, wild) for frame in frames(4)) and not loaded._scene.is_near


@pytest.mark.slow
def test_films_of_photographs_in_bfloat16(film, live, reference):
    """Pans over photographs in the styles of paintings: no value of any frame is off by more than two levels."""
    loaded, precise = film
    contents, works = (sorted((reference / kind).iterdir()) for kind in ("content", "style"))
    near = 0
    for number in range(14):
        paths = [each[number * len(each) // 14] for each in (contents, works)]
        picture, work = (streams.flat_rgb(streams.open_image(path)) for path in paths)
        levels = graph.scale(picture[..., :3].astype(np.float32), 400)[:388, :397].astype(np.uint8)
        style = precise.encode(graph.scale(work[..., :3].astype(np.float32), 300))
        for step in range(3):
            frame = np.ascontiguousarray(levels[step : step + 384, step : step + 384])
            off = abs(loaded.paint(frame, style).astype(int) - precise.paint(frame, style))
            assert off.max() <= 2, paths
        near += loaded._scene.is_near
    assert near >= 2


def test_what_came_before_makes_no_difference(live):
    """Neither to the picture nor, later, to what an earlier one returned."""
    pictures = [image(33, 40), image(50, 30, seed=1), image(33, 40, seed=2), image(300, 200, 1)]
    forth, back = (pair(live, ["mistral"])[1] for _ in range(2))
    made = [forth(each).array for each in pictures]
    kept = [array.copy() for array in made]
    again = [back(each).array for each in pictures[::-1]][::-1]
    assert all((a == b).all() and (a == c).all() for a, b, c in zip(made, kept, again))


def test_pictures_are_not_copied_to_lie_as_styles_do(live):
    """That took two thirds of the time: OpenVINO does it unless all that goes into a step lies in one way."""
    live[2].paint(image(16, 16).array, {"code": np.zeros(live[2].shapes["code"], np.float32)})
    steps = live[2]._requests["bytes", False].get_compiled_model().get_runtime_model().get_ops()
    told = [(step.get_friendly_name(), step.get_rt_info()) for step in steps]
    copies = [name for name, info in told if info["layerType"].astype(str) == "Reorder" and "_acdb_abcd" in name]
    assert len(told) > 40 and all("picture" in name for name in copies)


def test_compiled_graphs_are_kept_and_damaged_ones_made_again(live):
    path = graph.find(modelfile.find("live"), live[1])
    style = {"code": np.zeros(graph.Graph(path).shapes["code"], np.float32)}
    given = image(16, 16).array
    wanted = graph.Graph(path, precise=True).paint(given, style).copy()
    (blob,) = (files.cache_dir() / "graphs").glob("*.blob")
    assert (graph.Graph(path, precise=True).paint(given, style) == wanted).all()
    blob.write_bytes(b"nothing")
    assert (graph.Graph(path, precise=True).paint(given, style) == wanted).all()
    assert blob.stat().st_size > 1000


@pytest.mark.parametrize("size", [(7, 9), (60, 83)])
@pytest.mark.parametrize("to", [(16, 20), (90, 64), (60, 83)])
def test_scaling_is_that_of_torch(size, to):
    levels = image(*size).array.astype(np.float32)
    wanted = infer.resize(torch.from_numpy(levels).permute(2, 0, 1)[None] / 255, to)[0].permute(1, 2, 0).numpy()
    assert abs(graph.scale(levels, to) - wanted * 255).max() < 0.01


@pytest.mark.slow
def test_memory_stays_the_same(live):
    """Over thousands of pictures, of one size and of changing ones."""
    script = """
import resource, numpy as np
from styletools import modelfile, streams
from styletools.engine import graph, styles
path = modelfile.find("live"); digest = modelfile.digest(path)
loaded = graph.Graph(graph.find(path, digest))
style = graph.encode(loaded, styles.parse(["mistral"]), size=None, method_name="live", model_digest=digest)
restyler = graph.Restyler(loaded, style)
def rounds(count):
    for number in range(count):
        side = 32 if number % 100 < 50 else 16 + number % 7
        restyler(streams.Image(np.full((32, side, 3), number % 256, np.uint8)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = rounds(500)
print(rounds(2500) - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20, "MB"


def test_the_cache_keeps_what_was_used_last(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLETOOLS_CACHE", str(tmp_path))
    monkeypatch.setattr(graph, "KEPT", (3, 25))
    (tmp_path / "graphs").mkdir()
    now = time.time()
    for number, age in enumerate([9000, 8000, 10, 7000, 20, 9999]):
        path = tmp_path / "graphs" / f"{number}.blob"
        path.write_bytes(bytes(10))
        os.utime(path, (now - age, now - age))
    graph.tidy()
    assert sorted(path.stem for path in (tmp_path / "graphs").iterdir()) == ["2", "4"], "the third is too much"
    graph.tidy()
    monkeypatch.setattr(graph, "KEPT", (0, 0))
    graph.tidy()
    assert len(list((tmp_path / "graphs").iterdir())) == 2, "used in the last hour"
