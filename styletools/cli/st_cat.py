"""st-cat: list, convert and count records."""

import json
import sys

import click

from styletools import errors
from styletools.cli import _options
from styletools.cli._command import command
from styletools.cli._loop import Target, find_sources, run
from styletools.streams import Tensors


@command("st-cat")
@_options.inputs
@_options.output
@_options.formats
@click.option("-l", "--list", "as_list", is_flag=True, help="Print a JSON line about each record instead of it.")
@click.option("-c", "--count", "as_count", is_flag=True, help="Print the number of records instead of them.")
@click.option("--quality", metavar="N", type=click.IntRange(1, 100), help="Quality of JPEG and WebP (95).")
@click.option("--rate", metavar="FPS", help="Frame rate of y4m output, 25 or 30000:1001.")
@_options.file_list
@_options.max_pixels
@_options.fail_fast
@_options.jobs
def main(inputs, output, from_format, to_format, as_list, as_count, quality, rate, files_from, null, **rest):
    """List, convert or count the records of files, folders and streams: the debugger of pipes.

    Without -l or -c the records are written in the format that --to or -o say, else in that of the input.
    """
    if as_list and as_count:
        raise errors.UsageError("-l and -c exclude each other")
    if (as_list or as_count) and (output or to_format):
        raise errors.UsageError("-l and -c write text: -o and --to do not go with them")
    counted = 0

    def describe(record):
        nonlocal counted
        counted += 1
        if as_list:
            line = json.dumps(_description(record), ensure_ascii=False) + "\n"
            # File names may be any bytes; as an escape, what is no character stays valid JSON.
            sys.stdout.buffer.write(line.encode(errors="backslashreplace"))
            sys.stdout.flush()
        elif not as_count:
            return record
        return None

    target = _NoTarget() if as_list or as_count else Target(output, to_format, quality=quality, rate=rate)
    target.check()
    sources = find_sources(inputs, files_from, null, target)
    status = run(sources, target, describe, from_format=from_format, unit="record", **rest)
    if as_count:
        print(counted)
        sys.stdout.flush()
    return status


class _NoTarget:
    """Where records go that are only looked at."""

    kind, path = "stream", "-"

    def check(self, *unused):
        """Find nothing wrong."""

    close = abandon = refuse = check


def _description(record) -> dict:
    """Return what -l prints of a record."""
    found = {"index": record.index, "name": record.name}
    if isinstance(record, Tensors):
        tensors = {key: {"shape": list(t.shape), "type": str(t.dtype)} for key, t in record.tensors.items()}
        return found | {"kind": "tensors", "meta": record.meta, "tensors": tensors}
    height, width, channels = record.array.shape
    shape = {"width": width, "height": height, "channels": channels, "bits": 8 * record.array.dtype.itemsize}
    meta = {key: len(value) if isinstance(value, bytes) else value for key, value in record.meta.items()}
    return found | {"kind": "image"} | shape | {"meta": meta}
