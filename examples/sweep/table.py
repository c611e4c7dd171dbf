"""Print a table in Markdown of what st-eval wrote: a line a file, called scores/STYLE/ALPHA.jsonl."""

import json
import sys
from pathlib import Path


def main(paths):
    """Print the mean of every score; those of the untouched photographs come first."""
    rows = []
    for path in map(Path, paths):
        summary = json.loads(path.read_text().splitlines()[-1])["summary"]
        scores = {name: value for name, value in summary["scores"].items() if "." not in name}
        rows.append((path.parent.name, path.stem, scores))
        rows.append((path.parent.name, "0 (untouched)", summary["controls"]["identity"]))
    names = list(rows[0][2])
    print("| style | alpha | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    for style, alpha, scores in sorted({(row[0], row[1]): row for row in rows}.values(), key=lambda row: row[:2]):
        print(f"| {style} | {alpha} | " + " | ".join(f"{scores[name]:.3f}" for name in names) + " |")


main(sys.argv[1:])
