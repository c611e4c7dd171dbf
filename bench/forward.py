"""How long networks take for one picture, side by side in one run. JSON lines, ratios first.

    python bench/forward.py live microast/ [more models] [--size 512] [--threads 1,2] [--repeats 8]

The style is encoded beforehand; only the network is timed, the models taking turns, as processor time (other programs
on the machine change it little) divided by the threads. The smallest of the repeats counts; `ratio` is over the first
model. Engines: `torch`; `graph`, where all models have one; and `best`, the faster of both for each model. Graphs in
bfloat16 compute convolutions in it, whether or not the result is near enough to be used for films.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import click


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--size", default=512, show_default=True)
@click.option("--threads", default="1", show_default=True)
@click.option("--repeats", default=8, show_default=True)
def main(models, size, threads, repeats):
    """Time the forward pass of models that take a photograph and a style."""
    import torch

    from styletools import modelfile

    generator = torch.Generator().manual_seed(0)
    photograph, style = (torch.rand(1, 3, size, size, generator=generator) for _ in range(2))
    photograph = photograph.contiguous(memory_format=torch.channels_last)
    methods = {model: modelfile.load(model) for model in models}
    for count in map(int, threads.split(",")):
        torch.set_num_threads(count)
        for half in (False, True):
            graphs = {model: _graph(method, half, count) for model, method in methods.items() if method.graphs()}
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                records = {model: method.encode_style([style], [1.0]) for model, method in methods.items()}
                steps = {("torch", model): _by_torch(method, photograph, records[model])
                         for model, method in methods.items()}  # fmt: skip
                steps |= {("graph", model): _by_graph(*graph, photograph, records[model])
                          for model, graph in graphs.items()}  # fmt: skip
                times = {key: [] for key in steps}
                for _ in range(repeats):
                    for key, step in steps.items():
                        began = time.process_time()
                        step()
                        times[key].append((time.process_time() - began) / count)
            least = {key: min(found) for key, found in times.items()}
            least |= {("best", model): min(least[key] for key in steps if key[1] == model) for model in models}
            for engine in ("torch", "graph", "best"):
                best = {model: least[engine, model] for model in models if (engine, model) in least}
                if len(best) == len(models):
                    print(json.dumps({
                        "ratio": {model: round(value / best[models[0]], 2) for model, value in best.items()},
                        "engine": engine, "size": size, "threads": count, "type": "bfloat16" if half else "float32",
                        "seconds": {model: round(value, 4) for model, value in best.items()},
                    }), flush=True)  # fmt: skip


def _by_torch(method, photograph, record):
    return lambda: method.apply(photograph, style=record)


def _graph(method, half, threads):
    """Return the graph of a method, which is written and compiled here, and what computes it."""
    from styletools.engine import export, graph

    os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(export.to_onnx(method, {}))
        loaded = graph.Graph(path)
        return loaded, loaded._request("bytes", half)


def _by_graph(loaded, request, photograph, record):
    picture = (photograph[0].permute(1, 2, 0) * 255).byte().numpy()
    style = {key: record[key].float().numpy().reshape(shape) for key, shape in loaded.shapes.items()}
    return lambda: request.infer({"image": picture[None], **style}, share_inputs=True, share_outputs=True)


if __name__ == "__main__":
    main()
