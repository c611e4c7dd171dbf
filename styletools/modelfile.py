"""The model file: one .safetensors with the tensors `<net>.<key>` and, as metadata, all that applying needs.

Metadata (strings): `styletools` (format number), `kind` = model, `method`, `config` (JSON), `step`, `version`,
`created_by`, `trained_on`, `licence`. Reading the header costs no torch.

Other people's published checkpoints, one file or a folder of several, are models too, where a method knows their
tensors (`Method.detect`). Of a pickle nothing but tensors is read, and nothing in it is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styletools import __version__, backbones, errors, files, onnxfile

if TYPE_CHECKING:
    from torch import Tensor

    from styletools.methods import Method

FORMAT = "1"
STEPS = ".steps"  # behind the name of a matrix in eight bits: what a step of them is, for each row
MAX_HEADER = 100_000_000

# Published checkpoints: how their files end, the keys that state dicts are wrapped in, what their keys begin with.
MOST_REPEATS = 8  # times its size may the tensors of a file take: some are kept once and used twice, or compressed
SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".ckpt", ".pkl", ".model", ".bin")
WRAPPERS = ("state_dict", "model", "params_ema", "params", "generator", "g_ema", "netG")
PREFIXES = re.compile(r"^(module\.|_orig_mod\.|netG\.)+")
MOST_FILES, MOST_BYTES = 16, 1 << 31  # a folder with more of them is a collection, not one model


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
    except (ValueError, ArithmeticError, AttributeError, TypeError, LookupError, RecursionError) as error:
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

    A path has a slash, a suffix, or exists. Where a published model is made of several files, their folder is
    returned, whether it was named or one of them. Raises MissingInput with the names there are, DataError for
    what is neither a file nor a folder of published checkpoints.
    """
    path = Path(model)
    if path.is_file():
        return _whole(path)
    if path.is_dir() and checkpoints(path):
        return path
    looks_like_path = os.sep in model or path.suffix
    if not looks_like_path:
        named = files.zoo_dir() / f"{model}.safetensors"
        if named.is_file():
            return named
    if path.exists():
        what = "is a directory that holds no published checkpoints" if path.is_dir() else "is no regular file"
        raise errors.DataError(f"{model}: {what}, not a model file")
    known = f" (bundled models: {', '.join(bundled())})" if not looks_like_path else ""
    raise errors.MissingInput(f"{model}: no such model{known}")


def check(path: str | os.PathLike) -> dict[str, str]:
    """Return the header of a model file after checking that it is one that this version can load.

    That of a published checkpoint tells `method`, `config` and `origin`; to find them, it is read whole. Raises
    DoesNotFit for safetensors of another kind, made by a newer version or of a method that is not here, and for
    checkpoints that no method knows.
    """
    from styletools import methods

    whose = origin(path)
    if whose == "graph":
        size = os.path.getsize(path)
        return {"kind": "model", "method": "onnx", "config": json.dumps({"size": size}), "origin": "published graph",
                "layout": "ONNX"}  # fmt: skip
    if whose:
        return _foreign_header(path).metadata
    _check_start(path)
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


def load(model: str | os.PathLike, *, device="cpu", settings: Mapping[str, Any] | None = None) -> Method:
    """Return the method stored in a model file, ready to apply, on `device`.

    settings: values for options that the method calls ADJUSTABLE, in place of those in the file. Raises DoesNotFit when
    tensors and configuration do not belong together.
    """
    from styletools import methods

    path = find(os.fspath(model))
    name, config, tensors = read(path)
    config = {**config, **settings} if settings else config
    try:
        with backbones.looking_in(path) if path.is_dir() else contextlib.nullcontext():
            method = methods.create(name, config)
    except (errors.UsageError, errors.DoesNotFit, TypeError, ValueError, RuntimeError) as error:
        if errors.is_out_of_memory(error) or (settings and isinstance(error, errors.UsageError)):
            raise
        raise errors.DoesNotFit(f"{path}: {error}") from error
    load_tensors(method, tensors, path)
    method.nets.eval()
    _read_version.cache_clear()
    try:
        method.to(device)
    except errors.DoesNotFit as error:
        raise errors.DoesNotFit(f"{path}: {error}") from error
    return method


def read(path: str | os.PathLike) -> tuple[str, dict, dict[str, Tensor]]:
    """Return the method, its configuration and its tensors, by `<net>.<key>`, of a model file or published checkpoint.

    Raises as `check` does, and DataError for a damaged file.
    """
    if origin(path):
        return _recognize(path)[:3]
    from safetensors.torch import load_file

    header = check(path)
    try:
        return header["method"], json.loads(header.get("config", "{}")), _fine(load_file(path))
    except Exception as error:
        raise errors.DataError(f"{path}: damaged model file: {error}") from error


def _coarse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix in eight bits, and the step of each row: the largest number of a row is 127 of them.

    Steps are rounded to 12 bits, so that their products with the numbers are exact.
    """
    import torch

    fraction, exponent = torch.frexp(matrix.abs().amax(1) / 127)
    steps = torch.ldexp((fraction * 4096).round() / 4096, exponent)
    return (matrix / torch.where(steps == 0, 1, steps)[:, None]).round().to(torch.int8), steps


def _fine(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with those that were stored in eight bits in float32."""
    import torch

    for key in [key for key, value in tensors.items() if value.dtype == torch.int8 and key + STEPS in tensors]:
        tensors[key] = tensors[key].float() * tensors.pop(key + STEPS)[:, None]
    return tensors


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
    provenance: dict[str, str] | None = None,
) -> None:
    """Write a method as a model file, atomically. `half` stores floats in 16 bits (half the size) that these can hold.

    Matrices of the networks that the method calls `coarse` are then stored in 8 bits, with a step for each row.
    `tensors` replaces the networks' own values (the averaged weights of training), by `<net>.<key>`. `provenance` is
    further metadata, of a model that came from somewhere else.
    """
    import torch
    from safetensors.torch import save as to_bytes

    state = {}
    for name in method.keep or tuple(method.nets):
        for key, tensor in method.nets[name].state_dict().items():
            value = (tensors or {}).get(f"{name}.{key}", tensor).detach().cpu().contiguous()
            if half and value.dtype == torch.float32 and value.half().isfinite().all():
                if name in method.coarse and value.dim() == 2:
                    value, state[f"{name}.{key}{STEPS}"] = _coarse(value)
                else:
                    value = value.half()
            state[f"{name}.{key}"] = value
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
    } | (provenance or {})
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
    """Return the SHA-256 of a file, by which style records name the model they were made for.

    That of a folder is of the published checkpoints in it, one after another in the order of their names.
    """
    total = hashlib.sha256()
    try:
        for part in checkpoints(path) if os.path.isdir(path) else [path]:
            with open(part, "rb") as file:
                while block := file.read(1 << 20):
                    total.update(block)
    except OSError as error:
        raise errors.from_os_error(error, str(path)) from error
    return total.hexdigest()


# ---- published checkpoints -------------------------------------------------------------------------------


def origin(path: str | os.PathLike) -> str:
    """Return whose a model is, by its first bytes: "" for ours, and for what is no model at all.

    Else "folder", "pickle" (a zip archive of one, too), "graph" (ONNX), or "safetensors" where these do not say their
    kind.
    """
    if os.path.isdir(path):
        return "folder"
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        if head[8:] == b"{":
            header = next(read_headers(path))
            return "safetensors" if header.tensors and "kind" not in header.metadata else ""
        if head[:1] == b"\x08" and onnxfile.read_header(path):
            return "graph"
    except (OSError, errors.StyletoolsError):
        return ""
    return "pickle" if head.startswith((b"PK\3\4", b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")) else ""


def provenance(path: str | os.PathLike) -> dict[str, str]:
    """Return where a published model comes from, as metadata: the names of its files, their digest, the layout's name.

    Raises DoesNotFit for a model file of ours, and as `check` does.
    """
    if not origin(path):
        check(path)
        raise errors.DoesNotFit(f"{path}: is a model file of styletools already")
    names = [part.name for part in checkpoints(path)] if os.path.isdir(path) else [os.path.basename(path)]
    return {"origin": ", ".join(names), "origin_sha256": digest(path), "layout": check(path)["layout"]}


def checkpoints(folder: str | os.PathLike) -> list[Path]:
    """Return the files of published checkpoints that lie in a folder, by name."""
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError as error:
        raise errors.from_os_error(error, str(folder)) from error
    return [path for path in paths if origin(path)]


def describe(path: str | os.PathLike) -> Iterator[Header]:
    """Yield the header of each record of a file; one that tells method and config for a published checkpoint.

    Raises as `read_headers` does, and DoesNotFit for a pickle that no method knows.
    """
    if (whose := origin(path)) == "graph":
        yield _graph_header(path)
        return
    if whose:
        try:
            yield _foreign_header(path)
            return
        except errors.StyletoolsError:
            if whose != "safetensors":
                raise
    _check_start(path)
    yield from read_headers(path)


def _check_start(path: str | os.PathLike) -> None:
    """Raise DataError for a file that begins as no model does, and as reading does."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise errors.from_os_error(error, os.fspath(path)) from error
    if head[8:] != b"{":
        known = "not a safetensors file, a checkpoint of PyTorch or an ONNX graph"
        what = f"{known}, or damaged" if head else "is empty"
        raise errors.DataError(f"{path}: {what}")


def _graph_header(path: str | os.PathLike) -> Header:
    """Return what is to be said of an ONNX file: what it says itself, and what goes in and comes out."""
    found = onnxfile.read_header(path)

    def told(values: dict) -> str:
        return ", ".join(f"{name} {kind} {'x'.join(map(str, shape))}" for name, (kind, shape) in values.items())

    metadata = {"producer": found.producer} | found.metadata | {
        "kind": "graph", "opset": str(found.opset), "inputs": told(found.inputs), "outputs": told(found.outputs),
    }  # fmt: skip
    return Header(metadata, found.tensors)


def _foreign_header(path: str | os.PathLike) -> Header:
    """Return what is to be said of a published checkpoint. Raises as `_recognize` does."""
    name, config, tensors, layout = _recognize(path)
    metadata = {
        "kind": "model",
        "method": name,
        "config": json.dumps(config, sort_keys=True),
        "origin": "published checkpoint",
        "layout": layout,
    }
    return Header(metadata, {key: (_type(tensor), tuple(tensor.shape)) for key, tensor in tensors.items()})


def _type(tensor: Tensor) -> str:
    """Return the type of a tensor as safetensors call it."""
    kind, bits = re.fullmatch(r"torch\.([a-z]+)(\w*)", str(tensor.dtype)).groups()
    return {"float": "F", "bfloat": "BF", "int": "I", "uint": "U"}.get(kind, kind.upper()) + bits.upper()


def _recognize(path: str | os.PathLike) -> tuple[str, dict, dict[str, Tensor], str]:
    """Return the method, its config, its tensors, by `<net>.<key>`, and the layout of a published checkpoint or folder.

    Raises DoesNotFit where no method knows it, DataError where it cannot be read.
    """
    from styletools import methods

    if origin(path) == "graph":
        state = {"onnx": _bytes(path)}
    else:
        state = _read_folder(path) if os.path.isdir(path) else _read_checkpoint(path)
    name = methods.detect(state)
    if not name:
        if alone := _models_in(path, state) if os.path.isdir(path) else []:
            more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
            raise errors.DoesNotFit(f"{path}: holds {alone[0]}{more}, each a model by itself: name one")
        examples = ", ".join(list(state)[:3]) + (", ..." if len(state) > 3 else "")
        raise errors.DoesNotFit(f"{path}: tensors of no method that is known here: {examples}")
    try:
        return name, *methods.convert(name, state), methods.layout(name, state)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        if errors.is_out_of_memory(error):
            raise
        raise errors.DoesNotFit(f"{path}: not quite a model of {name}: {type(error).__name__}: {error}") from error


def _models_in(folder: str | os.PathLike, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those files in a folder, whose tensors are `state`, that are models by themselves."""
    from styletools import methods

    parts = {path.name: f"{_stem(path)}/" for path in checkpoints(folder)}
    return [name for name, begins in parts.items() if methods.detect(
        {key.removeprefix(begins): value for key, value in state.items() if key.startswith(begins)})]  # fmt: skip


def _whole(path: Path) -> Path:
    """Return the folder of a published checkpoint that is no model by itself but part of one there, else the path."""
    if origin(path) in ("", "graph"):
        return path
    from styletools import methods

    try:
        if methods.detect(_read_checkpoint(path)):
            return path
        together = _read_folder(path.parent)
    except errors.StyletoolsError:
        return path  # whoever uses it is told
    without = {key: tensor for key, tensor in together.items() if not key.startswith(f"{_stem(path)}/")}
    return path.parent if methods.detect(together) and not methods.detect(without) else path


def _read_folder(folder: str | os.PathLike) -> dict[str, Tensor]:
    """Return the tensors of all published checkpoints in a folder, by `<file without suffix>/<key>`.

    Those that cannot be read are left out, unless there are no others; the keys of a single one are its own.
    """
    paths = checkpoints(folder)
    size = sum(path.stat().st_size for path in paths)
    if len(paths) > MOST_FILES or (len(paths) > 1 and size > MOST_BYTES):
        what = f"{len(paths)} checkpoints of {size >> 20} MiB, more than the parts of one model: name one"
        raise errors.DoesNotFit(f"{folder}: holds {what}")
    if len(paths) == 1:
        return _read_checkpoint(paths[0])
    state, failed = {}, None
    for path in paths:
        try:
            state |= {f"{_stem(path)}/{key}": tensor for key, tensor in _read_checkpoint(path).items()}
        except errors.DataError as error:
            failed = failed or error
    if failed and not state:
        raise failed
    return state


def _bytes(path: str | os.PathLike) -> Tensor:
    """Return a file as it is: (size,) of uint8."""
    import torch

    try:
        return torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
    except OSError as error:
        raise errors.from_os_error(error, os.fspath(path)) from error


def _stem(path: Path) -> str:
    """Return the name of a checkpoint without its suffixes: decoder_iter_160000 of decoder_iter_160000.pth.tar."""
    while path.suffix in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the tensors of one published checkpoint, freed of WRAPPERS and PREFIXES.

    Nothing in it is run. Raises DataError for what is damaged or holds anything but plain data.
    """
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return _read_version(os.fspath(path), found.st_mtime_ns, found.st_size)
    return _read_version.__wrapped__(os.fspath(path), 0, 0)


@functools.lru_cache(maxsize=MOST_FILES)  # finding, checking and loading a model each read it; `load` empties this
def _read_version(path: str, changed: int, size: int) -> dict[str, Tensor]:
    """Do what `_read_checkpoint` says, with a file as it was at a time."""
    import torch

    try:
        if origin(path) == "safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            with warnings.catch_warnings(), open(path, "rb") as file:  # of the name torch would make a guess
                warnings.simplefilter("ignore")  # of how old its format is
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds, OSError for damage among them
        if errors.is_out_of_memory(error):
            raise
        what = "damaged, or holds more than tensors and plain data, and no more is read of a checkpoint"
        raise errors.DataError(f"{path}: {what}") from error
    for _ in range(4):  # what holds itself would be unwrapped for ever
        inside = content if isinstance(content, Mapping) else {}
        content = next((inside[key] for key in WRAPPERS if isinstance(inside.get(key), Mapping)), content)
    items = content.items() if isinstance(content, Mapping) else ()
    state = {
        PREFIXES.sub("", key, count=1): value
        for key, value in items
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
    if not state:
        raise errors.DataError(f"{path}: holds no named tensors")
    # A tensor may repeat few numbers: a network that has room for all that it claims would fill the memory.
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > MOST_REPEATS * size:
        raise errors.DataError(f"{path}: damaged: its tensors claim {claimed} bytes in a file of {size}")
    return state
