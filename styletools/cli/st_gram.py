"""st-gram: statistics of features, merged; and the style records that models want."""

import os

import click

from styletools import backbones, errors, methods, modelfile
from styletools.cli import _models, _options
from styletools.cli._command import command
from styletools.cli._loop import Deferred, Target, find_sources, gather, run
from styletools.streams import Image


@command("st-gram")
@_options.inputs
@_options.output
@_options.formats
@click.option("--merge", "weigh", is_flag=True, help="Names of inputs may end in :WEIGHT (default 1).")
@click.option("--each", is_flag=True, help="Write one record an input, instead of one of all.")
@click.option("--as", "derived", metavar="WHAT", type=click.Choice(["gram", "covariance", "mean-std"]),
              help="Write what follows from the statistics: gram, covariance or mean-std.")  # fmt: skip
@click.option("--for", "model", metavar="MODEL",
              help="Write the style record that a model or method wants (live, gatys, a file).")  # fmt: skip
@click.option("--refine", metavar="PHOTOS",
              help="With --for live: fit the record to the photographs in this folder, for half a minute.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Call the record so, instead of after its inputs.")
@_options.backbone
@_options.layers
@_options.size
@_options.lift
@_options.method_options
@_options.device
@_options.file_list
@_options.max_pixels
@_options.fail_fast
@_options.jobs
def main(
    inputs, output, from_format, to_format, weigh, each, derived, model, refine, name, backbone, layers, size, lift,
    settings, device, files_from, null, max_pixels, fail_fast, jobs,
):  # fmt: skip
    """Write the statistics of pictures, of features (st-extract) or of statistics, merged into one record.

    A record holds for each layer the mean (channels) and the raw second moment (channels, channels). These
    add up: merging is exact, each picture weighs alike, or each input by its weight:

    st-gram --merge wave.jpg:0.7 night.safetensors:0.3 > mixed.safetensors
    """
    _check_use(each, weigh, derived, model, refine, name, lift, settings)
    target = Target(output, to_format, default="safetensors", holds="tensors")
    if model:
        new = _maker(model, refine, settings, size, device)
    else:
        backbones.check(backbone, layers)
        new = _merger(backbone, layers, size, lift, device)
    target.check()

    def finish(merger, called, weights=None):
        record = merger.merged(called, weights)
        if derived:
            from styletools.engine.statistics import derive

            return derive(record, derived)
        return record

    if each:

        def load():
            make = new()

            def one(record):
                merger = make()
                merger.add(record)
                return finish(merger, _title(record))

            return one

        sources = find_sources(inputs, files_from, null, target)
        options = {"max_pixels": max_pixels, "fail_fast": fail_fast, "jobs": jobs}
        return run(sources, target, Deferred(load), from_format=from_format, unit="record", **options)

    weights = _weights(inputs) if weigh else {}
    found, titles = [], []

    def take(source, record):
        target.refuse(source)
        if not found:
            found.append(new()())
        found[0].add(record, source.root or source.path)
        titles.append(_title(record))

    sources = find_sources(list(weights) or inputs, files_from, null, target)
    if gather(sources, take, from_format=from_format, max_pixels=max_pixels, unit="record"):
        target.write_one(finish(found[0], name or _join(titles), weights))
    else:
        target.close()
    return 0


def _check_use(each, weigh, derived, model, refine, name, lift, settings) -> None:
    """Raise UsageError for options that do not go together."""
    if each and (weigh or name):
        other = "--merge" if weigh else "--name"
        raise errors.UsageError(f"--each makes one record an input: {other} does not go with it")
    given = click.get_current_context().get_parameter_source
    own = [f"--{key}" for key in ("backbone", "layers") if given(key) is click.core.ParameterSource.COMMANDLINE]
    own += ["--lift"] * lift + ["--as"] * bool(derived)
    if model and own:
        raise errors.UsageError(f"--for takes what the model wants: {own[0]} does not go with it")
    if refine and not model:
        raise errors.UsageError("--refine fits the style record of a model: say which with --for")
    if settings and not model:
        raise errors.UsageError("-O sets options of the method of --for")


def _weights(inputs) -> dict[str, float]:
    """Return {name: weight} of NAME:WEIGHT words; one that is named twice weighs the sum."""
    weights: dict[str, float] = {}
    for word in inputs:
        path, weight = _options.weighted(word)
        weights[path] = weights.get(path, 0.0) + weight
    return weights


def _merger(backbone, layers, size, lift, device):
    """Return what returns (once statistics are worth loading) what makes an empty merger of statistics."""

    def load():
        from styletools.engine import statistics

        extractor = None

        def read(record):
            nonlocal extractor
            if not isinstance(record, Image):
                return statistics.read(record)
            if extractor is None:
                from styletools.engine.features import Extractor

                extractor = Extractor(backbone, layers, size=size, lift=lift, device=device)
            return extractor.statistics(record)

        return lambda: statistics.Merger(read)

    return load


def _maker(model, refine, settings, size, device):
    """Return what loads a model and returns what makes an empty maker of style records for it."""
    method_name, path, config = _models.resolve(model, settings)
    described = methods.describe(method_name)
    if described.applies_to not in ("image+style", "image+label"):
        raise errors.UsageError(f"{method_name} takes no style: it applies to {described.applies_to}")
    if refine and not described.refines:
        raise errors.UsageError(f"--refine: {method_name} has no records that can be fitted to photographs")
    digest = modelfile.digest(path) if path else ""
    defaults = {option.name: option.default for option in described.options} | (config or {})

    def load():
        from styletools.engine import device as devices
        from styletools.engine import styles

        chosen = devices.choose(device)
        method = modelfile.load(path, device=chosen) if path else methods.create(method_name, config).to(chosen)
        used = "" if path else defaults.get("backbone", "")
        photographs = [each.to(chosen) for each in styles.load_photographs(refine)] if refine else ()
        options = {"method_name": method_name, "model_digest": digest, "backbone": used, "photographs": photographs}
        return lambda: styles.Maker(method, size=size or styles.DEFAULT_SIZE, **options)

    return load


def _title(record) -> str:
    """Return what to call the statistics of a record: its own name, or its file's without the suffix."""
    meta = getattr(record, "meta", {})
    if meta.get("kind") in ("stats", "style") and meta.get("name"):
        return meta["name"]
    return os.path.splitext(os.path.basename(record.name))[0]


def _join(titles) -> str:
    """Return the name of what was merged."""
    titles = list(dict.fromkeys(filter(None, titles)))
    return "+".join(titles) if len(titles) < 5 else f"{titles[0]}+{len(titles) - 1}"
