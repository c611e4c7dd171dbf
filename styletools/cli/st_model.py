"""st-model: what methods, models and styles there are, what is in a file, and models as graphs."""

import io
import json
import math
import os
import shlex

import click

from styletools import backbones, errors, files, log, methods, modelfile, onnxfile
from styletools.cli._command import group

STYLES, WORKS = "styles.safetensors", "works.tsv"
RESTYLING = ("image", "image+style", "image+label")
NO_PROGRAMS = ("gatys", "onnx")  # the one optimises, the other is a graph of somebody else
PROGRAMS = {".pt": "TorchScript", ".pt2": "torch.export"}


@group("st-model")
def main():
    """List methods, models and styles; show what is in a file; import and export models. Nothing is restyled."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")


@main.command("list")
@as_json
def list_all(as_json):
    """List the methods, the bundled models and styles, and what is in the cache."""
    entries = [*_methods(), *_models(), *_styles(), *_cached()]
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry, ensure_ascii=False))
        return
    for kind, title in (("method", "methods"), ("model", "models"), ("style", "styles"), ("cached", "cached")):
        found = [entry for entry in entries if entry["kind"] == kind]
        click.echo(f"{title}:" if found else f"{title}: {'nothing' if kind == 'cached' else 'none bundled'}")
        width = max((len(entry["name"]) for entry in found), default=0)
        for entry in found:
            click.echo(log.printable(f"  {entry['name']:{width}}  {_line(entry)}".rstrip()))


def _line(entry) -> str:
    """Return what a line of the list says after the name."""
    if entry["kind"] == "method":
        needs = ", needs a published model" if entry["needs_model"] else ""
        ways = f", goes {' or '.join(entry['directions'])}" if entry["directions"] else ""
        return f"{entry['title']} [applies to {entry['applies_to']}, trains on {entry['trains_on']}{ways}{needs}]"
    words = [f"{entry['size'] / 1024:.0f} KiB"]
    if entry["kind"] == "model":
        words.insert(0, f"{entry['method']}, {entry['parameters']} parameters")
    if entry["kind"] == "cached":
        words.insert(0, entry["what"])
    if entry["kind"] == "style" and entry["work"]:
        words.append(entry["work"])
    line = ", ".join(words) + (f"; licence {entry['licence']}" if entry["licence"] else "")
    return line + (f"; trained on {entry['trained_on']}" if entry["trained_on"] else "")


def _methods():
    for name in methods.names():
        found = methods.describe(name)
        title = found.title.removeprefix(f"{name}: ").rstrip(".")
        yield {
            "kind": "method", "name": name, "title": title, "applies_to": found.applies_to,
            "trains_on": found.trains_on, "needs_model": found.needs_model, "directions": found.directions,
            "options": {option.name: option.default for option in found.options},
        }  # fmt: skip


def _models():
    for name, path in modelfile.bundled().items():
        header = next(modelfile.read_headers(path))
        yield {
            "kind": "model", "name": name, "method": header.metadata.get("method", ""),
            "parameters": sum(math.prod(shape) for _, shape in header.tensors.values()), "size": os.path.getsize(path),
            "trained_on": header.metadata.get("trained_on", ""), "licence": header.metadata.get("licence", ""),
        }  # fmt: skip


def _styles():
    path, works = files.zoo_dir() / STYLES, files.zoo_dir() / WORKS
    told = {}
    if works.exists():  # what each is of, with a line of titles
        for line in works.read_text(encoding="utf-8").splitlines()[1:]:
            name, _, *what = line.split("\t")
            told[name] = ", ".join(filter(None, what))
    for header in modelfile.read_headers(path) if path.exists() else ():
        name = header.metadata.get("name", "")
        yield {
            "kind": "style", "name": name, "method": header.metadata.get("method", ""), "size": _size(header),
            "work": told.get(name, ""), "trained_on": header.metadata.get("trained_on", ""),
            "licence": header.metadata.get("licence", "") or ("public domain" if name in told else ""),
        }  # fmt: skip


def _cached():
    """Yield what is kept in the cache: downloaded weights, and the graphs of models."""
    for path in sorted((files.cache_dir() / "weights").glob("*")):
        if not path.name.startswith("."):
            yield {"kind": "cached", "name": path.name, "what": "weights", "size": path.stat().st_size,
                   "path": str(path), "method": "", "trained_on": "", "licence": ""}  # fmt: skip
    for path in sorted((files.cache_dir() / "graphs").glob("*.onnx")):
        try:
            told = onnxfile.read_header(path).metadata
        except errors.StyletoolsError:
            continue  # another process may be writing or removing it
        yield {"kind": "cached", "name": path.name, "what": f"graph of a model of {told.get('method', '?')}",
               "size": path.stat().st_size, "path": str(path), "method": told.get("method", ""),
               "trained_on": told.get("trained_on", ""), "licence": told.get("licence", "")}  # fmt: skip


BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}


def _size(header) -> int:
    """Return how many bytes the numbers of a record take."""
    return sum(BYTES.get(kind, 8) * math.prod(shape) for kind, shape in header.tensors.values())


@main.command("show")
@click.argument("model", metavar="FILE|DIR|MODEL")
@as_json
def show(model, as_json):
    """Show the metadata of a model or record and the shapes of its tensors; of each, where a file holds several."""
    for number, header in enumerate(modelfile.describe(modelfile.find(model))):
        if as_json:
            tensors = {name: {"type": kind, "shape": shape} for name, (kind, shape) in header.tensors.items()}
            click.echo(json.dumps({"meta": header.metadata, "tensors": tensors}, ensure_ascii=False))
            continue
        click.echo("\n" * bool(number), nl=False)
        for key in sorted(header.metadata, key=lambda key: (key != "kind", key != "method", key)):
            click.echo(log.printable(f"{key}: {header.metadata[key]}"))
        count = sum(math.prod(shape) for _, shape in header.tensors.values())
        click.echo(f"{len(header.tensors)} tensors, {count} numbers, {_size(header)} bytes")
        for name, (kind, shape) in sorted(header.tensors.items()):
            click.echo(log.printable(f"  {name} {kind} {'x'.join(map(str, shape)) or 'scalar'}"))


@main.command("import")
@click.argument("model", metavar="FILE|DIR")
@click.option("-o", "--output", metavar="FILE.safetensors", required=True, help="The file to write.")
@click.option("--licence", metavar="TEXT", default="", help="After import: the terms under which it may be used.")
@click.option("--trained-on", metavar="TEXT", default="", help="After import: what it was trained on.")
@click.option("--half", is_flag=True, help="After import: keep numbers in 16 bits, in half the size.")
def import_model(model, output, licence, trained_on, half):
    """Write a model that others have published as a model file of styletools, which says where it comes from."""
    if os.path.splitext(output)[1].lower() != ".safetensors":
        raise errors.UsageError(f"{output}: the name of a model file ends in .safetensors")
    path = modelfile.find(model)
    _check_new(model, output)
    provenance = modelfile.provenance(path)
    method = modelfile.load(path)
    name = modelfile.check(path)["method"]
    words = ["st-model", "import", *["--half"] * half, model, "-o", output]
    modelfile.save(output, name, method, created_by=shlex.join(words), licence=licence, trained_on=trained_on,
                   half=half, provenance=provenance)  # fmt: skip
    if method.needs_backbone and method.config.backbone != backbones.DEFAULT:
        log.warning(f"{output}: needs the weights of {method.config.backbone}, which it does not hold: put them into a "
                    "folder of STYLETOOLS_WEIGHTS")  # fmt: skip


@main.command("export")
@click.argument("model", metavar="FILE|DIR|MODEL")
@click.option("-o", "--output", metavar="FILE", required=True,
              help="What to write: .onnx a graph, .pt TorchScript, .pt2 torch.export, .pth with --layout.")
@click.option("--layout", metavar="NAME", help="After export: the layout of somebody else's checkpoints.")
def export(model, output, layout):
    """Write a model for other programs: as ONNX, TorchScript or torch.export, or in the layout of others.

    st-apply runs graphs without torch.
    """
    kind = os.path.splitext(output)[1].lower()
    if layout:
        _check_layout(layout, output, kind)
    elif kind != ".onnx" and kind not in PROGRAMS:
        raise errors.UsageError(f"{output}: .onnx, {', '.join(PROGRAMS)} expected, or --layout with .pth")
    path = modelfile.find(model)
    _check_new(model, output)
    name = modelfile.check(path)["method"]
    if layout:
        data = _in_layout(model, path, name, layout)
    elif kind == ".onnx":
        _check_able(model, name, "a graph", lambda each: methods.describe(each).has_graphs)
        from styletools.engine import export as graphs

        data = graphs.to_onnx(modelfile.load(path), graphs.describe(path, modelfile.digest(path)))
    else:
        _check_able(model, name, PROGRAMS[kind], lambda each: methods.describe(each).applies_to in RESTYLING
                    and each not in NO_PROGRAMS)  # fmt: skip
        from styletools.engine import export as graphs
        from styletools.engine import programs

        told = graphs.describe(path, modelfile.digest(path))
        data = programs.to_program(modelfile.load(path), PROGRAMS[kind], told)
    with files.atomic(output) as out:
        out.write(data)


def _check_new(model, output) -> None:
    """Raise UsageError where writing would replace what is read."""
    if os.path.exists(model) and os.path.exists(output) and os.path.samefile(model, output):
        raise errors.UsageError(f"{output}: is the model itself: choose another name")


def _check_able(model, name, what, able) -> None:
    """Raise DoesNotFit, which says who can, for a model of a method that cannot be written as something."""
    if not able(name):
        others = ", ".join(each for each in methods.names() if able(each))
        raise errors.DoesNotFit(f"{model}: {name} cannot be written as {what}; those that can: {others}")


def _check_layout(layout, output, kind) -> None:
    known = {each: name for name in methods.names() if methods.describe(name).publishes
             for each in methods.describe(name).layouts}  # fmt: skip
    if layout not in known:
        raise errors.UsageError(f"--layout {layout}: choose from {', '.join(known)}")
    if kind not in (".pth", ".model"):
        raise errors.UsageError(f"{output}: the name of a checkpoint ends in .pth")


def _in_layout(model, path, name, layout) -> bytes:
    """Return a model as a checkpoint of others."""
    _check_able(model, name, layout, lambda each: methods.describe(each).publishes
                and layout in methods.describe(each).layouts)  # fmt: skip
    import torch

    state = modelfile.load(path).publish(layout)
    out = io.BytesIO()
    torch.save({key: value.detach().clone().contiguous() for key, value in state.items()}, out)
    return out.getvalue()
