"""How soon `gatys` is where plain optimisation on VGG-19 ends. Prints a JSON line a pair, ratios first, then the means.

    python bench/gatys.py pairs.tsv [--limit 3] [--size 512] [-O steps=100 ...] [--keep FOLDER]

Plain: the picture, from the photograph on, by torch's L-BFGS on VGG-19 in float32 at full size; Gram matrices of
relu1_1 .. relu4_1, a million times their squared error beside that of relu4_1's features, 300 evaluations, as tutorials
do it. Such runs may explode: then the picture of the lowest loss counts, and still the time of all of them. Ours:
`gatys` with the settings given. Both are judged along the way, off the clock, by the metrics style and content of
st-eval (by VGG-19). `reach` is the processor time until ours has both losses at or below those that plain ends with,
over plain's whole time (null: it never has); `whole` is our whole time over plain's. LPIPS (to the photograph) and
sharpness (over the photograph's) are controls: pictures that are right by the losses alone show there. The clock
includes loading the networks. With --keep pictures and trajectories stay in a folder, and plain runs found there, of
the same size and number of steps, are not done again.
"""

import json
import statistics
import time
from pathlib import Path

import click

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu4_1"
METRICS = "style:vgg19,content:vgg19,lpips,sharpness"


class Clock:
    """Processor and wall time, which stands still while somebody looks."""

    def __init__(self):
        self.spent, self.began = [0.0, 0.0], self._now()

    def _now(self):
        return time.process_time(), time.perf_counter()

    def stop(self):
        self.spent = [spent + now - began for spent, now, began in zip(self.spent, self._now(), self.began)]
        return self.spent

    def go_on(self):
        self.began = self._now()


class Watch:
    """Judges a picture now and then, off the clock; `rows`: step, processor time, wall time, style, content."""

    def __init__(self, content, style, every):
        from styletools import metrics

        self.content, self.style, self.every, self.clock = content, style, every, Clock()
        self.judges = [metrics.create(name) for name in metrics.parse("style:vgg19,content:vgg19")]
        self.rows, self.seen = [], 0

    def __call__(self, picture, last=False):
        import torch

        from styletools.metrics import _look

        spent = self.clock.stop()
        self.seen += not last
        if last or self.seen % self.every == 0:
            with torch.no_grad():
                look = _look.Look(_look.resize(picture.detach().clamp(0, 1), self.content.image.shape[-2:]))
                losses = [float(judge.pair(look, self.content, self.style)[""]) for judge in self.judges]
            self.rows.append([self.seen, *(round(x, 2) for x in spent), *(round(x, 5) for x in losses)])
        self.clock.go_on()


def plain(content, style, watch, steps, style_weight):
    """Return what the usual example makes: L-BFGS on the pixels from the photograph on."""
    import torch
    from torch.nn import functional as F

    from styletools import backbones

    def gram(x):
        flat = x[0].flatten(1)
        return flat @ flat.T / flat.numel()

    network = backbones.load("vgg19")
    with torch.no_grad():
        layout = network(content, [CONTENT_LAYER])[CONTENT_LAYER]
        wanted = {layer: gram(x) for layer, x in network(style, STYLE_LAYERS).items()}
    picture = content.contiguous().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([picture], max_iter=20)
    done, best, lowest = 0, content, float("inf")

    def evaluate():
        nonlocal done, best, lowest
        with torch.no_grad():
            picture.clamp_(0, 1)
        if done < steps:
            watch(picture)
        done += 1
        optimizer.zero_grad()
        found = network(picture, {*STYLE_LAYERS, CONTENT_LAYER})
        loss = F.mse_loss(found[CONTENT_LAYER], layout)
        for layer, target in wanted.items():
            loss = loss + style_weight * F.mse_loss(gram(found[layer]), target)
        loss.backward()
        if done <= steps and loss.item() < lowest:
            best, lowest = picture.detach().clone(), loss.item()
        return loss

    while done < steps:
        optimizer.step(evaluate)
    return best


def ours(content, style, watch, settings):
    """Return what gatys makes."""
    import torch

    from styletools import methods

    method = methods.create("gatys", methods.parse_options("gatys", settings))
    with torch.no_grad():
        record = method.encode_style([style], [1.0])
        features = method._features

        def seen(picture, *space):
            if torch.is_grad_enabled():
                watch(picture)
            return features(picture, *space)

        method._features = seen
        return method.apply(content, style=record)


def reached(rows, goal):
    """Return the processor time until both losses are at the goal's; None: never."""
    return next((row[1] for row in rows if row[3] <= goal[3] and row[4] <= goal[4]), None)


@click.command()
@click.argument("pairs", type=click.Path(exists=True))
@click.option("-O", "--option", "settings", multiple=True, help="KEY=VALUE of gatys.")
@click.option("--size", default=512, show_default=True)
@click.option("--limit", type=int, help="Only this many pairs, spread evenly over the table.")
@click.option("--steps", default=300, show_default=True, help="Evaluations of the plain run.")
@click.option("--style-weight", default=1e6, show_default=True, help="Of the plain run.")
@click.option("--every", default=10, show_default=True, help="Judge after so many evaluations of the plain run.")
@click.option("--closer", default=5, show_default=True, help="The same of ours.")
@click.option("--keep", type=click.Path(file_okay=False), help="Where pictures and trajectories stay.")
@click.option("--threads", default=1, show_default=True)
@click.option("--plain-only", is_flag=True, help="Do the plain runs alone.")
def main(pairs, settings, size, limit, steps, style_weight, every, closer, keep, threads, plain_only):
    """Run both on the pairs of a table (content<TAB>style, one header line)."""
    import torch
    from PIL import Image

    from styletools import metrics
    from styletools.engine import evaluate, infer
    from styletools.metrics._look import Look

    torch.set_num_threads(threads)
    rows = [line.split("\t") for line in Path(pairs).read_text().splitlines()[1:] if line]
    if limit and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    looks = evaluate.Looks(size=size, square=True)
    evaluation = evaluate.Evaluation(metrics.parse(METRICS), controls=False)
    folder = Path(keep) if keep else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    def score(picture, content, style):
        return {name: round(value, 4) for name, value in evaluation.add(Look(picture), content, style).items()}

    def store(name, picture, result):
        if folder:
            Image.fromarray(infer.to_levels(picture[0]).numpy()).save(folder / f"{name}.png")
            (folder / f"{name}.json").write_text(json.dumps(result))

    lines = []
    manner = f"plain{steps}-{style_weight:g}"
    for names in rows:
        content, style = (looks.read(str(Path(pairs).parent / name), keep=True) for name in names)
        stem = "-".join(Path(name).stem for name in names) + f"-{size}"
        known = folder / f"{stem}-{manner}.json" if folder else None
        if known and known.exists():
            theirs = json.loads(known.read_text())
        else:
            watch = Watch(content, style, every)
            picture = plain(content.image, style.image, watch, steps, style_weight)
            watch(picture, last=True)
            theirs = {"rows": watch.rows} | score(picture, content, style)
            store(f"{stem}-{manner}", picture, theirs)
        if plain_only:
            continue
        watch = Watch(content, style, closer)
        picture = ours(content.image, style.image, watch, settings)
        watch(picture, last=True)
        mine = {"rows": watch.rows} | score(picture, content, style)
        store(f"{stem}-ours", picture, mine)
        goal, end = theirs["rows"][-1], mine["rows"][-1]
        when = reached(mine["rows"], goal)
        line = {
            "reach": None if when is None else round(when / goal[1], 4),
            "whole": round(end[1] / goal[1], 4),
            "content": names[0], "style": names[1], "size": size,
            "ours": {"processor": end[1], "wall": end[2]} | {k: v for k, v in mine.items() if k != "rows"},
            "plain": {"processor": goal[1], "wall": goal[2]} | {k: v for k, v in theirs.items() if k != "rows"},
        }  # fmt: skip
        lines.append(line)
        print(json.dumps(line), flush=True)
    if lines:
        times = [line["reach"] for line in lines]
        print(json.dumps({
            "reach": None if None in times else round(statistics.mean(times), 4),
            "reached": f"{sum(t is not None for t in times)} of {len(times)}",
            "whole": round(statistics.mean(line["whole"] for line in lines), 4),
            "settings": list(settings), "threads": threads,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
