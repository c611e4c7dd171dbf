"""Quality of a model on pairs of photograph and painting, judged by VGG-19. Prints a JSON line a pair, then the means.

    python bench/quality.py pairs.tsv -m live [--alpha 1.0] [--limit 12] [--sheet sheet.png] [--noise 2] [--refine DIR]

It does what `st-eval compare` does not: `alpha`, a sheet of the pictures, what becomes of noise, and style records that
are fitted to photographs, those in DIR (`st-gram --refine`). Scores are the metrics style and content (by VGG-19) and
lpips of st-eval. seconds: of the network alone, the middle of all pairs.
noise_gain: how much larger the change of the result is than that of the photograph (RMS), when Gaussian noise of so
many 255ths is added to it. Pictures are scaled and cropped to 512 x 512, and not rounded. Paths in the table are
relative to it.
"""

import json
import statistics
import time
from pathlib import Path

import click

METRICS = "style:vgg19,content:vgg19,lpips"


@click.command()
@click.argument("pairs", type=click.Path(exists=True))
@click.option("-m", "--model", default="live", show_default=True)
@click.option("-O", "--option", "settings", multiple=True, help="KEY=VALUE of a method without a model file.")
@click.option("--alpha", default=1.0, show_default=True)
@click.option("--size", default=512, show_default=True)
@click.option("--limit", type=int, help="Only this many pairs, spread evenly over the table.")
@click.option("--sheet", type=click.Path(), help="Write content, style and output side by side, a row a pair.")
@click.option("--noise", type=float, help="Measure what becomes of noise of this deviation, in 255ths.")
@click.option("--refine", metavar="DIR", help="Fit each style record to the photographs in this folder.")
@click.option("--device", default="auto", show_default=True)
def main(pairs, model, settings, alpha, size, limit, sheet, noise, refine, device):
    """Score a model on the pairs of a table (content<TAB>style, one header line)."""
    import torch

    from styletools import methods, metrics, modelfile
    from styletools.cli import _models
    from styletools.engine import device as devices
    from styletools.engine import evaluate, infer, styles
    from styletools.metrics._look import Look

    chosen = devices.choose(device)
    name, path, config = _models.resolve(model, settings)
    method = modelfile.load(path, device=chosen) if path else methods.create(name, config).to(chosen)
    takes_style = methods.describe(name).applies_to == "image+style"
    looks = evaluate.Looks(size=size, square=True, device=chosen)
    evaluation = evaluate.Evaluation(metrics.parse(METRICS), device=chosen)
    rows = [line.split("\t") for line in Path(pairs).read_text().splitlines()[1:] if line]
    if limit and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    strips, gains, times = [], [], []
    generator = torch.Generator().manual_seed(0)
    photographs = [each.to(chosen) for each in styles.load_photographs(refine)] if refine else []
    records = {}

    def encoded(name, image):
        if name not in records:
            records[name] = styles.mix(method, [(image, 1.0)], [], photographs)
        return records[name]

    def restyled(image, record):
        with torch.no_grad():
            return method.apply(infer.pad(image, method.multiple), style=record, alpha=alpha)[..., :size, :size]

    for names in rows:
        content, style = (looks.read(str(Path(pairs).parent / name), keep=True) for name in names)
        record = encoded(names[1], style.image) if takes_style else None
        began = time.perf_counter()
        output = restyled(content.image, record)
        times.append(time.perf_counter() - began)
        scores = evaluation.add(Look(output), content, style)
        line = {"content": names[0], "style": names[1], "seconds": round(times[-1], 3)} | scores
        if noise:
            random = torch.randn(content.image.shape, generator=generator).to(chosen)
            noisy = (content.image + random * noise / 255).clamp(0, 1)
            after, before = restyled(noisy, record) - output, noisy - content.image
            gains.append(float((after.square().mean() / before.square().mean()).sqrt()))
            line["noise_gain"] = round(gains[-1], 3)
        print(json.dumps(line), flush=True)
        strips.append(torch.cat([content.image, style.image, output], 3).cpu())
    summary = evaluation.summary()
    summary |= {"model": model, "alpha": alpha, "seconds": round(statistics.median(times), 3)}
    print(json.dumps(summary | ({"noise_gain": round(statistics.mean(gains), 3)} if noise else {})))
    if sheet:
        from PIL import Image

        Image.fromarray(infer.to_levels(torch.cat(strips, 2)[0]).numpy()).save(sheet)


if __name__ == "__main__":
    main()
