"""What the results in a folder were made from, so that only what is out of date is made again.

Standard library only. The manifest is a file of JSON lines in the output folder, one line appended when a result
is in its place: it survives a kill at any moment, and a line that was cut off is passed over.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from styletools import errors, files

NAME = ".styletools.jsonl"


class Manifest:
    """The results below one folder. `recipe`: all that made them but the input (model, style, parameters).

    An entry says of an output, which stands for all that came of one input, what it was made from, and which files
    there are besides. Runs that share a folder do each other no harm: the worst is that something is made again.
    """

    def __init__(self, folder: str | os.PathLike, recipe: dict):
        self.folder, self.path = Path(folder), Path(folder) / NAME
        self.recipe = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        self._made: dict[str, dict] = {}
        self._lines, self._cut_off = 0, False
        with contextlib.suppress(OSError), open(self.path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._lines, self._cut_off = self._lines + 1, not line.endswith("\n")
                with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    entry = json.loads(line)
                    files_too = [str(name) for name in entry.get("files", ())]
                    self._made[str(entry["output"])] = {"key": entry["key"], "files": files_too}

    def key(self, source: str) -> str:
        """Return what names an input's content and the recipe: a result is current while this stays the same.

        Empty for an input that is not there.
        """
        try:
            found = os.stat(source)
        except OSError:
            return ""
        return f"{self.recipe}:{found.st_size}:{found.st_mtime_ns}"

    def is_current(self, source: str, output: str) -> bool:
        """Tell whether what stands under `output` was made from `source` as it is now, by this recipe, and is there."""
        entry = self._made.get(self._relative(output))
        if not entry or not entry["key"] or entry["key"] != self.key(source):
            return False
        made = entry["files"] or [self._relative(output)]
        return all(files.up_to_date(self.folder / name, ()) for name in made)

    def note(self, output: str, made: list[str], key: str) -> None:
        """Remember that `made`, the files that `output` stands for, are made of what `key` named before it was read.

        A folder that takes no notes is no error.
        """
        if not key:
            return
        entry = {"output": self._relative(output), "key": key}
        if made != [output]:
            entry["files"] = [self._relative(path) for path in made]
        with contextlib.suppress(OSError, errors.StyletoolsError):
            self._tidy()
            # Each line in one write: those of runs at the same time do not mix.
            with open(self.path, "ab", buffering=0) as out:
                out.write(json.dumps(entry).encode() + b"\n")

    def _tidy(self) -> None:
        """Before the first line of a run is appended: end a line that was cut off, drop lines that others replaced."""
        if self._lines > 2 * len(self._made) + 100:
            with files.atomic(self.path) as out:
                for output, entry in self._made.items():
                    kept = {"output": output} | {name: value for name, value in entry.items() if value}
                    out.write(json.dumps(kept).encode() + b"\n")
        elif self._cut_off:
            with open(self.path, "ab", buffering=0) as out:
                out.write(b"\n")
        self._lines, self._cut_off = 0, False

    def _relative(self, output: str) -> str:
        return os.path.relpath(output, self.folder)
