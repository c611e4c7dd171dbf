"""How scores are told: JSON lines as they come, a table for people, Markdown for documents. Standard library only.

A *summary* is what `Evaluation.summary` returns, with "name", "metrics" (see `told`), perhaps "seconds" and "peak_mb".
A *set* is one row of a table: what was measured, or a control.
"""

import contextlib
import json
import math
import sys

from styletools import errors, files, log, metrics

FORMATS = ("jsonl", "table", "markdown")
COSTS = {"seconds": "seconds", "peak_mb": "peak MB"}
ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}


class Scores:
    """Writes the rows of pairs and the sets to `path` (- for standard output). A file appears when all is written."""

    def __init__(self, path: str, chosen: str | None):
        self.path = path
        self.format = chosen or ("table" if path == "-" and files.is_terminal(sys.stdout) else "jsonl")
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self.stream = sys.stdout.buffer if self.path == "-" else self._stack.enter_context(files.atomic(self.path))
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def line(self, entry: dict) -> None:
        """Write one row as JSON, at once; tables show sets only, but for the scores of a few pairs."""
        if self.format == "jsonl":
            self._write(json.dumps(entry, ensure_ascii=False))

    def table(self, summaries: list[dict], rows: list[dict] = ()) -> None:
        """Write the sets of summaries, below the rows of pairs where some are given."""
        keys = list(dict.fromkeys(key for summary in summaries for key in summary["metrics"]))
        better = {key: each["better"] for summary in summaries for key, each in summary["metrics"].items()}
        sets = sets_of(summaries)
        costs = [cost for cost in COSTS if any(cost in each for each in sets)]
        heads = [f"{key} {ARROWS[better[key]]}".strip() for key in keys] + [COSTS[cost] for cost in costs]
        lines = [[_label(row), *_numbers(row["scores"], keys), *[""] * (len(costs) + 1)] for row in rows]
        for each in sets:
            name = f"{each['name']} (control)" if each["control"] else each["name"]
            lines.append([name, *_numbers(each["scores"], keys), *_numbers(each, costs), str(each["pairs"])])
        self.rows(["", *heads, "pairs"], lines, len(rows))

    def rows(self, heads: list[str], lines: list[list[str]], pairs: int = 0) -> None:
        """Write a table, with a gap after its first `pairs` lines, unless all was said in JSON."""
        if self.format == "jsonl":
            return
        if self.format == "markdown":
            self._write("| " + " | ".join(heads) + " |")
            self._write("|---" + "|---:" * (len(heads) - 1) + "|")
            for line in lines:
                self._write("| " + " | ".join(log.printable(cell).replace("|", "\\|") for cell in line) + " |")
            return
        widths = [max(map(len, column)) for column in zip(heads, *lines)]
        lines = [[log.printable(cell) for cell in line] for line in lines]
        for number, line in enumerate([heads, *lines]):
            if number and number == pairs + 1 and pairs:
                self._write("")
            cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
            self._write("  ".join(cells).rstrip())

    def _write(self, text: str) -> None:
        self.stream.write(text.encode(errors="backslashreplace") + b"\n")
        self.stream.flush()


def _label(row: dict) -> str:
    """Return what a table calls a pair."""
    return log.printable(row["output"] + (f" {row['frame']}" if "frame" in row else ""))


def _number(value: float | None) -> str:
    """Return a number with three or four digits that matter; a dash for what is not defined."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"


def _numbers(values: dict, keys: list[str]) -> list[str]:
    return [_number(values.get(key)) for key in keys]


def sets_of(summaries: list[dict]) -> list[dict]:
    """Return the sets of summaries: {"name", "control", "pairs", "scores", ...}, controls once, at the end."""
    sets, controls = [], {}
    for summary in summaries:
        costs = {cost: summary[cost] for cost in COSTS if cost in summary}
        told = {key: summary.get(key, {}) for key in ("name", "pairs", "scores", "std")}
        sets.append(told | {"control": False} | costs)
        for name, scores in summary.get("controls", {}).items():
            pairs = summary.get("control_pairs", {}).get(name, summary["pairs"])
            told = {"name": name, "control": True, "pairs": pairs, "scores": scores, "std": {}}
            controls.setdefault(name, told)
    return [*sets, *controls.values()]


def told(specs: list[metrics.Spec]) -> dict[str, dict]:
    """Return what a reader of a result must know of its scores: {key: {"network", "better", "range"}}."""
    return {
        spec.key: {"network": spec.network, "better": description.better, "range": description.range}
        for spec in specs
        for description in [metrics.describe(spec.name)]
    }


def _is_summary(found) -> bool:
    """Tell whether something read from JSON is a summary as we write it, its numbers all finite."""

    def is_number(value) -> bool:
        return value is None or type(value) in (int, float) and math.isfinite(value)

    def is_scores(value) -> bool:
        return isinstance(value, dict) and all(map(is_number, value.values()))

    controls, told, counts = (found.get(key, {}) for key in ("controls", "metrics", "control_pairs"))
    return (
        isinstance(found["name"], str) and isinstance(found["pairs"], int)
        and is_scores(found["scores"]) and is_scores(found.get("std", {})) and is_scores(counts)
        and isinstance(controls, dict) and all(map(is_scores, controls.values()))
        and isinstance(told, dict) and all(
            isinstance(each, dict) and each.get("better") in ARROWS and isinstance(each.get("network"), str)
            for each in told.values())
        and all(is_number(found.get(cost)) for cost in COSTS)
    )  # fmt: skip


def read_summaries(path: str) -> list[dict]:
    """Return the summaries in an earlier result, of which there is at least one. Raises DataError for other files."""
    try:
        with open(path, encoding="utf-8") as lines:
            found = [entry["summary"] for line in lines if line.strip() and "summary" in (entry := json.loads(line))]
        for summary in found:
            if not _is_summary(summary):
                raise ValueError("not what st-eval writes")
    except OSError as error:
        raise errors.from_os_error(error, path) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise errors.DataError(f"{path}: not a result of st-eval") from error
    if not found:
        raise errors.DataError(f"{path}: holds no summary of st-eval")
    return found
