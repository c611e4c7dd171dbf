"""onnx: a network that comes as an ONNX graph, picture in and picture out; runs a published model.

OpenVINO computes it, on the CPU, in float32. A graph says neither in which range it counts colours nor which sizes
it can do: both are found by what it makes of a small test picture. A graph of one size only is shown pictures scaled
down to fit it, and what it makes of them is scaled up again.
"""

import functools
import io
import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styletools import errors, log, onnxfile
from styletools.methods import Method
from styletools.nn import mirror

APPLIES_TO = "image"
TRAINS_ON = "nothing"
NEEDS_MODEL = True
LAYOUTS = ("ONNX",)
ADJUSTABLE = ("range", "multiple")

RANGES = {"255": (255.0, 0.0), "1": (1.0, 0.0), "-1": (2.0, -1.0)}  # a factor on [0, 1], and what is added then
PROBED = 64  # pixels a side of the test picture, and a few more
MULTIPLES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Config:
    size: Annotated[int, "bytes of the graph"] = 0
    range: Annotated[str, "colours go from 0 to 255 (255), 0 to 1 (1) or -1 to 1 (-1); empty: found out"] = ""
    multiple: Annotated[int, "what sides must be multiples of; 0: found out"] = 0


class File(nn.Module):
    """The bytes of a graph."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("bytes", torch.zeros(size, dtype=torch.uint8))


class ONNX(Method):
    """Runs somebody's graph. Without one, pictures stay as they are."""

    half = False

    def __init__(self, config: Config):
        if config.range and config.range not in RANGES:
            raise errors.UsageError(f"range={config.range}: {', '.join(RANGES)} expected")
        if config.multiple < 0 or config.size < 0:
            raise errors.UsageError("multiple must not be negative")
        self.config = config
        self.nets = nn.ModuleDict({"graph": File(config.size)})

    @functools.cached_property
    def _runner(self) -> "_Runner":
        return _Runner(self.nets["graph"].bytes.cpu().numpy().tobytes(), self.config.range, self.config.multiple)

    @property
    def multiple(self) -> int:
        return self._runner.multiple if self.config.size else 1

    def to(self, device):
        """Only the CPU computes it, whatever the device; what is wrong with the graph is found here."""
        assert not self.config.size or self._runner
        return super().to(device)

    def apply(self, image, *, style=None, alpha=1.0):
        """Run (N, 3, H, W) RGB in [0, 1] through the graph, one by one; alpha: the share of what comes out."""
        if not self.config.size:
            return image.clone()
        made = torch.cat([self._runner.paint(each[None].float().cpu()) for each in image])
        return torch.lerp(image, made.to(image.device), alpha).clamp(0, 1)

    @staticmethod
    def detect(state_dict):
        found = state_dict.get("onnx")
        return LAYOUTS[0] if len(state_dict) == 1 and found is not None and found.dtype == torch.uint8 else ""

    @staticmethod
    def convert(state_dict):
        return Config(size=state_dict["onnx"].numel()), {"graph.bytes": state_dict["onnx"]}


class _Runner:
    """A graph compiled, and what was found out about it."""

    def __init__(self, data: bytes, colours: str, multiple: int):
        self._load(data)
        self.multiple = 1
        if self._frame is None:
            self.multiple = multiple or self._find_multiple()
        self.scale, self.shift = RANGES[colours or self._find_range()]
        self._warned = False

    def _load(self, data: bytes) -> None:
        header = onnxfile.parse(io.BytesIO(data), len(data))
        if header.external:
            raise errors.DoesNotFit("its graph keeps numbers in other files")
        own = header.metadata.get("styletools_graph")
        self._more = _own_style(header) if own else {}
        others = [name for name in header.inputs if name not in self._more]
        if len(others) != 1:
            raise errors.DoesNotFit(f"its graph takes {len(others)} inputs ({', '.join(others)}), not one picture")
        self._name = others[0]
        kind, shape = header.inputs[self._name]
        self._own_range = "255" if own else ""
        self._rows = len(shape) == 4 and shape[3] == 3 and shape[1] != 3  # pictures as rows of pixels
        sides = (shape[1:3] if self._rows else shape[2:]) if len(shape) == 4 else ()
        channels = shape[-1] if self._rows else shape[1] if len(shape) == 4 else 0
        if kind not in ("F32", "F16") or len(shape) != 4 or channels not in (3, "?") and isinstance(channels, int):
            told = "x".join(map(str, shape)) or "nothing"
            raise errors.DoesNotFit(f"its graph takes {told} of {kind}, not pictures of 1x3xHxW")
        if isinstance(shape[0], int) and shape[0] != 1:
            raise errors.DoesNotFit(f"its graph takes {shape[0]} pictures at a time, not one")
        self._kind = np.float16 if kind == "F16" else np.float32
        fixed = [isinstance(side, int) for side in sides]
        if any(fixed) and not all(fixed):
            raise errors.DoesNotFit(f"its graph takes pictures of {sides[1]}x{sides[0]}: one side is free, one is not")
        self._frame = tuple(sides) if all(fixed) else None
        self._compile(data, own)

    def _compile(self, data: bytes, own: str | None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise errors.Unavailable(f"OpenVINO cannot be loaded: {error}: pip install openvino") from error
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
        try:
            core = openvino.Core()
            model = core.read_model(data)
            names = [name for output in model.outputs for name in output.get_names()]
            self._output = "picture" if own and "picture" in names else None
            if self._output:
                outputs = [each.get_node() for each in model.outputs if "picture" in each.get_names()]
                model = openvino.Model(outputs, model.get_parameters())
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise _not_run(error) from error

    def _run(self, picture: np.ndarray) -> np.ndarray:
        """Return what the graph makes of (1, 3, H, W) of its own range, in float32."""
        given = picture.transpose(0, 2, 3, 1) if self._rows else picture
        try:
            found = self._request.infer({self._name: np.ascontiguousarray(given, self._kind), **self._more})
        except RuntimeError as error:
            raise _not_run(error) from error
        made = np.asarray(next(iter(found.values())), np.float32)
        if made.ndim == 4 and made.shape[3] == 3 and made.shape[1] != 3:
            made = made.transpose(0, 3, 1, 2)
        return made

    def _find_multiple(self) -> int:
        """Return the least multiple at which what comes out is as large as what went in."""
        refused = None
        for multiple in MULTIPLES:
            picture = _test_picture(PROBED + multiple, PROBED + multiple)
            try:
                if self._run(picture).shape == picture.shape:
                    return multiple
            except errors.DoesNotFit as error:
                refused = error
        raise refused or errors.DoesNotFit("its graph gives pictures of another size or depth than it takes")

    def _find_range(self) -> str:
        """Return the range of colours that the graph gives for a test picture: that which it takes, one may hope."""
        if self._own_range:
            return self._own_range
        sides = self._frame or (PROBED, PROBED)
        made = self._run(_test_picture(*sides))
        if made.shape != (1, 3, *sides):
            raise errors.DoesNotFit("its graph gives pictures of another size or depth than it takes")
        found = "255" if np.abs(made).max() > 4 else "-1" if made.min() < -0.3 else "1"
        log.info(f"the graph seems to count colours as range={found} says: -O range=... if not")
        return found

    def paint(self, image: Tensor) -> Tensor:
        """Return what comes of (1, 3, H, W) in [0, 1], of the same size."""
        height, width = image.shape[-2:]
        inner = image
        if self._frame:
            share = min(1.0, *(frame / side for frame, side in zip(self._frame, (height, width))))
            if share < 1:
                self._warn()
                size = [max(round(side * share), 1) for side in (height, width)]
                inner = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        small = inner.shape[-2:]
        if self._frame:
            inner = mirror.extended(inner, self._frame)
        made = torch.from_numpy(self._run(inner.numpy() * self.scale + self.shift).copy())
        if made.shape != inner.shape:
            raise errors.DoesNotFit("its graph gives pictures of another size or depth than it takes")
        made = ((made - self.shift) / self.scale).clamp(0, 1)[..., : small[0], : small[1]]
        if small != image.shape[-2:]:
            made = F.interpolate(made, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
        return made

    def _warn(self) -> None:
        if not self._warned:
            height, width = self._frame
            log.warning(f"the graph takes {width}x{height} pixels: larger pictures are scaled down to that and back")
            self._warned = True


def _own_style(header: onnxfile.Header) -> dict[str, np.ndarray]:
    """Return the first style that a graph written by styletools holds, by the names of its inputs."""
    held = json.loads(header.metadata.get("styles", "{}"))
    record = next(iter(held.values()), {})
    shapes = {name: shape for name, (_, shape) in header.inputs.items() if name != "image"}
    if set(record) != set(shapes):
        raise errors.DoesNotFit("its graph takes a style, too: name the model file that it was made from")
    return {name: np.reshape(np.asarray(record[name], np.float32), shape) for name, shape in shapes.items()}


def _not_run(error: RuntimeError) -> errors.StyletoolsError:
    """Return the error of a graph that OpenVINO refuses, whose many lines have the reason at the end, or in a list."""
    if "bad_alloc" in str(error):
        return errors.TryAgain("out of memory")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    listed = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    return errors.DoesNotFit(f"OpenVINO cannot run its graph: {(listed or lines)[-1]}")


def _test_picture(height: int, width: int) -> np.ndarray:
    """Return a picture (1, 3, H, W) in [0, 1] of soft colours, the same at each call."""
    coarse = np.random.default_rng(0).random((1, 3, 5, 5), np.float32)
    return F.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear").numpy()
