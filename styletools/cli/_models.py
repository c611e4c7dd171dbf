"""What -m and --for name: a bundled model, a model file, a published checkpoint, or a method that needs no model.

No torch, but for published checkpoints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from styletools import errors, methods, modelfile


def resolve(model: str, settings: Sequence[str] = ()) -> tuple[str, Path | None, dict[str, Any] | None]:
    """Return the method, the model's file or folder (None: it needs none) and what `settings` change in its Config.

    Raises UsageError for settings (KEY=VALUE) that a trained model does not leave open or a method without the model it
    needs, MissingInput where there is nothing of that name.
    """
    known = methods.describe(model) if model in methods.names() else None
    if known and known.trains_on == "nothing" and not known.needs_model:
        return model, None, methods.parse_options(model, settings)
    if known and not Path(model).exists() and model not in modelfile.bundled():
        if known.needs_model:
            raise errors.UsageError(f"{model} needs a published model: give its file or folder")
        raise errors.UsageError(f"{model} needs a trained model: st-train {model} makes one; give its file")
    path = modelfile.find(model)
    name = modelfile.check(path)["method"]
    if not settings:
        return name, path, None
    open_ones = methods.describe(name).adjustable
    if {setting.partition("=")[0] for setting in settings} - set(open_ones):
        open_to = f", and of {name} {', '.join(open_ones)}" if open_ones else ""
        raise errors.UsageError(f"{model} is trained: -O sets options of methods that need no training{open_to}")
    return name, path, methods.parse_options(name, settings)
