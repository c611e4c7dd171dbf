"""How steady a restyled film is, how true to its style and how sharp, over frame by frame. Prints JSON lines.

    python bench/steady.py clip.mp4 [folder/ ...] -s style.jpg [-s ...] [--strength 0.6 ...] [--start 0] [--frames 20]
    python bench/steady.py --pair a.png b.png flow.flo -s style.jpg

A line for each clip, style and strength. `warp` (the warping error), `style` and `sharpness` are the means of the
metrics of these names over those of the same frames restyled one by one; `milliseconds` is what a frame takes more, of
processor time on one thread, and `cost` that over the time of the network; `from` is the frame-by-frame warping error
itself, and `content` that of the photographs. Clips are videos or folders of pictures. A pair is judged by its true
flow; of a clip the flow is estimated, by the same method that steadies it, though from larger pictures.
"""

import itertools
import json
import os
import time

import click


def frames_of(path, start, count, size):
    """Return frames of a video or a folder, (1, 3, H, W)."""
    from styletools import streams
    from styletools.engine import infer, video

    if os.path.isdir(path):
        found = (streams.open_image(entry.path) for entry in sorted(os.scandir(path), key=lambda entry: entry.name))
    else:
        found = video.frames(path)
    return [infer.resize(infer.to_tensor(frame)[0], size) for frame in itertools.islice(found, start, start + count)]


def restyled(restyle, frames):
    """Return frames restyled in their order, and the seconds that one took, the first one aside."""
    results, times = [], []
    for frame in frames:
        began = time.process_time()
        results.append(restyle(frame).clone())
        times.append(time.process_time() - began)
    return results, sum(times[1:]) / max(len(times) - 1, 1)


def judged(results, looks, style):
    """Return the mean of each score over a film."""
    from styletools import metrics
    from styletools.metrics._look import Look

    totals = {}
    for name in ("warp", "style", "sharpness"):
        metric = metrics.create(metrics.parse(name)[0])
        scores = []
        for result, look in zip(results, looks, strict=True):
            scores.append(metric.pair(Look(result), look, style))
            look.forget()
        for key in ("", "content"):
            values = [score[key] for score in scores if key in score]
            if values:
                totals[f"{name}.{key}".rstrip(".")] = sum(values) / len(values)
    return totals


@click.command()
@click.argument("clips", nargs=-1)
@click.option("--pair", "pairs", nargs=3, multiple=True, help="Two pictures and the flow between them.")
@click.option("-s", "--style", "names", multiple=True, required=True, help="A picture.")
@click.option("--strength", "strengths", type=float, multiple=True, help="Default: the command's.")
@click.option("-m", "--model", default="live", show_default=True)
@click.option("--start", default=0, show_default=True)
@click.option("--frames", "count", default=20, show_default=True)
@click.option("--size", default=360, show_default=True, help="Short side of larger frames.")
def main(clips, pairs, names, strengths, model, start, count, size):
    """Measure and print."""
    import flow as flow_bench
    import torch

    from styletools import methods, modelfile, streams
    from styletools.cli import _models
    from styletools.engine import infer, styles
    from styletools.engine.steady import DEFAULT_STRENGTH, Steady
    from styletools.metrics._look import Look

    torch.set_num_threads(1)
    name, path, config = _models.resolve(model, ())
    method = modelfile.load(path) if path else methods.create(name, config)
    digest = modelfile.digest(path) if path else ""
    films = {}
    for clip in clips:
        frames = frames_of(clip, start, count, None)
        frames = frames if min(frames[0].shape[-2:]) <= size else [infer.resize(frame, size) for frame in frames]
        films[clip] = [Look(frame) for frame in frames]
    for first, second, flow in pairs:
        a, b = (infer.to_tensor(streams.open_image(path))[0] for path in (first, second))
        films[flow] = [Look(a), Look(b, flow=flow_bench.truth(flow))]
    for clip, looks in films.items():
        frames = [look.image for look in looks]
        for each in names:
            chosen = styles.parse([each])
            restyler = infer.Restyler(method, styles.encode(method, chosen, method_name=name, model_digest=digest))
            painting = Look(styles.load_image(each))
            plain, network = restyled(Steady(restyler, 0), frames)
            before = judged(plain, looks, painting)
            for strength in strengths or [DEFAULT_STRENGTH]:
                results, seconds = restyled(Steady(restyler, strength), frames)
                after = judged(results, looks, painting)
                line = {"clip": os.path.basename(clip.rstrip("/")), "frames": len(frames), "strength": strength}
                line["style_image"] = os.path.basename(each)
                line |= {key: round(after[key] / before[key], 3) for key in ("warp", "style", "sharpness")}
                line["milliseconds"] = round(1e3 * (seconds - network), 1)
                line["cost"] = round((seconds - network) / network, 2)
                line |= {"from": float(f"{before['warp']:.3g}"), "content": float(f"{before['warp.content']:.3g}")}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
