"""What the results in a folder were made from, so that only what is out of date is made again.

Standard library only. The manifest is a file of JSON lines in the output folder, one line appended when a result
is in its place: it survives a kill at any moment, and a line that was cut off is passed over.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from styletools import files

NAME = ".styletools.jsonl"


class Manifest:
    """The results below one folder. `recipe`: all that made them but the input (model, style, parameters)."""

    def __init__(self, folder: str | os.PathLike, recipe: dict):
        self.folder, self.path = Path(folder), Path(folder) / NAME
        self.recipe = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        self._made: dict[str, str] = {}
        with contextlib.suppress(OSError), open(self.path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    self._made[entry["output"]] = entry["key"]

    def _key(self, source: str) -> str:
        """Return what names an input's content and the recipe: a result is current while this stays the same."""
        found = os.stat(source)
        return f"{self.recipe}:{found.st_size}:{found.st_mtime_ns}"

    def is_current(self, source: str, output: str) -> bool:
        """Tell whether `output` was made from `source` as it is now, by this recipe, and has not been touched since."""
        try:
            return self._made.get(self._relative(output)) == self._key(source) and files.up_to_date(output, ())
        except OSError:
            return False

    def note(self, source: str, output: str) -> None:
        """Remember that `output` has just been made from `source`. A folder that takes no notes is no error."""
        with contextlib.suppress(OSError):
            line = json.dumps({"output": self._relative(output), "key": self._key(source)}) + "\n"
            # One write of less than a page: lines of concurrent runs do not mix.
            with open(self.path, "ab", buffering=0) as out:
                out.write(line.encode())

    def _relative(self, output: str) -> str:
        return os.path.relpath(output, self.folder)
