"""How long networks take for one picture, side by side in one run. Prints a JSON line for each number of threads.

    python bench/forward.py live microast/ [more models] [--size 512] [--threads 1,2] [--repeats 8]

The style is encoded beforehand; only `apply` is timed, the models taking turns, as processor time (other programs on
the machine change it little) divided by the threads. The smallest of the repeats counts; `ratio` is over the first
model.
"""

import json
import time

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
            times = {model: [] for model in models}
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                records = {model: method.encode_style([style], [1.0]) for model, method in methods.items()}
                for _ in range(repeats):
                    for model, method in methods.items():
                        began = time.process_time()
                        method.apply(photograph, style=records[model])
                        times[model].append((time.process_time() - began) / count)
            best = {model: min(found) for model, found in times.items()}
            print(json.dumps({
                "size": size, "threads": count, "type": "bfloat16" if half else "float32",
                "ratio": {model: round(value / best[models[0]], 2) for model, value in best.items()},
                "seconds": {model: round(value, 4) for model, value in best.items()},
            }))  # fmt: skip


if __name__ == "__main__":
    main()
