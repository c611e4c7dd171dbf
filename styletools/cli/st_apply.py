"""st-apply: restyle pictures."""

import contextlib
import json
import os
import sys
from pathlib import Path

import click

from styletools import errors, log, methods, modelfile, streams
from styletools.cli import _models, _options
from styletools.cli._command import command
from styletools.cli._loop import STDIN, Deferred, Target, find_sources, run
from styletools.engine import styles
from styletools.manifest import Manifest

COLOR = ("luminance", "coral", "histogram")


@command("st-apply")
@_options.inputs
@click.option("-m", "--model", metavar="MODEL", default="live", show_default=True,
              help="A bundled model, a model file, a published checkpoint, or a method (gatys).")  # fmt: skip
@click.option("-s", "--style", "specs", metavar="STYLE[:WEIGHT],...", multiple=True,
              help="An image, a bundled name or a style record; several are mixed by weight.")  # fmt: skip
@click.option("--style-label", "label_specs", metavar="LABEL[:WEIGHT],...", multiple=True,
              help="A label that the model has learnt; several, and styles of -s, are mixed by weight.")  # fmt: skip
@_options.output
@_options.formats
@click.option("--alpha", metavar="A", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="How much style: 0 exactly the photograph, 1 all of it.")  # fmt: skip
@click.option("--direction", metavar="WAY", help="Which way a model of cyclegan translates: a2b (the default) or b2a.")
@click.option("--preserve-color", metavar="HOW", type=click.Choice(COLOR),
              help="Keep the photograph's colours: luminance, coral or histogram.")  # fmt: skip
@click.option("--mask", metavar="FILE", type=click.Path(readable=False),
              help="Style where this picture is white, photograph where black.")  # fmt: skip
@click.option("--outside", "outside_specs", metavar="STYLE[:WEIGHT],...", multiple=True,
              help="With --mask: the style where it is black, instead of the photograph.")  # fmt: skip
@click.option("--style-size", metavar="N", type=_options.Count(), default=styles.DEFAULT_SIZE, show_default=True,
              help="Scale style images so that their short side has N pixels.")  # fmt: skip
@_options.size
@_options.method_options
@_options.seed
@_options.device
@_options.jobs
@_options.file_list
@click.option("-f", "--force", is_flag=True, help="Into a folder: make again what is up to date, too.")
@click.option("-n", "--dry-run", is_flag=True, help="Print INPUT<TAB>OUTPUT of what would be made, and make nothing.")
@click.option("--quality", metavar="N", type=click.IntRange(1, 100), help="Quality of JPEG and WebP (95).")
@_options.max_pixels
@_options.fail_fast
def main(
    inputs, model, specs, label_specs, output, from_format, to_format, alpha, direction, preserve_color, mask,
    outside_specs, style_size, size, settings, seed, device, jobs, files_from, null, force, dry_run, quality,
    max_pixels, fail_fast,
):  # fmt: skip
    """Restyle pictures: files, folders (the tree is kept, what is up to date is passed over), pipes, tar archives.

    st-apply -s hokusai.jpg photo.jpg -o out.jpg
    """
    if alpha != alpha:
        raise errors.UsageError("--alpha nan: a number from 0 to 1 expected")
    name, path, config = _models.resolve(model, settings)
    described = methods.describe(name)
    held = _own_styles(path, "styles") if described.applies_to == "image" else []
    labels = _own_styles(path, "labels") if described.applies_to == "image+label" else []
    if label_specs and not labels:
        raise errors.UsageError(f"{name} has no labels: --style-label does not go with it")
    if held:
        chosen, outside = (styles.parse_own(words, held, path) for words in (specs, outside_specs))
    else:
        chosen, outside = styles.parse(specs), styles.parse(outside_specs)
        chosen += styles.parse_own(label_specs, labels, path, "label")
    _check_use(described, chosen, outside, mask, held, labels)
    direction = _direction(described, direction)
    if STDIN in [*inputs, files_from or not inputs and STDIN] and any(map(_is_piped_in, [*chosen, *outside])):
        raise errors.UsageError("standard input cannot be both a style and the pictures")
    digest = modelfile.digest(path) if path else ""
    defaults = {option.name: option.default for option in described.options} | (config or {})
    styles.check([*chosen, *outside], name, digest, "" if path else defaults.get("backbone", ""))
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
        recipe = {
            "method": name, "model": digest, "config": config, "alpha": alpha, "preserve_color": preserve_color,
            "styles": _identity(chosen), "outside": _identity(outside), "mask": mask and modelfile.digest(mask),
            "style_size": style_size if any(style.kind == "image" for style in [*chosen, *outside]) else None,
            "size": size, "seed": seed, "quality": quality, "from": from_format, "to": to_format,
        }  # fmt: skip
        if direction:  # so that results of models that have none stay current
            recipe["direction"] = direction
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
    restyler = Deferred(lambda: _set_up(
        name, path, config, device, seed, chosen, outside, style_size, digest, mask, direction,
        alpha=alpha, size=size, preserve_color=preserve_color or "", limits=streams.Limits(max_pixels=max_pixels),
    ))  # fmt: skip
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


def _own_styles(path, key: str) -> list[str]:
    """Return the names of the styles that a model file holds itself, under `key` in its configuration."""
    config = modelfile.check(path).get("config", "{}") if path else "{}"
    with contextlib.suppress(ValueError, AttributeError):
        return [name for name in json.loads(config).get(key, "").split(",") if name]
    return []


def _check_use(described, chosen, outside, mask, held, labels) -> None:
    """Raise UsageError where style, mask and method do not go together."""
    if described.applies_to not in ("image", "image+style", "image+label"):
        raise errors.UsageError(f"{described.name} does not restyle pictures: it applies to {described.applies_to}")
    if described.applies_to == "image+style" and not chosen:
        known = ", ".join(list(styles.bundled())[:3])
        by_name = f", or by name: {known}, ..." if known else ""
        raise errors.UsageError(f"{described.name} needs a style: -s IMAGE{by_name}")
    if len(held) > 1 and not chosen:
        raise errors.UsageError(f"this model holds several styles: -s NAME, of {', '.join(held)}")
    if len(labels) > 1 and not chosen:
        raise errors.UsageError(f"this model has several labels: --style-label LABEL, of {', '.join(labels)}")
    if described.applies_to == "image" and not held and (chosen or outside):
        raise errors.UsageError(f"{described.name} has its style built in: -s does not go with it")
    if outside and not mask:
        raise errors.UsageError("--outside needs --mask")
    if mask and not os.path.exists(mask):
        raise errors.MissingInput(f"{mask}: no such file")
    if mask and not os.path.isfile(mask):
        raise errors.DataError(f"{mask}: a mask must be a regular file, for it is read more than once")


def _direction(described, wanted: str | None) -> str:
    """Return the way that pictures go, "" for a method that has but one. Raises UsageError for one it has not."""
    if wanted and wanted not in described.directions:
        known = f"choose from {', '.join(described.directions)}" if described.directions else "it goes one way only"
        raise errors.UsageError(f"--direction {wanted}: {described.name} does not go there: {known}")
    return wanted or (described.directions or ("",))[0]


def _is_piped_in(style) -> bool:
    """Tell whether a style came through standard input, where pictures are to be had no more."""
    path = Path(style.name)
    with contextlib.suppress(OSError):
        return style.kind != "bundled" and path.is_fifo() and os.path.samestat(path.stat(), os.fstat(0))
    return False


def _check_one_file(target, sources) -> None:
    """Raise UsageError where several inputs would go to one file that programs take for a single picture."""
    if target.kind == "stream" and target.path != "-" and len(sources) > 1:
        chosen = target.format_for(target.path, None)
        if chosen in ("png", "jpeg") or not streams.can_stream(chosen):
            raise errors.UsageError(f"{len(sources)} inputs for one file, {target.path}: name a folder, {target.path}/")


def _identity(mixture) -> list:
    """Return what tells one mixture of styles from another: neither their order nor the sum of their weights."""
    total = sum(style.weight for style in mixture)
    return sorted(
        [modelfile.digest(style.path), style.name if style.kind in ("bundled", "own") else "", style.weight / total]
        for style in mixture if style.weight
    )  # fmt: skip


def _set_up(name, path, config, device, seed, chosen, outside, style_size, digest, mask, direction, **how):
    """Load all that restyling needs; from here on torch is in memory."""
    picture = streams.open_image(mask) if mask else None  # before torch: it may be no picture
    from styletools.engine import device as devices
    from styletools.engine import infer

    chosen_device = devices.choose(device)
    devices.seed_everything(seed)
    if path:
        method = modelfile.load(path, device=chosen_device)
    else:
        if any(option.name == "seed" for option in methods.describe(name).options):
            config = {"seed": seed} | config
        method = methods.create(name, config).to(chosen_device)
    method.direction = direction
    encoded = [
        styles.encode(method, each, size=style_size, method_name=name, model_digest=digest) if each else None
        for each in (chosen, outside)
    ]
    plane = infer.to_plane(picture) if picture else None
    return infer.Restyler(method, encoded[0], mask=plane, outside=encoded[1], **how)
