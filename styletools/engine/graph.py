"""Restyling without torch: the ONNX graph of a model, compiled and run by OpenVINO on the CPU.

What it gives differs from `infer`, which is the reference, by at most one level of 255. Where the CPU computes bfloat16
in hardware, convolutions do for the frames of a film; what that changes depends on picture and style, and may be many
levels: so it is measured at a frame now and then, and done only where that one was off by one level at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from styletools import errors, files, methods, onnxfile, streams
from styletools.engine import edges, styles

if TYPE_CHECKING:
    import openvino

VERSION = "2"  # of what graphs say and take: another one is not read
COMPILED = "2"  # of how they are compiled
LARGE = 256 * 256  # pixels from which bfloat16 is worth what it loses, which is more the fewer there are
TRUSTED = 48  # frames that may follow upon one before bfloat16 is measured again
NEAR = 1.5  # levels of 255 that bfloat16 may change in the frame measured, but in FEW of all values: of those after it
FEW = 1e-5  # none changes by over 2
ALIKE = 16  # levels between two frames of a scene, on average over some pixels
SPARSE = 8  # pixels from one of these to the next
KEPT = 50, 500_000_000  # files, and bytes of them together, that the cache holds at most, but for what was used in the
RECENTLY = 3600  # seconds before
COLOR = ("", "luminance")  # the transfers of colour that are done here


class NotPossible(Exception):
    """Something that the torch-free path cannot do; the message says what."""


def obstacle(device: str, preserve_color: str) -> str:
    """Return why pictures cannot be restyled here: "" where they can be, as far as one can tell before trying."""
    if importlib.util.find_spec("openvino") is None:
        return "the Python package openvino is missing: pip install openvino"
    if device != "cpu" and (device != "auto" or os.path.exists("/dev/nvidiactl") or sys.platform == "darwin"):
        return "it runs on the CPU only" if device != "auto" else "there is a GPU"
    if preserve_color not in COLOR:
        return f"--preserve-color {preserve_color} takes torch"
    return ""


# ---- files -----------------------------------------------------------------------------------------------


def find(model: Path, digest: str) -> Path | None:
    """Return the graph of a model file: beside it under its name, else in the cache. None where there is none."""
    for path in (model.with_suffix(".onnx"), cached(digest)):
        with contextlib.suppress(errors.StyletoolsError):
            metadata = onnxfile.read_metadata(path)
            if (metadata.get("styletools_graph"), metadata.get("model_sha256")) == (VERSION, digest):
                if path == cached(digest):
                    _use(path)
                return path
    return None


def cached(digest: str) -> Path:
    """Return where the graph of a model is kept that has none beside it."""
    return files.cache_dir() / "graphs" / f"{digest[:32]}-{VERSION}.onnx"


def tidy() -> None:
    """Remove graphs from the cache that were not used for longest, until it holds no more than KEPT.

    Other processes may use them, and do the same, at the same time.
    """
    found = []
    for path in (files.cache_dir() / "graphs").glob("*.*"):
        with contextlib.suppress(OSError):  # another process was faster
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    count, room = KEPT
    for used, size, path in sorted(found, reverse=True):
        count, room = count - 1, room - size
        if (count < 0 or room < 0) and time.time() - used > RECENTLY:
            with contextlib.suppress(OSError):
                path.unlink()


def _use(path: Path) -> None:
    """Remember that a file of the cache was used now."""
    with contextlib.suppress(OSError):  # it may be on a disk that cannot be written
        os.utime(path)


# ---- running ---------------------------------------------------------------------------------------------


class Graph:
    """The graph of one model; its parts are compiled when they are first used, and kept compiled in the cache.

    `precise` computes in float32 throughout. Raises NotPossible without OpenVINO. One thread at a time may use it.
    """

    def __init__(self, path: Path, *, precise: bool = False):
        self._openvino = _import_openvino()
        self._core = self._openvino.Core()
        self.path, self.metadata = path, onnxfile.read_metadata(path)
        self.multiple = int(self.metadata["multiple"])
        self.shapes = {key: tuple(shape) for key, shape in json.loads(self.metadata["shapes"]).items()}
        self.half = not precise and "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._requests: dict[tuple, openvino.InferRequest] = {}
        self.adapts = True  # whether pictures that are like those before them become faster, and some values less exact
        self.restart()

    def restart(self) -> None:
        """Treat the next picture as the first one."""
        self._scene = _Scene()

    def encode(self, levels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the style record of a picture (H, W, 3), float32 in [0, 255]."""
        found = self._request("encode").infer({"image": np.ascontiguousarray(levels)[None]})
        return {key: np.array(found[f"style.{key}"]) for key in self.shapes}

    def paint(self, picture: np.ndarray, style: dict[str, np.ndarray], *, precise: bool = False) -> np.ndarray:
        """Return (H, W, 3) of [0, 255] restyled; sides are multiples of `multiple`. uint8 stays uint8, float32 so.

        The result holds until the next picture. `precise` computes this one in float32.
        """
        kind = "bytes" if picture.dtype == np.uint8 else "levels"

        def made(half: bool) -> np.ndarray:
            given = {"image": picture[None], **style}
            return self._request(kind, half).infer(given, share_inputs=True, share_outputs=True)["picture"][0]

        if not self.half or precise or not self.adapts:
            return made(False)
        if not self._scene.is_to_measure(picture, style):
            return made(self._scene.is_near)
        wide, narrow = made(False), made(True)
        self._scene.is_near = (np.abs(wide.astype(np.float32) - narrow) > NEAR).mean() < FEW
        return wide

    def _request(self, kind: str, half: bool = False) -> openvino.InferRequest:
        """Return what computes one part of the graph: `encode`, or `bytes` or `levels` to paint."""
        key = (kind, half)
        if key not in self._requests:
            self._requests[key] = self._compile(*key).create_infer_request()
        return self._requests[key]

    def _compile(self, kind: str, half: bool) -> openvino.CompiledModel:
        settings = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": _threads(), "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        with open(self.path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        version = self._openvino.__version__.partition("-")[0]
        words = [digest[:32], kind, *(["bf16"] if half else []), COMPILED, version]
        kept = files.cache_dir() / "graphs" / f"{'-'.join(words)}.blob"
        with contextlib.suppress(OSError, RuntimeError):  # not there, or not for this machine
            compiled = self._core.import_model(io.BytesIO(kept.read_bytes()), "CPU", settings)
            _use(kept)
            return compiled
        try:
            model = self._part(kind)
            if half:
                compiled = self._core.compile_model(_in_bfloat16(self._core, model), "CPU", settings)
            if not half or not _is_mixed(compiled):
                settings["INFERENCE_PRECISION_HINT"] = "f32"
                compiled = self._core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise errors.DoesNotFit(f"{self.path}: OpenVINO cannot run it: {str(error).splitlines()[-1]}") from error
        with contextlib.suppress(OSError, RuntimeError, errors.StyletoolsError), files.atomic(kept) as out:
            made = compiled.export_model()
            out.write(made if isinstance(made, bytes) else made.getvalue())  # bytes until 2025
        tidy()
        return compiled

    def _part(self, kind: str) -> openvino.Model:
        """Return one part of the graph, its pictures (1, H, W, 3) as in memory."""
        from openvino.preprocess import PrePostProcessor

        whole = self._core.read_model(self.path)
        inputs = {each.get_any_name(): each.get_node() for each in whole.inputs}
        wanted = [each for each in whole.outputs if (each.get_any_name() == "picture") != (kind == "encode")]
        model = self._openvino.Model(
            [each.get_node() for each in wanted],
            [node for name, node in inputs.items() if name == "image" or kind != "encode"],
        )
        change, planes, rows = PrePostProcessor(model), self._openvino.Layout("NCHW"), self._openvino.Layout("NHWC")
        change.input("image").model().set_layout(planes)
        change.input("image").tensor().set_layout(rows)
        if kind != "encode":
            change.output("picture").model().set_layout(planes)
            change.output("picture").tensor().set_layout(rows)
        if kind == "bytes":
            even = self._openvino.opset13.round
            change.input("image").tensor().set_element_type(self._openvino.Type.u8)
            change.output("picture").postprocess().custom(lambda output: even(output, "half_to_even").output(0))
            change.output("picture").tensor().set_element_type(self._openvino.Type.u8)
        made = change.build()
        _lay_alike(made)
        return made


def _import_openvino():
    """Import OpenVINO without its converters, which take longer than all the rest and are not needed."""
    converters = "openvino.tools.ovc"
    without = {} if "openvino" in sys.modules or converters in sys.modules else {converters: None}
    sys.modules.update(without)
    try:
        import openvino
    except ImportError as error:
        raise NotPossible(f"OpenVINO cannot be loaded: {error}") from error
    finally:
        for name in without:
            del sys.modules[name]
    return openvino


def _threads() -> int:
    """Return how many cores to use: OMP_NUM_THREADS, as torch does, else those that this process may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Scene:
    """Frames that are like one another, and in one style; whether bfloat16 is near enough for them."""

    def __init__(self):
        self.is_near = False
        self._sample, self._style, self._left = None, {}, 0

    def is_to_measure(self, picture: np.ndarray, style: dict[str, np.ndarray]) -> bool:
        """Take the next frame in; tell whether bfloat16 is to be measured on it."""
        sample, before = picture[::SPARSE, ::SPARSE].astype(np.float32), self._sample
        same = self._style.keys() == style.keys() and all(np.array_equal(self._style[key], style[key]) for key in style)
        self._sample, self._style = sample, style
        if not same or before is None or before.shape != sample.shape or np.abs(sample - before).mean() > ALIKE:
            self.is_near, self._left = False, 0
            return False  # pictures that have nothing in common would each have to be measured
        self._left -= 1
        if self._left >= 0:
            return False
        self._left = TRUSTED
        return True


def _lay_alike(model: openvino.Model) -> None:
    """Make a style, of which a picture is multiplied by a value a channel, lie in memory as pictures do.

    They come out of convolutions pixel by pixel, styles by channels; of a picture of any size it is the style's way
    that OpenVINO takes, and copying all of a picture to it takes twice the time of everything else.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("Add", "Subtract", "Multiply", "Divide"):
            continue
        given = node.inputs()
        styles = [each for each in given if each.get_partial_shape().is_static]
        if len(styles) != 1 or styles[0].get_source_output().get_node().get_type_name() == "Constant":
            continue
        shape, source = list(styles[0].get_shape()), styles[0].get_source_output()
        if len(shape) == 4 and shape[1] > 1 and shape[2:] == [1, 1]:
            same = opset13.constant(np.eye(shape[1], dtype=np.float32)[:, :, None, None])
            made = opset13.convolution(source, same, [1, 1], [0, 0], [0, 0], [1, 1])
            styles[0].replace_source_output(made.output(0))


def _in_bfloat16(core: openvino.Core, model: openvino.Model) -> openvino.Model:
    """Return a model whose convolutions, but the last one, may be computed in bfloat16, and nothing else.

    What comes out of them stays in float32: that is half of the error. Nodes can be told so in OpenVINO's own format.
    """
    import openvino
    from openvino import opset13

    kinds = ("Convolution", "ConvolutionBackpropData", "GroupConvolution")
    narrow = set()
    for node in [node for node in model.get_ordered_ops() if node.get_type_name() in kinds][:-1]:
        before = node.input(0).get_source_output().get_node()
        if node.get_output_partial_shape(0).is_static:  # of a style
            continue
        narrow.add(node.get_friendly_name())
        if before.get_type_name() == "Pad":  # half as much to copy
            narrow.add(before.get_friendly_name())
        # A step that is computed with the convolution and says that its result is to stay precise.
        readers = node.output(0).get_target_inputs()
        same = opset13.clamp(node.output(0), -3e38, 3e38)
        for place in readers:
            place.replace_source_output(same.output(0))
    with tempfile.TemporaryDirectory() as folder:
        written, weights = os.path.join(folder, "model.xml"), os.path.join(folder, "model.bin")
        openvino.serialize(model, written, weights)
        tree = ElementTree.parse(written)
        for layer in tree.iter("layer"):
            if layer.get("type") == "Pad":
                layer.set("version", "opset1")  # later ones are replaced by this one, which forgets what it was told
            if layer.get("type") not in ("Const", "Parameter", "Result") and layer.get("name") not in narrow:
                told = layer.find("rt_info")
                if told is None:
                    told = ElementTree.Element("rt_info")
                    layer.insert(0, told)
                ElementTree.SubElement(told, "attribute", name="precise", version="0")
        tree.write(written)
        with open(weights, "rb") as file:
            numbers = np.frombuffer(file.read(), np.uint8)
        return core.read_model(ElementTree.tostring(tree.getroot()), openvino.Tensor(numbers))


def _is_mixed(compiled: openvino.CompiledModel) -> bool:
    """Tell whether nothing but convolutions, and what copies for them, was compiled in 16 bits."""
    copies = ("Convolution", "Deconvolution", "Pad", "Reorder", "Convert")
    for node in compiled.get_runtime_model().get_ops():
        told = node.get_rt_info()
        if told["runtimePrecision"].astype(str) == "bf16" and told["layerType"].astype(str) not in copies:
            return False
    return True


# ---- pictures --------------------------------------------------------------------------------------------


def to_levels(colours: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) of uint8 or uint16 as float32 in [0, 255]."""
    return colours.astype(np.float32) if colours.dtype == np.uint8 else colours.astype(np.float32) / np.float32(257)


def resize(picture: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """Scale (H, W) or (H, W, C) to (height, width), antialiased; float32 comes back."""
    planes = picture.astype(np.float32)
    if planes.ndim == 2:
        return np.asarray(Image.fromarray(planes).resize(size[::-1], method))
    return np.dstack([resize(plane, size, method) for plane in np.moveaxis(planes, 2, 0)])


def scale(levels: np.ndarray, short: int | tuple[int, int] | None) -> np.ndarray:
    """Scale (H, W, 3) in [0, 255] as streams.scaled says, bicubic; what needs no scaling comes back as it is."""
    size = streams.scaled(levels.shape[:2], short)
    if size == levels.shape[:2]:
        return levels
    return resize(levels, size, Image.Resampling.BICUBIC).clip(0, 255)


def pad(picture: np.ndarray, multiple: int, minimum: int = edges.MINIMUM) -> np.ndarray:
    """Mirror (H, W, C) at its bottom and right up to the next multiple, and to at least `minimum`, to and fro."""
    for axis, side in enumerate(picture.shape[:2]):
        wanted = edges.padded(side, multiple, minimum)
        if wanted != side:
            picture = picture.take(edges.mirrored(0, wanted, side), axis)
    return np.ascontiguousarray(picture)


def to_plane(image: streams.Image) -> np.ndarray:
    """Return a picture as a mask (H, W) in [0, 1]: how white it is; what is transparent counts as black."""
    colours, opacity = streams.to_rgb(image)
    plane = to_levels(colours).mean(2) / 255
    return plane if opacity is None else plane * (opacity.astype(np.float32) / np.iinfo(opacity.dtype).max)


def keep_chroma(levels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the luminance of `levels` with the chroma of `reference`, as stats.keep_chroma does."""
    return reference + ((levels - reference) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


# ---- styles ----------------------------------------------------------------------------------------------


def encode(
    graph: Graph, mixture: Sequence[styles.Style], *, size: int | None, method_name: str, model_digest: str
) -> dict[str, np.ndarray]:
    """Return the style record of a weighted mixture of images, records and the model's own, as styles.encode does.

    size: of the short side of images. No style at all is the first of the model's own. Raises DoesNotFit for what was
    made for another model or lacks something, NotPossible for an image that is too small for the graph.
    """
    if not graph.shapes:
        return {}
    own = json.loads(graph.metadata["styles"])
    mixture = [style for style in mixture if style.weight] or [styles.Style(next(iter(own)), graph.path, 1.0, "own")]
    total = sum(style.weight for style in mixture)
    made = {key: np.zeros(shape, np.float32) for key, shape in graph.shapes.items()}
    for style in mixture:
        if style.kind == "own":
            record = {key: np.reshape(values, graph.shapes[key]) for key, values in own[style.name].items()}
        elif style.kind == "image":
            picture = streams.Image(streams.flat_rgb(streams.open_image(style.path)))
            levels = scale(to_levels(streams.to_rgb(picture)[0]), size)
            if min(levels.shape[:2]) < edges.MINIMUM:
                raise NotPossible(f"{style.name}: a style of less than {edges.MINIMUM} pixels")
            record = graph.encode(levels)
        else:
            found = styles.load_record(style)
            styles.check_metadata(style.name, found.meta, method_name, model_digest)
            record = found.tensors
        for key, shape in graph.shapes.items():
            array = np.asarray(record.get(key, ()), np.float32)
            if array.shape != shape:
                what = f"{key} of shape {array.shape}" if key in record else f"no {key}"
                raise errors.DoesNotFit(f"{style.name}: has {what}; {method_name} needs {shape}")
            made[key] += array * np.float32(style.weight / total)
    if not all(np.isfinite(array).all() for array in made.values()):
        raise NotPossible("the style holds values that are not numbers")
    return made


@dataclass
class Restyler:
    """A graph set up to restyle pictures: call it with a picture, as an infer.Restyler, whose fields it has."""

    graph: Graph
    style: dict[str, np.ndarray]
    alpha: float = 1.0
    size: int | tuple[int, int] | None = None
    preserve_color: str = ""
    mask: np.ndarray | None = None
    outside: dict[str, np.ndarray] | None = None
    limits: streams.Limits = streams.Limits()

    def __post_init__(self):
        if 0 < self.alpha < 1 and not self.graph.metadata["alpha"]:
            raise NotPossible(f"--alpha {self.alpha:g} takes torch with this method")

    def __call__(self, image: streams.Image) -> streams.Image:
        """Restyle one picture. Raises DataError for what is no picture, TryAgain when memory runs out."""
        if not isinstance(image, streams.Image):
            raise errors.DataError("holds tensors, not a picture")
        height, width = streams.scaled(image.array.shape[:2], self.size)
        if self.size is not None:
            self.limits.check_size(width, height)
        colours, opacity = streams.to_rgb(image)
        whole = colours.dtype == np.uint8 and (height, width) == colours.shape[:2]
        if not whole or self.alpha not in (0, 1) or self.preserve_color or self.mask is not None:
            colours = scale(to_levels(colours), self.size)
        if opacity is not None and (height, width) != opacity.shape:
            plane = resize(opacity, (height, width), Image.Resampling.BILINEAR)
            opacity = np.rint(plane).astype(opacity.dtype)
        kind = image.array.dtype
        try:
            array = self._inside_and_outside(colours, precise=kind == np.uint16 or height * width < LARGE)
        except RuntimeError as error:
            if "alloc" in str(error).lower():
                raise errors.TryAgain("out of memory") from error
            raise
        if array.dtype != kind:
            array = np.rint(array * np.float32(np.iinfo(kind).max / 255)).astype(kind)
        if opacity is not None:
            array = np.concatenate([array, opacity[..., None]], axis=2)
        return streams.Image(array, name=image.name, index=image.index, meta=dict(image.meta))

    def _inside_and_outside(self, colours: np.ndarray, precise: bool) -> np.ndarray:
        """Restyle (H, W, 3) of [0, 255] inside and outside of the mask."""
        result = self._restyle(colours, self.style, precise)
        if self.mask is None:
            return result
        mask = resize(self.mask, colours.shape[:2], Image.Resampling.BILINEAR)[..., None]
        other = colours if self.outside is None else self._restyle(colours, self.outside, precise)
        return other + (result - other) * mask

    def _restyle(self, colours: np.ndarray, style: dict[str, np.ndarray], precise: bool) -> np.ndarray:
        """Restyle (H, W, 3) of [0, 255], of any size: uint8, which stays uint8, or float32."""
        if self.alpha == 0:
            return colours
        height, width = colours.shape[:2]
        padded = pad(colours, self.graph.multiple)
        if self.alpha < 1 and self.graph.metadata["alpha"] == "style":
            # Towards the style of the photograph itself; what is lost even then comes back, as in infer.
            own = self.graph.encode(pad(padded, self.graph.multiple, methods.TEXTURE))
            mixed = {key: own[key] + (style[key] - own[key]) * np.float32(self.alpha) for key in style}
            result = self.graph.paint(padded, mixed, precise=precise).copy()
            result = result + (1 - self.alpha) * (padded - self.graph.paint(padded, own, precise=precise))
        else:
            result = self.graph.paint(padded, style, precise=precise)
            if self.alpha < 1:
                result = padded + (result - padded) * np.float32(self.alpha)
        result = result[:height, :width]
        if self.preserve_color:
            result = keep_chroma(result, colours)
        if result.dtype == np.uint8:
            return result.copy()  # the next picture comes to the same place
        if np.isnan(result).any():
            raise errors.DataError("no picture came of it but values that are not numbers: is the model damaged?")
        return result.clip(0, 255)
