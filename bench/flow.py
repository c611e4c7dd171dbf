"""How well and how fast optical flow is estimated, ours beside scikit-image's. Prints JSON lines.

    python bench/flow.py a.png b.png flow.flo [a.png b.png flow.png ...] [--repeats 3]
    python bench/flow.py --video clip.mp4 [--pairs 5]

The first compares with ground truth: `epe` is the mean end-point error in pixels, `over3` the share of pixels that are
more than 3 pixels off; flows are .flo or the 16-bit PNG of KITTI. The second has no truth: `warp` is the warping error
of the frames themselves, their mean squared RGB difference along the flow; each method judges its own occlusion by its
flow back, and `seen` is the share of pixels that it judges by: the error is low for good flow, and for little seen.
Seconds are processor time for one flow on one thread, the least of the repeats.
"""

import itertools
import json
import time

import click
import numpy as np
import torch

from styletools import streams
from styletools.engine import features, video
from styletools.nn import flow as flows


def of_scikit_image(name, **options):
    """Return a function from scikit-image as one that takes what ours takes."""
    from skimage import registration

    def estimate(a, b):
        grey = [image[0].mul(torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).numpy() for image in (a, b)]
        rows, columns = getattr(registration, name)(*grey, **options)
        return torch.from_numpy(np.stack((columns, rows))).float()[None]

    return estimate


METHODS = {
    "styletools": flows.estimate,
    "styletools, full size": lambda a, b: flows.estimate(a, b, scale=1),
    "skimage tvl1": of_scikit_image("optical_flow_tvl1"),
    "skimage ilk": of_scikit_image("optical_flow_ilk"),
    "no motion": lambda a, b: a.new_zeros(1, 2, *a.shape[-2:]),
}


def truth(path):
    """Return the flow that a file holds: (1, 2, H, W)."""
    with open(path, "rb") as source:
        (record,) = streams.read(source, name=path)
    if isinstance(record, streams.Image):
        return flows.read_kitti(record)
    return torch.from_numpy(record.tensors["flow"]).permute(2, 0, 1)[None]


def timed(estimate, a, b, repeats=1):
    """Return the flow and how many seconds it took."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        found = estimate(a, b)
        times.append(time.process_time() - began)
    return found, min(times)


def warping(estimate, a, b):
    """Return the seconds of a flow, the warping error along it and the share of pixels that are seen."""
    forward, seconds = timed(estimate, a, b)
    seen = ~flows.occluded(forward, estimate(b, a))[0, 0]
    difference = (flows.warp(b, forward) - a)[0].square().mean(0)
    return seconds, float(difference[seen].mean()), float(seen.float().mean())


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--video", "clip", help="Measure the warping error of its frames.")
@click.option("--pairs", default=5, show_default=True, help="How many pairs of frames of a video.")
@click.option("--repeats", default=3, show_default=True)
def main(paths, clip, pairs, repeats):
    """Measure and print."""
    torch.set_num_threads(1)
    for a, b, flow in zip(paths[::3], paths[1::3], paths[2::3], strict=True):
        a, b = (features.to_pixels(streams.open_image(path)) for path in (a, b))
        wanted = truth(flow)
        for name, estimate in METHODS.items():
            found, seconds = timed(estimate, a, b, repeats)
            wrong = (found - wanted).square().sum(1).sqrt()
            wrong = wrong[~wrong.isnan()]
            print(json.dumps({
                "flow": flow.rsplit("/")[-1], "size": f"{a.shape[-1]}x{a.shape[-2]}", "method": name,
                "epe": round(float(wrong.mean()), 3), "over3": round(float((wrong > 3).float().mean()), 3),
                "seconds": round(seconds, 3),
            }), flush=True)  # fmt: skip
    if clip:
        frames = [features.to_pixels(frame) for frame in itertools.islice(video.frames(clip), pairs + 1)]
        for name, estimate in METHODS.items():
            found = [warping(estimate, a, b) for a, b in itertools.pairwise(frames)]
            seconds, error, seen = zip(*found)
            print(json.dumps({
                "video": clip.rsplit("/")[-1], "size": f"{frames[0].shape[-1]}x{frames[0].shape[-2]}", "method": name,
                "warp": float(f"{np.mean(error):.3g}"), "seen": round(float(np.mean(seen)), 3),
                "seconds": round(min(seconds), 3),
            }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
