"""st-sample: make pictures from noise."""

import math

import click

from styletools import errors, log, methods, streams
from styletools.cli import _models, _options
from styletools.cli._command import command
from styletools.cli._loop import Source, Target


@command("st-sample")
@click.option("-m", "--model", metavar="MODEL", required=True,
              help="A model file of a method that makes pictures from noise.")  # fmt: skip
@click.option("-n", "--number", metavar="N", type=_options.Count(), default=16, show_default=True,
              help="How many pictures.")  # fmt: skip
@_options.output
@_options.to_format
@_options.seed
@click.option("--sheet", is_flag=True, help="One picture of them all, side by side in rows.")
@click.option("--interpolate", is_flag=True,
              help="The pictures lead from one to the next, round and back to the first.")  # fmt: skip
@click.option("--points", metavar="K", type=click.IntRange(2), default=4, show_default=True,
              help="With --interpolate: how many random pictures the way leads through.")  # fmt: skip
@click.option("--truncation", metavar="T", type=click.FloatRange(0, min_open=True),
              help="Leave out noise beyond T and -T (try 0.5 to 2): less varied, more typical pictures.")  # fmt: skip
@click.option("--batch", metavar="N", type=click.IntRange(1, 1024), default=16, show_default=True,
              help="Pictures made at once.")  # fmt: skip
@click.option("--quality", metavar="N", type=click.IntRange(1, 100), help="Quality of JPEG and WebP (95).")
@_options.device
def main(model, number, output, to_format, seed, sheet, interpolate, points, truncation, batch, quality, device):
    """Make pictures from noise, with a model that was trained to: into a folder, as one sheet, or as a stream.

    st-sample -m faces.safetensors -n 64 --seed 1 -o faces/

    A picture depends on the model, the seed and its number, not on how many there are.
    """
    if truncation != truncation:
        raise errors.UsageError("--truncation nan: a number above 0 expected")
    name, path, _ = _models.resolve(model)
    described = methods.describe(name)
    if described.applies_to != "noise":
        raise errors.UsageError(f"{name} makes no pictures from noise: it applies to {described.applies_to}")
    target = Target(output, to_format, holds="image", quality=quality)
    target.check()
    if target.kind == "stream" and target.path != "-" and number > 1 and not sheet:
        chosen = target.format_for(target.path, None)
        if chosen in ("png", "jpeg") or not streams.can_stream(chosen):
            raise errors.UsageError(f"{number} pictures for one file, {target.path}: --sheet, or {target.path}/")

    import torch

    from styletools import modelfile
    from styletools.engine import device as devices
    from styletools.engine import sampling

    chosen_device = devices.choose(device)
    made = modelfile.load(path, device=chosen_device)
    cut = math.inf if truncation is None else truncation
    count = points if interpolate else number
    latents = (sampling.latent(seed, index, made.config.z_dim, cut) for index in range(count))
    if interpolate:
        latents = sampling.walk(torch.stack(list(latents)), number)
    pictures = _counted(sampling.generate(made, latents, batch, chosen_device), number)
    if sheet:
        target.write_one(sampling.to_image(sampling.sheet(pictures), f"seed{seed}"))
        return
    try:
        for index, picture in enumerate(pictures):
            file = f"seed{seed}-{index + 1:06}.png"
            record = sampling.to_image(picture, file, index)
            if target.kind == "stream":
                target.write_stream(record, file, None)
            else:
                target.write_file(record, target.claim(Source(file), index * (target.kind == "pattern")), None)
    except BaseException:
        target.abandon()
        raise
    target.close()


def _counted(pictures, total):
    """Yield pictures, and tell how many there were."""
    progress = log.Progress(total, "image")
    try:
        for number, picture in enumerate(pictures, 1):
            yield picture
            progress.update(number)
    finally:
        progress.close()
