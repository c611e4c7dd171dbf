"""The model file: one .safetensors with the tensors `<net>.<key>` and, as metadata, all that applying needs.

Metadata (strings): `styletools` (format number), `kind` = model, `method`, `config` (JSON), `step`, `version`,
`created_by`, `trained_on`, `licence`. Reading the header costs no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from styletools import __version__, errors, files

if TYPE_CHECKING:
    from styletools.methods import Method

FORMAT = "1"
MAX_HEADER = 100_000_000


def read_header(path: str | os.PathLike) -> dict[str, str]:
    """Return the metadata of a .safetensors file, without torch or numpy.

    Raises MissingInput, NotPermitted or InputOutputError when it cannot be read, DataError when it is no
    safetensors file.
    """
    return next(read_headers(path)).metadata


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands before the numbers of a record: its metadata, and {tensor: (type, shape)}."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_headers(path: str | os.PathLike) -> Iterator[Header]:
    """Yield the header of each record of a .safetensors file (they may follow one another), without the numbers.

    Raises as `read_header` does, and DataError where the file is cut off.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while True:
                start = file.read(8)
                length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
                if length > MAX_HEADER:
                    raise errors.DataError(f"{path}: not a safetensors file")
                header = json.loads(file.read(length))
                metadata = {str(key): str(value) for key, value in (header.pop("__metadata__", None) or {}).items()}
                tensors = {name: (str(of["dtype"]), tuple(map(int, of["shape"]))) for name, of in header.items()}
                extents = [int(of["data_offsets"][1]) for of in header.values()]
                # A negative extent would lead back to where we have been.
                if any(number < 0 for number in [*extents, *(side for _, shape in tensors.values() for side in shape)]):
                    raise ValueError("a size below 0")
                yield Header(metadata, tensors)
                end = file.tell() + max(extents, default=0)
                if end > size:
                    raise errors.DataError(f"{path}: is cut off: {size} of {end} bytes")
                if end == size:
                    return
                file.seek(end)
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise errors.DataError(f"{path}: not a safetensors file") from error


def bundled() -> dict[str, Path]:
    """Return the bundled models: {name: file}."""
    found = {}
    for path in sorted(files.zoo_dir().glob("*.safetensors")):
        if read_header(path).get("kind") == "model":
            found[path.stem] = path
    return found


def find(model: str) -> Path:
    """Return the file of a model given by path or by the name of a bundled one.

    A path has a slash, a suffix, or exists. Raises MissingInput with the names there are.
    """
    path = Path(model)
    if path.is_file():
        return path
    if path.exists():
        what = "is a directory" if path.is_dir() else "is no regular file"
        raise errors.DataError(f"{model}: {what}, not a model file")
    looks_like_path = os.sep in model or path.suffix
    if not looks_like_path:
        path = files.zoo_dir() / f"{model}.safetensors"
        if path.is_file():
            return path
    known = f" (bundled models: {', '.join(bundled())})" if not looks_like_path else ""
    raise errors.MissingInput(f"{model}: no such model{known}")


def check(path: str | os.PathLike) -> dict[str, str]:
    """Return the header of a model file after checking that it is one that this version can load.

    Raises DoesNotFit for safetensors of another kind, made by a newer version or of a method that is not here.
    """
    from styletools import methods

    header = read_header(path)
    if header.get("kind") != "model":
        kind = header.get("kind")
        raise errors.DoesNotFit(f"{path}: not a model" + (f" but a record of kind {kind!r}" if kind else ""))
    if header.get("styletools") != FORMAT:
        raise errors.DoesNotFit(f"{path}: model format {header.get('styletools')}, this version reads {FORMAT}")
    try:
        methods.describe(header.get("method", ""))
    except errors.UsageError as error:
        raise errors.DoesNotFit(f"{path}: {error}") from error
    return header


def load(model: str | os.PathLike, *, device="cpu") -> Method:
    """Return the method stored in a model file, ready to apply, on `device`.

    Raises DoesNotFit when tensors and configuration do not belong together.
    """
    from safetensors.torch import load_file

    from styletools import methods

    path = find(os.fspath(model))
    header = check(path)
    try:
        config = json.loads(header.get("config", "{}"))
        tensors = load_file(path)
    except Exception as error:
        raise errors.DataError(f"{path}: damaged model file: {error}") from error
    try:
        method = methods.create(header["method"], config)
    except (errors.UsageError, errors.DoesNotFit, TypeError, ValueError, RuntimeError) as error:
        if errors.is_out_of_memory(error):
            raise
        raise errors.DoesNotFit(f"{path}: {error}") from error
    load_tensors(method, tensors, path)
    method.nets.eval()
    method.to(device)
    return method


def load_tensors(method: Method, tensors: dict, path="") -> None:
    """Put tensors named `<net>.<key>` into a method's networks; those that only training needs may be missing."""
    for name in method.keep or tuple(method.nets):
        own = {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        net = method.nets[name]
        expected = net.state_dict()
        wrong = [key for key, tensor in expected.items() if key not in own or own[key].shape != tensor.shape]
        if wrong or len(own) != len(expected):
            example = wrong[0] if wrong else next(key for key in own if key not in expected)
            raise errors.DoesNotFit(f"{path}: its tensors do not fit its configuration ({name}.{example})")
        net.load_state_dict({key: tensor.to(expected[key].dtype) for key, tensor in own.items()})


def save(
    path: str | os.PathLike,
    method_name: str,
    method: Method,
    *,
    step: int = 0,
    trained_on: str = "",
    licence: str = "",
    half: bool = False,
    created_by: str = "",
    tensors: dict | None = None,
) -> None:
    """Write a method as a model file, atomically. `half` stores floats in 16 bits (half the size).

    `tensors` replaces the networks' own values (the averaged weights of training), by `<net>.<key>`.
    """
    import torch
    from safetensors.torch import save as to_bytes

    state = {}
    for name in method.keep or tuple(method.nets):
        for key, tensor in method.nets[name].state_dict().items():
            value = (tensors or {}).get(f"{name}.{key}", tensor).detach().cpu().contiguous()
            state[f"{name}.{key}"] = value.half() if half and value.dtype == torch.float32 else value
    metadata = {
        "styletools": FORMAT,
        "kind": "model",
        "method": method_name,
        "config": json.dumps(dataclasses.asdict(method.config), sort_keys=True),
        "step": str(step),
        "version": __version__,
        "created_by": created_by,
        "trained_on": trained_on,
        "licence": licence,
    }
    # File names in the command may be any bytes; what is no character in them becomes a question mark.
    metadata = {key: value.encode(errors="replace").decode() for key, value in metadata.items()}
    with files.atomic(path, sync=True) as out:
        out.write(_in_order(to_bytes(state, metadata)))


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its header sorted: the library's order differs from run to run."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def digest(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, by which style records name the model they were made for."""
    total = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    return total.hexdigest()
