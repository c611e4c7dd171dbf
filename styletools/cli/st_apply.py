"""st-apply: restyle pictures."""

import os
import sys

import click

from styletools import errors, log, streams
from styletools.cli import _options, _restyling
from styletools.cli._command import command
from styletools.cli._loop import STDIN, Deferred, Target, find_sources, run
from styletools.manifest import Manifest

ENGINES = ("auto", "torch", "graph")

@command("st-apply")
@_options.inputs
@_restyling.options
@_options.output
@_options.formats
@_options.device
@click.option("--engine", metavar="NAME", type=click.Choice(ENGINES), default="auto", show_default=True,
              help="What computes: torch, graph (on the CPU, starts at once), or auto: graph where that can do it.")
@click.option("--precise", is_flag=True, help="Compute in float32, even where the CPU has bfloat16, which is faster.")
@_options.jobs
@_options.file_list
@click.option("-f", "--force", is_flag=True, help="Into a folder: make again what is up to date, too.")
@click.option("-n", "--dry-run", is_flag=True, help="Print INPUT<TAB>OUTPUT of what would be made, and make nothing.")
@click.option("--quality", metavar="N", type=click.IntRange(1, 100), help="Quality of JPEG and WebP (95).")
@_options.max_pixels
@_options.fail_fast
def main(
    inputs, output, from_format, to_format, device, engine, precise, jobs, files_from, null, force, dry_run, quality,
    max_pixels, fail_fast, **look,
):  # fmt: skip
    """Restyle pictures: files, folders (the tree is kept, what is up to date is passed over), pipes, tar archives.

    st-apply -s hokusai.jpg photo.jpg -o out.jpg
    """
    choice = _restyling.choose(**look)
    if STDIN in [*inputs, files_from or not inputs and STDIN]:
        _restyling.check_standard_input(choice)
    target = Target(output, to_format, quality=quality)
    target.check()

    sources = find_sources(inputs, files_from, null, target)
    total, manifest = None, None
    if files_from != STDIN:
        sources = list(sources)
        total = len(sources) if all(source.path != STDIN for source in sources) else None
        _check_one_file(target, sources)
        for source in sources if target.kind == "folder" else ():
            target.claim(source)
    if target.kind == "folder":
        recipe = choice.recipe() | {"quality": quality, "from": from_format, "to": to_format}
        manifest = Manifest(target.path, recipe)
        if not force and files_from != STDIN:
            found = len(sources)
            sources = [s for s in sources if s.path == STDIN or not manifest.is_current(s.path, target.file_for(s))]
            total = total and len(sources)
            if not sources:
                log.info("nothing to do: " + (f"all {found} are up to date" if found else "no pictures there"))
                return 0
    if dry_run:
        for number, source in enumerate(sources):
            made = target.path if target.kind == "stream" else target.file_for(source, number if not manifest else 0)
            sys.stdout.buffer.write(os.fsencode(f"{source.label}\t{made}\n"))
        return 0
    limits = streams.Limits(max_pixels=max_pixels)
    restyler = Deferred(lambda: _set_up(choice, device, limits, engine, precise))
    keys = {}

    def about_to_be_read():
        for source in sources:
            if manifest and source.path != STDIN:
                keys[source] = manifest.key(source.path)
            yield source

    def finished(source, made):
        if source in keys:
            manifest.note(target.file_for(source), made, keys.pop(source))

    return run(
        about_to_be_read(), target, restyler, from_format=from_format, max_pixels=max_pixels, jobs=jobs,
        fail_fast=fail_fast, total=total, finished=finished,
    )  # fmt: skip


def _set_up(choice, device, limits, engine, precise):
    """Return what restyles a picture, by the engine that was asked for."""
    if engine != "torch":
        from styletools.engine import graph

        try:
            return choice.set_up_graph(device, limits, precise=precise)
        except graph.NotPossible as why:
            if engine == "graph":
                raise errors.Unavailable(f"--engine graph: {why}") from why
            log.info(f"restyled by torch: {why}")
    return choice.set_up(device, limits)[0]


def _check_one_file(target, sources) -> None:
    """Raise UsageError where several inputs would go to one file that programs take for a single picture."""
    if target.kind == "stream" and target.path != "-" and len(sources) > 1:
        chosen = target.format_for(target.path, None)
        if chosen in ("png", "jpeg") or not streams.can_stream(chosen):
            raise errors.UsageError(f"{len(sources)} inputs for one file, {target.path}: name a folder, {target.path}/")
