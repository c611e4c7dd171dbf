"""What -m and --for name: a bundled model, a model file, or a method that needs no training. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from styletools import errors, methods, modelfile


def resolve(model: str, settings: Sequence[str] = ()) -> tuple[str, Path | None, dict[str, Any] | None]:
    """Return the method, the model file (None: it needs none) and what `settings` (KEY=VALUE) change in its Config.

    Raises UsageError for settings of a trained model or a method that is still to be trained, MissingInput where
    there is nothing of that name.
    """
    known = model in methods.names()
    if known and methods.describe(model).trains_on == "nothing":
        return model, None, methods.parse_options(model, settings)
    if known and not Path(model).is_file() and model not in modelfile.bundled():
        raise errors.UsageError(f"{model} needs a trained model: st-train {model} makes one; give its file")
    path = modelfile.find(model)
    name = modelfile.check(path)["method"]
    if settings:
        raise errors.UsageError(f"{model} is trained: -O sets options of methods that need no training")
    return name, path, None
