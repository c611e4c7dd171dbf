"""Training as a program: images a second, over the usual step written plainly in the same run. JSON lines.

    python bench/train.py FOLDER [--method johnson] [--style IMAGE] [--steps 150] [--batch-size 4] [--crop-size 256]
        [-O KEY=VALUE ...] [--threads 2]

First the plain step, on one batch that is in memory already: the network of arXiv:1603.08155 (32, 64 and 128 channels,
five residual blocks, instance normalisation), judged by VGG-16 up to relu4_3 through a content loss and four Gram
matrices, in eager float32, as the usual example has it. VGG-16 has random weights: they take as long as trained ones.
Then `st-train METHOD` on the images below FOLDER, which it has to read and decode as well; its rate is that of its
journal after the first 50 steps. `over_plain` is rate over rate; `wait` is the seconds that the loop was blocked for
the next batch over the seconds that passed. Without --style, the first image of FOLDER is the style.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

BIN = Path(__file__).parents[1] / "bin"
SUFFIXES = (".jpg", ".jpeg", ".png")


def first_image(folder):
    """Return the first image below a folder, by name."""
    found = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"{folder}: no images there")
    return found[0]


def plain_rate(batch_size, crop_size, threads, steps):
    """Return the images a second of the step that this file describes, the fastest of `steps` of them."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from styletools.nn.vgg import VGG, VGG16

    torch.set_num_threads(threads)

    def layer(channels_in, channels_out, kernel, stride=1):
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, padding_mode="reflect")
        return [conv, nn.InstanceNorm2d(channels_out, affine=True)]

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Sequential(*layer(128, 128, 3), nn.ReLU(), *layer(128, 128, 3))

        def forward(self, x):
            return x + self.branch(x)

    network = nn.Sequential(
        *layer(3, 32, 9), nn.ReLU(), *layer(32, 64, 3, 2), nn.ReLU(), *layer(64, 128, 3, 2), nn.ReLU(),
        *(Residual() for _ in range(5)),
        nn.Upsample(scale_factor=2), *layer(128, 64, 3), nn.ReLU(),
        nn.Upsample(scale_factor=2), *layer(64, 32, 3), nn.ReLU(), layer(32, 3, 9)[0],
    )  # fmt: skip
    judge = VGG(VGG16, last="relu4_3").requires_grad_(False)
    layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")

    def gram(x):
        x = x.flatten(2)
        return x @ x.mT / x[0].numel()

    images = torch.rand(batch_size, 3, crop_size, crop_size)
    with torch.no_grad():
        targets = {name: gram(x) for name, x in judge(torch.rand_like(images), layers).items()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        painted = network(images)
        features, kept = judge(painted, layers), judge(images, layers)
        loss = F.mse_loss(features["relu2_2"], kept["relu2_2"])
        loss = loss + sum(F.mse_loss(gram(features[name]), targets[name]) for name in layers)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return batch_size / min(times)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--method", default="johnson", show_default=True, help="One that trains on content and style.")
@click.option("--style", help="The style image.")
@click.option("--steps", default=150, show_default=True, help="A multiple of 50, of at least 100.")
@click.option("--plain-steps", default=5, show_default=True, help="Steps of the plain network.")
@click.option("--batch-size", default=4, show_default=True)
@click.option("--crop-size", default=256, show_default=True)
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True, help="Once for each.")
@click.option("-O", "settings", multiple=True, help="An option of the method: KEY=VALUE.")
def main(folder, method, style, steps, plain_steps, batch_size, crop_size, threads, settings):
    """Measure and print."""
    if steps < 100 or steps % 50:
        sys.exit("--steps: a multiple of 50, of at least 100")
    for count in threads:
        plain = plain_rate(batch_size, crop_size, count, plain_steps)
        with tempfile.TemporaryDirectory() as work:
            words = ["--content", folder, "--style", style or first_image(folder), "-o", f"{work}/m.safetensors"]
            words += ["--steps", steps, "--batch-size", batch_size, "--crop-size", crop_size, "--holdout", 0]
            words += ["--sample-every", 0, "--device", "cpu", "--threads", count]
            words += [word for setting in settings for word in ("-O", setting)]
            subprocess.run([str(BIN / "st-train"), method, *map(str, words)], check=True)
            entries = [json.loads(line) for line in Path(f"{work}/m.log.jsonl").read_text().splitlines()]
        first, last, rest = entries[0], entries[-1], entries[1:]
        rate = (last["step"] - first["step"]) * batch_size / (last["seconds"] - first["seconds"])
        row = {"over_plain": round(rate / plain, 2), "method": method, "settings": list(settings), "threads": count,
               "batch_size": batch_size, "crop_size": crop_size, "images_per_second": round(rate, 2),
               "plain_images_per_second": round(plain, 2),
               "wait": round(sum(e["wait"] for e in rest) / len(rest), 4), "wait_first": first["wait"]}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
