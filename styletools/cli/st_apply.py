"""st-apply: restyle pictures."""

import functools

import click

from styletools import errors, log, streams
from styletools.cli import _folder, _options, _restyling
from styletools.cli._command import arrange, command
from styletools.cli._loop import STDIN, Deferred, Target, find_sources, run

ENGINES = ("auto", "torch", "graph")
_GRAPH_BYTES = 250  # a pixel, of a picture that is restyled without torch


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
@click.option("--check", is_flag=True, help="Exit with 1 if a folder is not up to date, saying by how much.")
@click.option("--prune", is_flag=True, help="Remove results from a folder that have lost their inputs.")
@click.option("--watch", is_flag=True, help="Stay, and restyle what arrives in folders.")
@click.option("--shard", metavar="I/N", type=_folder.Shard(), help="Do the I-th of N parts of the work: 1/8 ... 8/8.")
@click.option("--ray", metavar="ADDRESS", help="Spread a folder over the Ray cluster there; auto finds this machine's.")
@click.option("--no-wait", is_flag=True, help="Exit with 75 where another run is at work in the folder.")
@click.option("-MD", "dependencies", metavar="FILE", type=click.Path(dir_okay=False, readable=False),
              help="Write rules for make into FILE: what each result depends on.")
@click.option("--quality", metavar="N", type=click.IntRange(1, 100), help="Quality of JPEG and WebP (95).")
@_options.max_pixels
@_options.max_memory
@_options.fail_fast
def main(
    inputs, output, from_format, to_format, device, engine, precise, jobs, files_from, null, force, dry_run, check,
    prune, watch, shard, ray, no_wait, dependencies, quality, max_pixels, max_memory, fail_fast, **look,
):  # fmt: skip
    """Restyle pictures: files, folders (the tree is kept, what is up to date is passed over), pipes, tar archives.

    st-apply -s hokusai.jpg photo.jpg -o out.jpg
    """
    choice = _restyling.choose(**look)
    if STDIN in [*inputs, files_from or not inputs and STDIN]:
        _restyling.check_standard_input(choice)
    target = Target(output, to_format, quality=quality)
    wanted = _folder.Wanted(force, dry_run, check, prune, watch, shard, ray, no_wait, dependencies)
    _folder.check_use(wanted, target, inputs, files_from)
    target.check()

    def find():
        found = find_sources(inputs, files_from, null, target)
        if files_from == STDIN or watch:
            return found
        found = list(found)
        _check_one_file(target, found)
        for source in found if target.kind == "folder" else ():
            target.claim(source)
        return found

    limits = streams.Limits(max_pixels=max_pixels)
    how = {"device": device, "limits": limits, "engine": engine, "precise": precise, "memory": max_memory}
    restyler = Deferred(lambda: _set_up(choice, adapts=target.kind == "stream", **how))

    def work(sources, finished=None, total=None):
        if ray:
            from styletools.cli import _cluster

            there = functools.partial(_set_up_there, choice.anywhere(), choice.recipe(), **how)
            task = _cluster.Task(there, to_format, quality, from_format, max_pixels)
            return _cluster.spread(
                sources, target, task, address=ray, device=device, fail_fast=fail_fast, total=total, finished=finished
            )
        return run(
            sources, target, restyler.make() if watch else restyler, from_format=from_format, max_pixels=max_pixels,
            jobs=jobs, fail_fast=fail_fast, total=total, finished=finished,
        )  # fmt: skip

    if target.kind == "folder":
        recipe = choice.recipe() | {"quality": quality, "from": from_format, "to": to_format}
        if precise:
            recipe["precise"] = True  # so that results without it stay current
        return _folder.bring_up_to_date(target, find, work, recipe, wanted, inputs=inputs, needed=choice.files())
    return _folder.make_files(target, find(), work, wanted, needed=choice.files())


arrange(
    main,
    {
        "Style": "model style style-label alpha direction preserve-color mask outside style-size size option seed",
        "Input and output": "output from to quality files-from null",
        "Folders": "force dry-run check prune watch no-wait MD shard ray",
        "Speed and limits": "device engine precise jobs max-pixels max-memory fail-fast",
    },
)


def _set_up_there(choice, recipe, **how):
    """Do what `_set_up` does in a worker of a cluster, having made sure that it has the same files."""
    choice.check_same(recipe)
    return _set_up(choice, adapts=False, **how)


def _set_up(choice, device, limits, engine, precise, adapts, memory):
    """Return what restyles a picture, by the engine that was asked for.

    adapts: whether what came before may make a difference, if only of a level here and there, for speed.
    """
    if engine != "torch":
        from styletools.engine import graph

        try:
            restyler = choice.set_up_graph(device, limits, precise=precise)
            restyler.graph.adapts = adapts
            return _Either(restyler, lambda: choice.set_up(device, limits, memory)[0], memory)
        except graph.NotPossible as why:
            if engine == "graph":
                raise errors.Unavailable(f"--engine graph: {why}") from why
            log.info(f"restyled by torch: {why}")
    from styletools.engine import pipeline

    return pipeline.around(choice.set_up(device, limits, memory)[0], precise=precise, adapts=adapts)


class _Either:
    """Restyles pictures without torch, and by torch, which can work in tiles, those for which the memory is too small.

    torch: what sets it up. memory: bytes that the process may take; 0: a share of what is free.
    """

    def __init__(self, graph, torch, memory):
        self._graph, self._set_up, self._torch, self._memory = graph, torch, None, memory

    def __call__(self, record):
        from styletools.engine import memory

        if isinstance(record, streams.Image):
            height, width = streams.scaled(record.array.shape[:2], self._graph.size)
            if height * width * _GRAPH_BYTES > memory.free(self._memory):
                if self._torch is None:
                    log.info("restyled by torch: too large for the memory, but in tiles")
                    self._torch = self._set_up()
                return self._torch(record)
        return self._graph(record)


def _check_one_file(target, sources) -> None:
    """Raise UsageError where several inputs would go to one file that programs take for a single picture."""
    if target.kind == "stream" and target.path != "-" and len(sources) > 1:
        chosen = target.format_for(target.path, None)
        if chosen in ("png", "jpeg") or not streams.can_stream(chosen):
            raise errors.UsageError(f"{len(sources)} inputs for one file, {target.path}: name a folder, {target.path}/")
