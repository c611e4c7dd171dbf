"""Quality on pairs of photograph and painting, judged by VGG-19. Prints a JSON line a pair, then the means.

    python bench/quality.py pairs.tsv -m live [--alpha 1.0] [--limit 12] [--sheet sheet.png] [--noise 2]

style: per layer relu1_1 .. relu4_1 the squared distance of means and deviations to the painting's, over that of the
untouched photograph, averaged over the layers (0 perfect, 1 untouched). content: the squared distance of relu4_1 to the
photograph's, over that of the painting itself (0 untouched, 1 gone). lpips: LPIPS to the photograph, over SqueezeNet
(0 untouched, about 0.7 gone). Two control rows: the photograph itself and the painting itself. seconds: of the network
alone, the middle of all pairs. noise: how much larger the change of the result is than that of the photograph (RMS),
when Gaussian noise of so many 255ths is added to it. Pictures are scaled and cropped to 512 x 512. Paths in the table
are relative to it.
"""

import json
import time
from pathlib import Path

import click

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


def square(path, size):
    """Return the middle square of a picture, scaled to `size` pixels, as (1, 3, size, size)."""
    from styletools import streams
    from styletools.engine import infer

    image = infer.resize(infer.to_tensor(streams.open_image(path))[0], size)
    y, x = ((side - size) // 2 for side in image.shape[-2:])
    return image[..., y : y + size, x : x + size].contiguous()


def measure(output, content, style):
    """Return (style, content) losses of pictures given as the judge's features."""
    from styletools import losses

    by = [losses.mean_std_by_layer(features) for features in (output, content, style)]
    distance = losses.mean_std_distance
    ratios = [float(distance(by[0][k], by[2][k]) / distance(by[1][k], by[2][k])) for k in LAYERS]
    deep = "relu4_1"
    kept = (output[deep] - content[deep]).square().mean() / (style[deep] - content[deep]).square().mean()
    return sum(ratios) / len(ratios), float(kept)


@click.command()
@click.argument("pairs", type=click.Path(exists=True))
@click.option("-m", "--model", default="live", show_default=True)
@click.option("-O", "--option", "settings", multiple=True, help="KEY=VALUE of a method without a model file.")
@click.option("--alpha", default=1.0, show_default=True)
@click.option("--size", default=512, show_default=True)
@click.option("--limit", type=int, help="Only this many pairs, spread evenly over the table.")
@click.option("--sheet", type=click.Path(), help="Write content, style and output side by side, a row a pair.")
@click.option("--noise", type=float, help="Measure what becomes of noise of this deviation, in 255ths.")
@click.option("--device", default="auto", show_default=True)
def main(pairs, model, settings, alpha, size, limit, sheet, noise, device):
    """Score a model on the pairs of a table (content<TAB>style, one header line)."""
    import torch

    from styletools import backbones, methods, modelfile
    from styletools.cli import _models
    from styletools.engine import device as devices
    from styletools.engine import infer
    from styletools.metrics import _lpips

    chosen = devices.choose(device)
    name, path, config = _models.resolve(model, settings)
    method = modelfile.load(path, device=chosen) if path else methods.create(name, config).to(chosen)
    takes_style = methods.describe(name).applies_to == "image+style"
    judge, eye = backbones.load("vgg19", device=chosen), _lpips.Lpips(device=chosen)
    rows = [line.split("\t") for line in Path(pairs).read_text().splitlines()[1:] if line]
    if limit and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    cache, scores, controls, strips, gains, times = {}, [], [], [], [], []
    generator = torch.Generator().manual_seed(0)

    def load(name):
        if name not in cache:
            image = square(Path(pairs).parent / name, size).to(chosen)
            with torch.no_grad():
                cache[name] = image, {k: v.cpu() for k, v in judge(image, LAYERS).items()}
        return cache[name]

    for content_name, style_name in rows:
        (content, content_features), (style, style_features) = load(content_name), load(style_name)
        with torch.no_grad():
            record = method.encode_style([style], [1.0]) if takes_style else None
            began = time.perf_counter()
            output = method.apply(infer.pad(content, method.multiple), style=record, alpha=alpha)[..., :size, :size]
            seconds = time.perf_counter() - began
            features = {k: v.cpu() for k, v in judge(output, LAYERS).items()}
            if noise:
                noisy = (content + torch.randn(content.shape, generator=generator).to(chosen) * noise / 255).clamp(0, 1)
                other = method.apply(infer.pad(noisy, method.multiple), style=record, alpha=alpha)[..., :size, :size]
                after, before = ((a - b).square().mean().sqrt() for a, b in ((other, output), (noisy, content)))
                gains.append(float(after / before))
        pair = *measure(features, content_features, style_features), float(eye(output, content))
        scores.append(pair)
        times.append(seconds)
        controls.append((*measure(style_features, content_features, style_features), float(eye(style, content))))
        print(json.dumps({
            "content": content_name, "style": style_name, "style_loss": round(pair[0], 4),
            "content_loss": round(pair[1], 4), "lpips": round(pair[2], 4), "seconds": round(seconds, 3),
        } | ({"noise_gain": round(gains[-1], 2)} if noise else {})), flush=True)  # fmt: skip
        strips.append(torch.cat([content, style, output], 3).cpu())
    mean, painting = ([round(sum(column) / len(rows), 4) for column in zip(*rows)] for rows in (scores, controls))
    print(json.dumps({
        "model": model, "alpha": alpha, "pairs": len(scores), "style_loss": mean[0], "content_loss": mean[1],
        "lpips": mean[2], "seconds": round(sorted(times)[len(times) // 2], 3), "control_photograph": [1.0, 0.0, 0.0],
        "control_painting": painting,
    } | ({"noise_gain": round(sum(gains) / len(gains), 2)} if noise else {})))  # fmt: skip
    if sheet:
        from PIL import Image

        pixels = torch.cat(strips, 2)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(sheet)


if __name__ == "__main__":
    main()
