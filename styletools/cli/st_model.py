"""st-model: what methods, models and styles there are, what is in a file, and models as graphs."""

import json
import math
import os

import click

from styletools import errors, files, log, methods, modelfile
from styletools.cli._command import group

STYLES = "styles.safetensors"


@group("st-model")
def main():
    """List methods, models and styles; show what is in a file; export models. Nothing is restyled."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")


@main.command("list")
@as_json
def list_all(as_json):
    """List the methods, the bundled models and the bundled styles."""
    entries = [*_methods(), *_models(), *_styles()]
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry, ensure_ascii=False))
        return
    for kind in ("method", "model", "style"):
        found = [entry for entry in entries if entry["kind"] == kind]
        click.echo(f"{kind}s:" if found else f"{kind}s: none bundled")
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
    return ", ".join(words) + (f"; trained on {entry['trained_on']}" if entry["trained_on"] else "")


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
    path = files.zoo_dir() / STYLES
    for header in modelfile.read_headers(path) if path.exists() else ():
        yield {
            "kind": "style", "name": header.metadata.get("name", ""), "method": header.metadata.get("method", ""),
            "size": _size(header), "trained_on": header.metadata.get("trained_on", ""),
        }  # fmt: skip


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


@main.command("export")
@click.argument("model", metavar="FILE|DIR|MODEL")
@click.option("-o", "--output", metavar="FILE.onnx", required=True, help="The graph to write.")
def export(model, output):
    """Write a model as an ONNX graph, which other programs can run and st-apply runs without torch."""
    path = modelfile.find(model)
    name = modelfile.check(path)["method"]
    if not methods.describe(name).has_graphs:
        able = ", ".join(each for each in methods.names() if methods.describe(each).has_graphs)
        raise errors.DoesNotFit(f"{model}: {name} cannot be written as a graph; those that can: {able}")
    if os.path.splitext(output)[1].lower() != ".onnx":
        raise errors.UsageError(f"{output}: the name of a graph ends in .onnx")
    from styletools.engine import export as graphs

    data = graphs.to_onnx(modelfile.load(path), graphs.describe(path, modelfile.digest(path)))
    with files.atomic(output) as out:
        out.write(data)
