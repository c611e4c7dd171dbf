"""Pages of HTML that hold all they show: no network, no server, opened from a disk like a picture."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image

from styletools import files, streams

_HERE = Path(__file__).parent


class Pictures:
    """The pictures of a page as JPEG, each once however often it is shown."""

    def __init__(self, side: int, quality: int):
        """side: longer sides are scaled down to so many pixels."""
        self.side, self.quality = side, quality
        self.embedded: list[dict] = []
        self.digests: list[str] = []
        self._numbers: dict[str, int] = {}

    def add(self, image: streams.Image) -> int:
        """Take a picture in, unless it is there; return its number. Alpha is laid over white, a profile is kept."""
        pixels = PIL.Image.fromarray(streams.to_8bit(streams.flat_rgb(image)))
        pixels.thumbnail((self.side, self.side), PIL.Image.Resampling.LANCZOS)
        small = streams.Image(np.asarray(pixels), meta={k: v for k, v in image.meta.items() if k == "icc"})
        out = io.BytesIO()
        with streams.writer(out, "jpeg", quality=self.quality) as writer:
            writer.write(small)
        digest = hashlib.sha256(out.getbuffer()).hexdigest()
        if digest not in self._numbers:
            self._numbers[digest] = len(self.embedded)
            data = base64.b64encode(out.getbuffer()).decode()
            self.embedded.append({"width": pixels.width, "height": pixels.height, "jpeg": data})
            self.digests.append(digest)
        return self._numbers[digest]


def write(path_or_file: str | os.PathLike | BinaryIO, template: str, data: dict) -> int:
    """Write the page that the template `<template>.html` makes of `data`; return its size in bytes.

    Nothing in `data` can become markup: it is embedded as JSON without `<`, and the page makes text of it.
    Raises as `files.atomic` does.
    """
    text = (_HERE / f"{template}.html").read_text(encoding="utf-8")
    text = text.replace("{{css}}", (_HERE / "page.css").read_text(encoding="utf-8"))
    before, _, after = text.partition("{{data}}")
    embedded = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = (before + embedded + after).encode()
    opened = contextlib.nullcontext(path_or_file) if hasattr(path_or_file, "write") else files.atomic(path_or_file)
    with opened as out:
        out.write(page)
    return len(page)
