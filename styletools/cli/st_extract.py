"""st-extract: features of pictures."""

import click

from styletools import backbones
from styletools.cli import _options
from styletools.cli._command import command
from styletools.cli._loop import Deferred, Target, find_sources, run


@command("st-extract")
@_options.inputs
@_options.output
@_options.formats
@_options.backbone
@_options.layers
@_options.size
@_options.lift
@click.option("--half", is_flag=True, help="Write 16-bit numbers: half the size.")
@_options.device
@_options.file_list
@_options.max_pixels
@_options.fail_fast
@_options.jobs
def main(
    inputs, output, from_format, to_format, backbone, layers, size, lift, half, device, files_from, null, **rest
):  # fmt: skip
    """Write the features that a perceptual network has of pictures, one record a picture.

    A record holds a tensor (channels, height, width) for each layer. Transparent parts of pictures are laid
    over white first. The output is safetensors, unless --to or -o say otherwise.
    """
    backbones.check(backbone, layers)
    target = Target(output, to_format, default="safetensors", holds="tensors")
    target.check()

    def load():
        from styletools.engine.features import Extractor

        extractor = Extractor(backbone, layers, size=size, lift=lift, device=device)
        return lambda image: extractor.features(image, half=half)

    sources = find_sources(inputs, files_from, null, target)
    return run(sources, target, Deferred(load), from_format=from_format, **rest)
