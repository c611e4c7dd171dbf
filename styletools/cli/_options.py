"""Options that mean the same thing in every command, each defined once.

    FILE...             what to read (files, folders, -)       inputs
    -o --output         where results go                       output
    --from --to         formats in and out                     formats
    --files-from -0     a list of files to read                file_list
    --max-pixels        the largest picture accepted           max_pixels
    --max-memory        about how much memory to take         max_memory
    --fail-fast         stop at the first failure              fail_fast
    -j --jobs           threads                                jobs
    --device            where to compute                       device
    --seed              random numbers                         seed
    -b --backbone       the perceptual network                 backbone
    -O --option         KEY=VALUE of a method                  method_options
    -l --layers         layers of the perceptual network       layers
    --lift              features as VGG-19 has them            lift
    --size              pixels of the short side               size
"""

import math
import re

import click

from styletools import backbones, errors, files, streams


def _names_of_formats(context, parameter, value):
    """Check a format's name (`name` or `name:WIDTHxHEIGHT`) while the command line is read."""
    if value is not None:
        streams.kind(value)
    return value


class Count(click.IntRange):
    """A positive whole number."""

    def __init__(self):
        super().__init__(min=1)


# click would end everything over one file that may not be read, and as a usage error: `readable=False`.
PATH = click.Path(allow_dash=True, readable=False)

inputs = click.argument("inputs", metavar="[FILE|DIR|-]...", nargs=-1, type=PATH)

output = click.option(
    "-o", "--output", metavar="FILE|DIR/|PATTERN|-",
    help="Where results go: a file, a folder (ending in / or existing), a pattern (frame-%06d.png), or - (default).",
)  # fmt: skip

from_format = click.option(
    "--from", "from_format", metavar="FORMAT", callback=_names_of_formats,
    help="Format of the input, instead of what its first bytes say; rgb24:WIDTHxHEIGHT for raw video.",
)  # fmt: skip

to_format = click.option(
    "--to", "to_format", metavar="FORMAT", callback=_names_of_formats,
    help="Format of the output, instead of what -o or the input say.",
)  # fmt: skip


def formats(function):
    """Add --from and --to."""
    return from_format(to_format(function))


def file_list(function):
    """Add --files-from and -0."""
    null = click.option("-0", "--null", is_flag=True, help="Names in --files-from end in NUL (find -print0).")
    named = click.option(
        "--files-from", metavar="LIST", type=PATH,
        help="Read names of inputs from LIST, one a line; - is standard input.",
    )  # fmt: skip
    return named(null(function))


max_pixels = click.option(
    "--max-pixels", metavar="N", type=Count(), default=536_870_912, show_default=True,
    help="Refuse pictures that claim more pixels than this.",
)  # fmt: skip


class _Bytes(click.ParamType):
    """A number of bytes: 500M, 2G, 1.5g."""

    name = "bytes"

    def convert(self, value, parameter, context):
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", value, re.IGNORECASE)
        size = int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if found else 0
        if not size:
            raise errors.UsageError(f"{parameter.opts[0]} {value}: bytes expected, as 500M or 2G")
        return size


max_memory = click.option(
    "--max-memory", metavar="SIZE", type=_Bytes(), default=0, show_default="half of what is free",
    help="Take about this much memory (500M, 2G): larger pictures are worked on in tiles, with the same result.",
)  # fmt: skip

fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first record that fails.")

jobs = click.option("-j", "--jobs", metavar="N", type=Count(), default=2, show_default=True,
                    help="Threads that read and write beside the one that computes.")  # fmt: skip



def _check_device(context, parameter, value):
    """Refuse what can be no device; whether it is there is found out later, with torch."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise errors.UsageError(f"unknown device {value!r}: auto, cpu, cuda, cuda:N or mps")
    return value


device = click.option(
    "--device", metavar="NAME", default="auto", callback=_check_device, envvar="STYLETOOLS_DEVICE", show_envvar=True,
    show_default=True, help="auto, cpu, cuda, cuda:N or mps.",
)  # fmt: skip

seed = click.option("--seed", metavar="N", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
                    help="Seed of all random numbers.")  # fmt: skip

backbone = click.option("-b", "--backbone", metavar="NAME", type=click.Choice(backbones.names()),
                        default=backbones.DEFAULT, show_default=True, help="Perceptual network.")  # fmt: skip

method_options = click.option("-O", "--option", "settings", metavar="KEY=VALUE", multiple=True,
                              help="Set an option of the method; may be repeated.")  # fmt: skip



def _split_layers(context, parameter, value):
    """Return the names between commas, each once."""
    return tuple(dict.fromkeys(filter(None, (name.strip() for name in (value or "").split(",")))))


layers = click.option(
    "-l", "--layers", metavar="LAYER,...", callback=_split_layers,
    help="Layers to read (relu1_1,relu2_1,relu3_1,relu4_1,relu5_1, as far as the weights go).",
)  # fmt: skip

lift = click.option("--lift", is_flag=True,
                    help="Map the features of slim into the space of VGG-19, for which it stands in.")  # fmt: skip

size = click.option("--size", metavar="N", type=Count(),
                    help="Scale pictures so that their short side has N pixels.")  # fmt: skip


def weighted(text: str) -> tuple[str, float]:
    """Split NAME:WEIGHT as `files.split_weight` does. Raises UsageError for a weight that is not more than 0."""
    name, weight = files.split_weight(text)
    if not 0 < weight < math.inf:
        raise errors.UsageError(f"{text}: a weight must be more than 0")
    return name, weight
