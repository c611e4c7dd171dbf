"""Many pictures on their way to a device and back: here to the CPU, and to one that is as disorderly as it may be."""

import contextlib
import dataclasses
import random
import warnings
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from styletools import errors, methods, modelfile, streams
from styletools.cli._loop import Target, find_sources, run
from styletools.engine import device as devices
from styletools.engine import infer, pipeline, styles
from styletools.engine.infer import Restyler
from styletools.engine.pipeline import Pipeline
from styletools.methods import Method

TOGETHER = [
    name for name in methods.names()
    if methods.describe(name).applies_to in ("image", "image+style", "image+label")
    and not methods._class(name).iterative
]  # fmt: skip
QUICK = {"culturegan": {"labels": "ink,oil", "width": 8}, "live": {"channels": 8, "widths": "8,8"}}
QUICK |= {"pix2pix": {"width": 8, "levels": 4}}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@dataclass(frozen=True)
class Config:
    pass


class Negative(Method):
    """Exact, and seen in every pixel; a style is a colour that is added. It notes how many pictures it was given."""

    multiple = 8

    def __init__(self, most=99):
        self.config, self.nets, self.most, self.counts = Config(), torch.nn.ModuleDict(), most, []

    def apply(self, image, *, style=None, alpha=1.0):
        """Return the negative, darker by the style; not a number where a picture is all white."""
        self.counts.append(len(image))
        if len(image) > self.most:
            raise torch.OutOfMemoryError("too many")
        white = (image == 1).flatten(1).all(1).view(-1, 1, 1, 1)
        result = torch.where(white, torch.nan, 1 - image)
        return result if style is None else result - style["colour"].view(1, 3, 1, 1)


class Disorderly(devices.Lanes):
    """A device whose lanes run whenever chance wills, as far as what they wait for lets them.

    Host memory is full of rubbish; recordings do again what was recorded. `heeds` False: waits for nothing.
    """

    def __init__(self, seed=0, heeds=True):
        self.queues = {lane: deque() for lane in ("up", "compute", "down")}
        self.done, self.count, self.heeds, self.recorded = {None}, 0, heeds, 0
        self.random = random.Random(seed)

    def do(self, lane, work, after=None):
        self.count += 1
        self.queues[lane].append((work, after if self.heeds else None, self.count))
        while self.random.random() < 0.3 and self._step():
            pass
        return self.count

    def _step(self):
        able = [queue for queue in self.queues.values() if queue and queue[0][1] in self.done]
        if able:
            work, _, number = self.random.choice(able).popleft()
            work()
            self.done.add(number)
        return able

    def wait(self, done):
        while done not in self.done:
            assert self._step(), "work waits for what never comes"

    def settle(self):
        while any(self.queues.values()):
            assert self._step()

    def host_bytes(self, count):
        return torch.from_numpy(np.random.default_rng(self.count).integers(0, 256, count, dtype=np.uint8))

    def weigh(self, work):
        work()
        return 1

    def free(self):
        return 1 << 40

    def record(self, work):
        self.recorded += 1
        return work


class Instantly(devices.Lanes):
    """Runs at once, as the CPU, but several pictures together: each takes a byte, of `free`."""

    def __init__(self, free=1 << 40):
        self.left = free

    def weigh(self, work):
        work()
        return 1

    def free(self):
        return self.left


def image(height, width, channels=3, seed=0, dtype=np.uint8, **meta):
    top = np.iinfo(dtype).max
    array = np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=dtype, endpoint=True)
    return streams.Image(array, f"{seed}.png", seed, meta)


def same(results, wanted):
    """Tell whether pictures are the same in every byte and in what is said of them."""
    return len(results) == len(wanted) and all(
        isinstance(a, streams.Image) and a.array.dtype == b.array.dtype and a.array.shape == b.array.shape
        and (a.array == b.array).all() and (a.name, a.index, a.meta) == (b.name, b.index, b.meta)
        for a, b in zip(results, wanted)
    )  # fmt: skip


def set_up(name, count=0):
    """Return a method of random weights, in the state in which it is applied, and a style record if it takes one."""
    torch.manual_seed(0)
    method = methods.create(name, QUICK.get(name))
    method.nets.eval()
    said = methods.describe(name)
    if said.applies_to == "image+label":
        return method, method.own_style("ink")
    painting = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return method, method.encode_style([painting], [1.0]) if said.applies_to == "image+style" else None


@pytest.fixture
def mixed():
    """Pictures of several shapes and kinds among each other."""
    shapes = [(20, 30, 3)] * 5 + [(7, 9, 1)] * 2 + [(20, 30, 4)] * 3 + [(20, 30, 3)] * 2 + [(1, 1, 2), (40, 17, 3)]
    pictures = [image(*shape, seed=number, rate="25:1") for number, shape in enumerate(shapes)]
    return [*pictures, image(9, 8, 3, 99, np.uint16), *pictures]


# ---- on the CPU ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOGETHER)
def test_on_the_cpu_every_byte_is_the_restylers(name, slim):
    method, style = set_up(name)
    pictures = [image(24, 32, 3, 0), image(24, 32, 3, 1), image(17, 19, 4, 2)]
    restyler = Restyler(method, style)
    assert same(list(Pipeline(restyler).stream(pictures)), [restyler(each) for each in pictures])


@pytest.mark.parametrize("name", TOGETHER)
def test_together_pictures_do_not_touch_each_other(name, slim):
    method, style = set_up(name)
    given = [image(24, 32, 3, number) for number in range(5)]
    made = list(Pipeline(Restyler(method, style), lanes=Instantly()).stream(given))
    for result, each in zip(made, given):
        assert np.abs(result.array.astype(int) - Restyler(method, style)(each).array).max() <= 1


LOOKS = {
    "alpha": {"alpha": 0.3}, "photograph": {"alpha": 0.0}, "luminance": {"preserve_color": "luminance"},
    "coral": {"preserve_color": "coral"}, "histogram": {"preserve_color": "histogram"}, "smaller": {"size": 11},
    "exactly": {"size": (21, 18)}, "larger": {"size": 50},
    "mask": {"mask": torch.linspace(0, 1, 48).view(6, 8)},
    "outside": {"mask": torch.linspace(0, 1, 48).view(6, 8), "outside": {"colour": torch.tensor([0.3, 0.2, 0.1])}},
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("lanes", [devices.Lanes, Disorderly])
def test_every_look_is_the_restylers(look, lanes, mixed):
    restyler = Restyler(Negative(), {"colour": torch.tensor([0.1, 0.0, 0.2])}, **LOOKS[look])
    assert same(list(Pipeline(restyler, lanes=lanes()).stream(mixed)), [restyler(each) for each in mixed])


def test_on_the_cpu_there_is_one_at_a_time(mixed):
    method = Negative()
    list(Pipeline(Restyler(method)).stream(mixed))
    assert set(method.counts) == {1}


def test_one_picture_by_a_call():
    restyler = Pipeline(Restyler(Negative()))
    assert (restyler(image(9, 8)).array == 255 - image(9, 8).array).all()
    with pytest.raises(errors.DataError, match="not a picture"):
        restyler(streams.Tensors({}))
    with pytest.raises(errors.DataError, match="pixels"):
        Pipeline(Restyler(Negative(), size=64, limits=streams.Limits(max_pixels=1000)))(image(9, 8))


def test_what_may_need_tiles_is_left_to_the_restyler(monkeypatch):
    given, restyler = [image(40, 30), image(9, 8)], Restyler(Negative(), memory=40 * 30 * infer.PLENTY - 1)
    computed = []
    monkeypatch.setattr(Pipeline, "_compute", lambda self, taken, made: computed.append(taken.shape) or made.zero_())
    results = list(Pipeline(restyler).stream(given))
    assert same(results[:1], [restyler(given[0])]) and not results[1].array.any()
    assert computed == [(1, 9, 8, 3)]


def test_only_a_gpu_has_a_pipeline():
    restyler = Restyler(Negative())
    assert pipeline.around(restyler) is restyler


# ---- on a device that does things when it likes ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_of_the_lanes_the_results_are_the_same(seed, mixed):
    restyler, lanes = Restyler(Negative(), {"colour": torch.tensor([0.1, 0.0, 0.2])}), Disorderly(seed)
    given = mixed + [image(20, 30, 3, number) for number in range(150)]
    assert same(list(Pipeline(restyler, lanes=lanes).stream(given)), [restyler(each) for each in given])
    assert lanes.recorded and not any(lanes.queues.values())


def test_without_heeding_events_the_results_are_wrong(mixed):
    """That the test above can fail."""
    restyler, wrong = Restyler(Negative()), 0
    for seed in range(10):
        results = list(Pipeline(restyler, lanes=Disorderly(seed, heeds=False)).stream(mixed))
        wrong += not same(results, [restyler(each) for each in mixed])
    assert wrong > 5


def test_a_style_may_change_while_pictures_are_under_way():
    colours = [{"colour": torch.tensor([0.1 * number, 0.0, 0.05])} for number in range(8)]
    given = [image(20, 30, 3, number) for number in range(48)]
    for seed in range(8):
        lanes = Disorderly(seed)
        changing = Pipeline(Restyler(Negative(), colours[0]), lanes=lanes)

        def pictures(changing=changing):
            for number, each in enumerate(given):
                if number % 6 == 0:
                    changing.style = colours[number // 6]
                yield each

        changing.most = lambda shape: 2  # so that a batch is of one style
        wanted = [Restyler(Negative(), colours[number // 6])(each) for number, each in enumerate(given)]
        assert same(list(changing.stream(pictures())), wanted)
        assert lanes.recorded == 1, "the recording stays"


def test_as_many_as_wait_are_worked_on_together():
    method = Negative()
    restyler = Pipeline(Restyler(method), lanes=Instantly())
    list(restyler.stream(image(20, 30, 3, number) for number in range(40)))
    assert method.counts == [1, 16, 16, 4, 2, 1], "one, until it is known what a picture takes"
    assert restyler.most((2000, 1000, 3)) == 2 and restyler.most((4000, 4000, 3)) == 1


def test_where_the_neighbours_must_make_no_difference_there_are_none():
    method, lanes = Negative(), Disorderly()
    list(Pipeline(Restyler(method), lanes=lanes, adapts=False).stream(image(20, 30, 3, number) for number in range(40)))
    assert set(method.counts) == {1} and not lanes.recorded


def test_no_picture_waits_for_one_that_has_not_come():
    """Each picture is given only once all before it have come back."""
    method, back = Negative(), []
    restyler = Pipeline(Restyler(method), lanes=Disorderly())
    for number in range(12):
        back += restyler.stream([image(20, 30, 3, number)])
        assert len(back) == number + 1
    assert set(method.counts) == {1}


def test_as_long_as_pictures_wait_two_batches_are_under_way():
    taken = []

    def pictures():
        for number in range(30):
            taken.append(number)
            yield image(20, 30, 3, number)

    ahead = [len(taken) - done for done, _ in enumerate(Pipeline(Restyler(Negative())).stream(pictures()))]
    assert max(ahead) == pipeline.AHEAD + 1 and ahead[10] == pipeline.AHEAD + 1


def test_one_that_fails_fails_alone():
    white = streams.Image(np.full((20, 30, 3), 255, np.uint8))
    given = [image(20, 30, 3, number) for number in range(20)]
    given[7] = given[16] = white
    given.insert(3, streams.Tensors({}))
    results = list(Pipeline(Restyler(Negative()), lanes=Disorderly()).stream(given))
    assert [type(each) for each in results if not isinstance(each, streams.Image)] == [errors.DataError] * 3
    assert "not a picture" in str(results[3]) and "not numbers" in str(results[8]) and results[17]
    good = [number for number in range(21) if number not in (3, 8, 17)]
    assert same([results[n] for n in good], [Restyler(Negative())(given[n]) for n in good])


def test_out_of_memory_halves_a_batch(mixed):
    method = Negative(most=2)
    restyler = Pipeline(Restyler(method), lanes=Instantly(free=64))
    given = [image(20, 30, 3, number) for number in range(33)]
    assert same(list(restyler.stream(given)), [Restyler(Negative())(each) for each in given])
    assert method.counts.count(16) == 1 and max(method.counts[-8:]) <= 4
    with pytest.raises(torch.OutOfMemoryError):
        Pipeline(Restyler(Negative(most=0)), lanes=Instantly())(given[0])


def test_through_the_loop_of_commands(tmp_path, capsys):
    """A stream with one white frame, which cannot be restyled, and pictures of a folder among which one is damaged."""
    frames = [image(20, 30, 3, number).array for number in range(40)]
    frames[11][:] = 255
    stream = tmp_path / "in.ppm"
    stream.write_bytes(b"".join(b"P6 30 20 255\n" + frame.tobytes() for frame in frames))
    restyler = Pipeline(Restyler(Negative()), lanes=Disorderly())
    assert run(find_sources([str(stream)]), Target(str(tmp_path / "out.ppm"), None), restyler, jobs=8) == 1
    assert "record 12: no picture came of it" in capsys.readouterr().err
    with open(tmp_path / "out.ppm", "rb") as file:
        made = np.stack([record.array for record in streams.read(file)])
    assert (made == 255 - np.stack(frames[:11] + frames[12:])).all()

    (tmp_path / "in").mkdir()
    for number in range(12):
        Image.fromarray(frames[number]).save(tmp_path / f"in/{number:02}.png")
    (tmp_path / "in/05.png").write_bytes(b"broken")
    target = Target(f"{tmp_path}/out/", None)
    assert run(find_sources([str(tmp_path / "in")]), target, restyler, jobs=4) == 1
    for number in set(range(12)) - {5, 11}:
        assert (streams.open_image(tmp_path / f"out/{number:02}.png").array == 255 - frames[number]).all()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "05.png" in told[0] and "11.png" in told[1]


def test_giving_up_waits_for_what_is_under_way():
    lanes = Disorderly()
    results = Pipeline(Restyler(Negative()), lanes=lanes).stream(image(20, 30, 3, n) for n in range(20))
    next(results)
    results.close()
    assert not any(lanes.queues.values())


# ---- sixteen bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOGETHER)
def test_weights_in_16_bits_are_what_autocast_makes_of_them(name, slim):
    method, style = set_up(name)
    if not method.half:
        pytest.skip("runs in float32")
    picture = image(24, 32)
    before = [each.clone() for each in method.nets.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        wanted = Restyler(method, style)(picture)
    made = Pipeline(Restyler(method, style), half=torch.bfloat16)(picture)
    assert np.abs(made.array.astype(int) - wanted.array).max() <= 1, "they lie in another order, which sums differ by"
    for now, then in zip(method.nets.parameters(), before):
        assert now.dtype == then.dtype and torch.equal(now, then)


@pytest.mark.parametrize(("dtype", "beyond"), [(torch.float16, 1e-4), (torch.bfloat16, 0.1)])
def test_16_bits_are_close_to_float32(dtype, beyond, reference):
    """Float16 is what is used, and within two levels of 255; bfloat16, as its own share shows, would not be."""
    found = Path(pipeline.__file__).parents[1] / "zoo/live.safetensors"
    method = modelfile.load(found)
    mixture = styles.parse(["starry-night"], [])
    style = styles.encode(method, mixture, size=256, method_name="live", model_digest=modelfile.digest(found))
    restyler = Restyler(method, style, size=256)
    photo = streams.open_image(reference / "content/adain_avril.jpg")
    exact, half = (each(photo).array.astype(int) for each in (restyler, Pipeline(restyler, half=dtype)))
    assert (np.abs(exact - half) > 2).mean() <= beyond
    assert np.abs(exact - half).max() <= (4 if dtype == torch.float16 else 40)


def test_what_leaves_the_range_of_16_bits_is_computed_in_float32():
    class Large(Method):
        half = True

        def __init__(self):
            self.config = Config()
            self.nets = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 3, 1, bias=False)})
            torch.nn.init.dirac_(self.nets["conv"].weight)
            self.types = []

        def apply(self, image, *, style=None, alpha=1.0):
            """Return the picture, through values up to 100,000."""
            large = self.nets["conv"](image * 1e5)
            self.types.append(large.dtype)
            return large.float() / 1e5

    method, picture = Large(), image(20, 30)
    restyler = Pipeline(Restyler(method), half=torch.float16)
    assert same([restyler(picture)], [picture])
    assert method.types == [torch.float32], "the copy in 16 bits is another"


# ---- on a GPU that is only pretended: devices and types are those of CUDA, values there are none ---------------


class Watch(TorchDispatchMode):
    """Counts operations, and those that a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.counts, self.waits = Counter(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, made)) if isinstance(each, torch.Tensor)]
        name = str(function).partition(".default")[0]
        if len({each.device.type for each in tensors}) > 1 or "local_scalar_dense" in name or "nonzero" in name:
            self.waits.append(name)
        self.counts[name.split(".")[1], tensors[-1].dtype if tensors else None] += 1
        return made


def pretend(name, monkeypatch, shape):
    """Let a pipeline compute two pictures on a pretended GPU; return what was watched."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    method, style = set_up(name)
    made = Pipeline(Restyler(method, style), half=torch.float16 if method.half else None)
    method = made._together.method
    networks = [method.nets, *(each for each in vars(method).values() if isinstance(each, torch.nn.Module))]
    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        warnings.simplefilter("ignore")

        def there(tensor):
            return mode.from_tensor(tensor.detach()).to("cuda")

        for layer in {each for network in networks for each in network.modules()}:
            for key, tensor in layer._parameters.items():
                layer._parameters[key] = tensor if tensor is None else torch.nn.Parameter(there(tensor), False)
            for key, tensor in layer._buffers.items():
                layer._buffers[key] = tensor if tensor is None else there(tensor)
        made.device = method.device = torch.device("cuda")
        record = None if style is None else {key: there(tensor) for key, tensor in style.items()}
        made._together = dataclasses.replace(made._together, style=record)
        taken = torch.zeros(2, *shape, dtype=torch.uint8, device="cuda")
        with Watch() as watch:
            made._compute(taken, torch.empty(made.result_bytes(2, shape), dtype=torch.uint8, device="cuda"))
    return watch


@pytest.mark.parametrize("name", ["live", "johnson", "microast", "cyclegan"])
def test_nothing_waits_for_a_gpu(name, slim, monkeypatch):
    watch = pretend(name, monkeypatch, (65, 95, 4))
    assert watch.waits == []
    assert watch.counts["conv2d", torch.float16] and not watch.counts["conv2d", torch.float32]


def test_normalisation_and_padding_move_16_bits_on_a_gpu(monkeypatch):
    watch = pretend("live", monkeypatch, (64, 96, 3))
    assert watch.counts["var", torch.float32] == watch.counts["rsqrt", torch.float32] == 4
    assert not watch.counts["mean", torch.float16] and watch.counts["addcmul", torch.float16] >= 4
    assert not watch.counts["reflection_pad2d", torch.float16] and not watch.counts["pad", torch.float16]


@pytest.mark.parametrize("fails", [None, "sync", "capture"])
def test_a_failed_recording_leaves_no_traces(fails, monkeypatch):
    """With functions of torch.cuda that only note what they are called for."""
    modes, done = [], []

    def set_mode(mode):
        warnings.warn("a prototype", UserWarning, stacklevel=1)
        modes.append(mode)

    class Graph:
        def replay(self):
            done.append("replay")

    @contextlib.contextmanager
    def capture(graph, stream, capture_error_mode):
        assert modes[-1] == "default" and capture_error_mode == "thread_local"
        yield
        if fails == "capture":
            raise RuntimeError("capture failed\nand more")

    def work():
        done.append(modes[-1] if modes else "")
        if fails == "sync" and modes[-1:] == ["error"]:
            raise RuntimeError("called a synchronizing CUDA operation")

    for name, fake in (
        ("set_sync_debug_mode", set_mode), ("CUDAGraph", Graph), ("graph", capture),
        ("device", contextlib.nullcontext), ("stream", contextlib.nullcontext),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    lanes = object.__new__(devices.CudaLanes)
    lanes.device, lanes._streams = torch.device("cuda"), {"compute": None}
    before = torch.backends.cudnn.benchmark
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # users would see it, once
        repeat = lanes.record(work)
    assert modes[0] == "error" and modes[-1] == "default" and torch.backends.cudnn.benchmark == before
    assert done == (["", "error"] if fails == "sync" else ["", "error", "default"]), "on trial, watched, recorded"
    assert (repeat is None) == bool(fails)


# ---- on a GPU --------------------------------------------------------------------------------------------


@CUDA
@pytest.mark.parametrize("name", TOGETHER)
def test_on_a_gpu_float32_is_close_to_the_cpu(name, slim):
    method, style = set_up(name)
    given = [image(48, 64, 3, number % 7) for number in range(40)] + [image(33, 47, 4, 1)]
    wanted = [Restyler(method, style)(each).array.astype(int) for each in given]
    made = pipeline.around(Restyler(method.to(torch.device("cuda")), style), precise=True)
    for result, right in zip(made.stream(given), wanted):
        assert isinstance(result, streams.Image), result
        assert np.abs(result.array - right).max() <= 1


@CUDA
@pytest.mark.parametrize("change", [False, True])
def test_on_a_gpu_what_is_recorded_is_what_is_computed(change):
    method, style = set_up("live")
    other = {"code": style["code"] * 0.5}
    given = [image(96, 128, 3, number) for number in range(60)]
    made = pipeline.around(Restyler(method.to(torch.device("cuda")), style))
    plain = [Restyler(method, each) for each in (style, other if change else style)]
    results = [*made.stream(given[:30])]
    if change:
        made.style = other
    results += made.stream(given[30:])
    assert made._recorded, "batches of one shape repeat, and live needs nothing that cannot be recorded"
    for number, (each, result) in enumerate(zip(given, results)):
        difference = np.abs(plain[number // 30](each).array.astype(int) - result.array)
        assert (difference > 2).mean() < 1e-3, number


@CUDA
def test_on_a_gpu_out_of_memory_is_told_of_one_picture_only():
    made = pipeline.around(Restyler(set_up("live")[0].to(torch.device("cuda")), set_up("live")[1]))
    list(made.stream(image(64, 64, 3, n) for n in range(3)))
    made._room = 1 << 60  # a batch that is far too large is tried, and halved
    taken = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.97), dtype=torch.uint8, device="cuda")
    results = list(made.stream(image(1024, 1024, 3, n) for n in range(4)))
    del taken
    assert len(results) == 4
    assert isinstance(made(image(64, 64)), streams.Image)
