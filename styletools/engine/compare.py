"""Restyling pairs with one model in a process of its own, so that the time and the memory it takes are its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from styletools import errors

_PROGRAM = "import sys; from styletools.engine import compare; sys.exit(compare.work())"


def restyle(job: dict) -> Iterator[dict]:
    """Restyle the pairs of a job; yield {"pair": its number, "seconds"} of each, and {"peak_mb"} at the end.

    job: "method" and "config" (a dict or None), "model" (file or None), "device", "size" and "square" as `Looks` has
    them, "pairs": [[content, style, output], ...]; outputs become PNG files. seconds: of the network, without
    reading, encoding the style and writing; on a CPU its processor time over the threads, which other programs
    hardly change. peak_mb: the most memory the process held (on a GPU, of its memory).
    A pair that fails comes as {"pair", "error", "status"}. Raises what keeps the model from being loaded.
    """
    package = str(Path(__file__).parents[2])
    places = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
    )  # fmt: skip
    try:
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        ended = False
        for line in process.stdout:
            event = json.loads(line)
            if "fatal" in event:
                raise errors.of_status(event["status"], event["fatal"])
            ended = "peak_mb" in event
            yield event
        if not ended:
            raise errors.TryAgain(f"the process of {job['model'] or job['method']} ended early: out of memory?")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def work() -> int:
    """Do the job on standard input: the other side of `restyle`."""
    # Nothing else may get between the lines of the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def answer(**event) -> None:
        answers.write(json.dumps(event) + "\n")

    try:
        job = json.load(sys.stdin)
        for event in _restyled(job):
            answer(**event)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        fault = error if isinstance(error, errors.StyletoolsError) else None
        answer(fatal=str(error) if fault else f"{type(error).__name__}: {error}", status=fault.status if fault else 70)
    return 0


def _restyled(job: dict) -> Iterator[dict]:
    import torch

    from styletools import files, methods, modelfile, streams
    from styletools.engine import evaluate, infer

    device = torch.device(job["device"])
    method = (
        modelfile.load(Path(job["model"]), device=device) if job["model"]
        else methods.create(job["method"], job["config"]).to(device)
    )  # fmt: skip
    # A bank of styles paints in the one that is called as the painting.
    several = "," in getattr(method.config, "styles", "")
    # A model of labels is shown the painting, as any other that can be.
    takes_style = methods.describe(job["method"]).applies_to in ("image+style", "image+label")
    looks = evaluate.Looks(size=job["size"], square=job["square"], device=device)

    @functools.lru_cache(32)
    @torch.no_grad()
    def encoded(style: str) -> dict:
        return method.encode_style([looks.read(style).image], [1.0])

    def clock() -> float:
        if device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    restyler = infer.Restyler(method)
    for number, (content, style, output) in enumerate(job["pairs"]):
        try:
            image = looks.read(content, keep=True).image
            record = encoded(style) if takes_style else method.own_style(Path(style).stem) if several else None
            began = clock()
            result = restyler.restyle(image, record)
            seconds = clock() - began
            restyled = streams.Image(infer.to_levels(result[0]).numpy(), name=output)
            with files.atomic(output) as out, streams.writer(out, "png", stream=True) as writer:
                writer.write(restyled)
        except (errors.DataError, errors.MissingInput, errors.NotPermitted) as error:
            yield {"pair": number, "error": str(error), "status": error.status}
            continue
        yield {"pair": number, "seconds": seconds}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = _peak()
    yield {"peak_mb": round(peak / 2**20, 1)}


def _peak() -> int:
    """Return the most memory, in bytes, that this process has held."""
    try:
        # Where there is /proc: getrusage tells the parent's peak, too, which the process was forked from.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, ValueError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
