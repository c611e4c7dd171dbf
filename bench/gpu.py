"""Frames a second of `live` on a GPU, beside what its memory allows and beside other networks. Prints JSON lines.

    python bench/gpu.py [--device cuda] [--sizes 512x512,1920x1080,3840x2160] [--microast FOLDER]

The floor is the time in which the card, as it copies its own memory in this run, moves what the network must move: what
each convolution takes and makes, once, in 16 bits, and for each normalisation three passes more (read for the
statistics, read, written). `of_floor` is the floor over the time measured; `of_bare_floor` leaves out the
normalisations. Where the activations of a picture fit into the card's cache, as at 512 x 512, more than 1 is possible.

`alone` is the network on bytes that lie on the device, of one picture and of as many as are worked on together. `whole`
is the way of a stream: from frames on the host to frames on the host. The other networks compute eagerly on a picture
that lies on the device: in float32 as published ("plain", tf32 as torch allows by default), and in float16, channels
last. MicroAST needs its published files; the network of fast_neural_style has random weights, which take as long.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--sizes", default="512x512,1920x1080,3840x2160", show_default=True)
@click.option("--model", default=str(ROOT / "styletools/zoo/live.safetensors"), help="A model of live.")
@click.option("--microast", type=click.Path(exists=True), help="The folder of its published files.")
@click.option("--seconds", default=1.0, show_default=True, help="For which each thing is repeated, five times.")
@click.option("--compile", "compiled", is_flag=True, help="Also time the network as torch.compile makes it.")
def main(device, sizes, model, microast, seconds, compiled):
    """Measure and print."""
    import torch

    from styletools import methods, modelfile
    from styletools.engine import device as devices
    from styletools.engine import infer, pipeline

    chosen = devices.choose(device)
    on_gpu = chosen.type == "cuda"
    half = torch.float16 if on_gpu else None
    name = torch.cuda.get_device_name(chosen) if on_gpu else "cpu"
    bandwidth = copied_a_second(torch, chosen)
    show("copy within the device", gb_per_second=bandwidth / 1e9, device=name, torch=torch.__version__)

    torch.manual_seed(0)
    live = modelfile.load(model, device=chosen)
    painting = torch.rand(1, 3, 256, 256).to(chosen)
    peers = {"fast_neural_style": methods.create("johnson", {"widths": "32,64,128"}).to(chosen)}
    if microast:
        peers["microast"] = modelfile.load(microast, device=chosen)
    with torch.inference_mode():
        style = live.encode_style([painting], [1.0])
        codes = {key: peer.encode_style([painting], [1.0]) for key, peer in peers.items() if key == "microast"}
    for size in sizes.split(","):
        width, height = map(int, size.split("x"))
        shape = (height, width, 3)
        moved, bare = traffic(torch, live, style, chosen, height, width)
        floor, bare_floor = moved / bandwidth, bare / bandwidth
        show("floor", size=size, ms=1e3 * floor, bare_ms=1e3 * bare_floor)

        def peer_time(key, kind, height=height, width=width):
            peer = peers[key], codes.get(key)
            return time_of_peer(torch, pipeline, devices, *peer, chosen, kind, height, width, seconds)

        times = {f"{key}, {kind}": peer_time(key, kind) for key in peers for kind in ("plain", "float16")[: 1 + on_gpu]}
        for key, took in times.items():
            show(key, size=size, frames_per_second=1 / took, ms=1e3 * took)

        def told(what, took, size=size, floor=floor, bare_floor=bare_floor, times=times, **more):
            show(
                f"live, {what}", size=size, of_floor=floor / took, of_bare_floor=bare_floor / took,
                over={key: round(other / took, 2) for key, other in times.items()},
                frames_per_second=1 / took, ms=1e3 * took, **more,
            )  # fmt: skip

        restyler = pipeline.Pipeline(infer.Restyler(live, style), half=half)
        frames = synthetic(shape, 8)
        for result in restyler.stream(frames * 2):  # so that it is known how many fit
            if isinstance(result, Exception):
                raise result
        for count in sorted({1, restyler.most(shape)}):
            told("alone", alone(torch, restyler, count, shape, seconds, pipeline.REPEATED) / count, together=count)
        told("whole", whole(restyler, frames, seconds), together=restyler.most(shape))
        told("whole, each frame awaited", whole(restyler, frames, seconds, awaited=True))
        if compiled:
            told("alone, compiled", time_compiled(torch, pipeline, devices, live, style, half, chosen, shape, seconds))


def show(figure, **values):
    """Print one line."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"figure": figure} | rounded), flush=True)


def synthetic(shape, count):
    """Return frames as a reader would: smooth, noisy, each another."""
    import numpy as np

    from styletools import streams

    random = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    frames = []
    for number in range(count):
        waves = np.stack([np.sin((x + 9 * number) / 50 + i) + np.cos(y / (40 + i)) for i in range(3)], 2) * 60 + 128
        noisy = waves + random.normal(0, 4, shape)
        frames.append(streams.Image(noisy.clip(0, 255).astype(np.uint8), str(number), number))
    return frames


def timed(work, settle, seconds):
    """Return how long work() takes when it is asked for again and again: the middle of five times."""
    for _ in range(3):
        work()
    settle()
    began = time.perf_counter()
    work()
    settle()
    repeats = max(1, int(seconds / 5 / max(time.perf_counter() - began, 1e-6)))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        settle()
        times.append((time.perf_counter() - began) / repeats)
    return statistics.median(times)


def settling(torch, device):
    """Return what waits for the device."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)


def copied_a_second(torch, device):
    """Return the bytes that are read and written in a second when memory is copied within the device."""
    count = (1 << 30) if device.type == "cuda" else (1 << 26)
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / timed(lambda: target.copy_(source), settling(torch, device), 1.0)


def traffic(torch, method, style, device, height, width):
    """Return how many bytes the network must move for a picture, and without its normalisations."""
    from styletools.nn import norm

    convolutions, normalized, last = [], [], [0]

    def convolved(module, given, made):
        convolutions.append(given[0].numel() + made.numel() + module.weight.numel())
        last[0] = made.numel()

    def normalize(mean, variance):
        normalized.append(last[0])  # what is normalised is what was convolved just before
        return mean, variance

    layers = [layer for layer in method.nets.modules() if isinstance(layer, torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(convolved) for layer in layers]
    picture = torch.rand(1, 3, height // 4 * 4, width // 4 * 4, device=device)
    with torch.inference_mode(), norm.replaced(normalize):
        method.apply(picture, style=style)
    for hook in hooks:
        hook.remove()
    pictures = 2 * 3 * height * width  # bytes in, bytes out
    bare = 2 * sum(convolutions) + pictures
    return bare + 2 * 3 * sum(normalized), bare


def time_of_peer(torch, pipeline, devices, method, style, device, kind, height, width, seconds):
    """Return the seconds that another network takes for a picture."""
    half = torch.float16 if kind == "float16" else None
    torch.backends.cudnn.allow_tf32 = True
    picture = torch.rand(1, 3, height // 4 * 4, width // 4 * 4, device=device)
    if half:
        method = pipeline.prepared(method, half)
        picture = picture.contiguous(memory_format=torch.channels_last)

    def work():
        with torch.inference_mode(), devices.autocast(device, half is not None, half):
            method.apply(picture, style=style)

    try:
        return timed(work, settling(torch, device), seconds)
    finally:
        torch.backends.cudnn.allow_tf32 = False


def alone(torch, restyler, count, shape, seconds, repeated):
    """Return the seconds for `count` pictures that lie on the device."""
    taken = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, device=restyler.device)
    made = torch.empty(restyler.result_bytes(count, shape), dtype=torch.uint8, device=restyler.device)
    for _ in range(repeated):
        compute = restyler.program(count, shape)
    return timed(lambda: restyler.lanes.do("compute", lambda: compute(taken, made)), restyler.lanes.settle, seconds)


def whole(restyler, frames, seconds, awaited=False):
    """Return the seconds a frame takes from the host to the host, all others waiting or each awaited."""

    def work():
        for batch in [[frame] for frame in frames] if awaited else [frames * 8]:
            for result in restyler.stream(batch):
                if isinstance(result, Exception):
                    raise result

    return timed(work, restyler.lanes.settle, seconds) / (len(frames) if awaited else 8 * len(frames))


def time_compiled(torch, pipeline, devices, method, style, half, device, shape, seconds):
    """Return the seconds for a picture on the device, by what torch.compile makes of the method."""
    method = pipeline.prepared(method, half)
    picture = torch.rand(1, 3, shape[0] // 4 * 4, shape[1] // 4 * 4, device=device)
    picture = picture.contiguous(memory_format=torch.channels_last)
    apply = torch.compile(method.apply, dynamic=False)

    def work():
        with torch.inference_mode(), devices.autocast(device, half is not None, half):
            apply(picture, style=style)

    return timed(work, settling(torch, device), seconds)


if __name__ == "__main__":
    main()
