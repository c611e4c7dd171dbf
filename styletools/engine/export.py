"""Methods as ONNX graphs, by which other engines and programs run them without torch.

A graph has the inputs `image`, (1, 3, H, W) RGB in [0, 255], and the tensors of a style record by their names; its
outputs are `picture`, like `image`, and of methods that take any picture as style `style.<name>`, the style record of
`image`. H and W are free multiples of `multiple`, which its metadata tell. Opset 17. What is traced with torch.fx is
written down here: torch's own exporters ask for packages that nothing else needs.
"""

from __future__ import annotations

import inspect
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from styletools import __version__, errors, files, modelfile
from styletools.engine import graph
from styletools.methods import Method

OPSET = 17
SIDES = ((64, 96), (128, 80))  # of the pictures that are traced: what holds for one size only differs
_TYPES = {"float32": 1, "int8": 3, "int64": 7, "float16": 10}
_RESULTS = ("picture", "style.")


def to_onnx(method: Method, metadata: dict[str, str]) -> bytes:
    """Return the graphs of a method as one ONNX file, with metadata beside those that say how it is used.

    Raises DoesNotFit for a method that has none.
    """
    graphs = method.graphs()
    if graphs is None:
        raise errors.DoesNotFit("this method cannot be written as a graph")
    own = {name: {key: value.flatten().tolist() for key, value in record.items()}
           for name, record in graphs.styles.items()}  # fmt: skip
    writer = _Writer()
    image = writer.add_input("image", (1, 3, "height", "width"))
    with torch.no_grad():
        pictures = [torch.rand(1, 3, *sides) * 255 for sides in SIDES]
        record = next(iter(graphs.styles.values()), {})
        if graphs.encode:
            record = graphs.encode(pictures[0])
            found = writer.add(graphs.encode, [image], [[picture] for picture in pictures])
            for key, value in found.items():
                writer.add_output(f"style.{key}", value, tuple(record[key].shape))
        keys = list(inspect.signature(graphs.paint).parameters)[1:]
        style = [writer.add_input(key, tuple(record[key].shape)) for key in keys]
        examples = [[picture, *(record[key] for key in keys)] for picture in pictures]
        found = writer.add(lambda *given: {"picture": graphs.paint(*given)}, [image, *style], examples)
        writer.add_output("picture", found["picture"], (1, 3, "height", "width"))
    if not writer.finite:
        raise errors.DoesNotFit("the model holds values that are not numbers")
    shapes = {key: tuple(record[key].shape) for key in keys}
    told = {
        "styletools_graph": graph.VERSION, "multiple": str(method.multiple), "alpha": graphs.alpha,
        "styles": json.dumps(own), "shapes": json.dumps(shapes),
    }  # fmt: skip
    return writer.to_bytes(metadata | told)


def describe(path: Path, digest: str) -> dict[str, str]:
    """Return what the graph of a model file says of it."""
    header = modelfile.check(path)
    told = {key: header.get(key, "") for key in ("method", "config", "trained_on", "licence")}
    return told | {"model_sha256": digest, "producer": f"styletools {__version__}"}


def keep(path: Path, digest: str) -> Path:
    """Write the graph of a model file into the cache and return where. Raises graph.NotPossible where that fails."""
    target = graph.cached(digest)
    try:
        data = to_onnx(modelfile.load(path), describe(path, digest))
        with files.atomic(target) as out:
            out.write(data)
        graph.tidy()
    except errors.StyletoolsError as error:
        raise graph.NotPossible(str(error)) from error
    return target


class _Writer:
    """Collects nodes and numbers, and writes them in the format of ONNX."""

    def __init__(self):
        self._nodes: list[tuple[Sequence[str], Sequence[str], bytes]] = []  # what goes in, what comes out, the node
        self._numbers, self._inputs, self._outputs = {}, [], []
        self._padded: dict[str, tuple[str, list[int]]] = {}  # reflected at its edges: of what, and by how much
        self._doubled: dict[str, str] = {}  # both sides twice as long, each value four times: of what
        self._orders: dict[str, np.ndarray] = {}  # values whose channels are in another order than torch has them
        self._count = 0
        self.finite = True  # all numbers are numbers

    def add_input(self, name: str, shape: Sequence) -> str:
        self._inputs.append(_value(name, shape))
        return name

    def add_output(self, name: str, value: str, shape: Sequence) -> None:
        self._nodes.append(([value], [name], _node("Identity", [value], [name])))
        self._outputs.append(_value(name, shape))

    def add(self, function: Callable, inputs: Sequence[str], examples: Sequence[Sequence[Tensor]]) -> dict[str, str]:
        """Write what a function of tensors does to `inputs`; return its results, by name.

        Raises DoesNotFit where its steps depend on the size of the examples, or one has no counterpart.
        """
        traced, other = (make_fx(function)(*each) for each in examples)
        for node, twin in zip(traced.graph.nodes, other.graph.nodes):
            if node.op == "call_function":
                node.args = _of_any_size(node, twin)
        values: dict[Any, Any] = {}
        names = iter(inputs)
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(names)
            elif node.op == "get_attr":
                values[node] = getattr(traced, node.target).detach()
            elif node.op == "output":
                return {key: self._plain(values[value]) for key, value in node.args[0].items()}
            else:
                given = torch.fx.node.map_arg((node.args, node.kwargs), lambda each: values[each])
                values[node] = self._step(node, *given)
        raise AssertionError("a graph ends with its output")

    def _step(self, node, arguments: tuple, options: dict):
        name = getattr(node.target, "__name__", "").partition(".")[0]
        if name == "getitem":
            return arguments[0][arguments[1]]
        if all(not isinstance(each, str) for each in _flat(arguments)):  # of numbers alone: done here and now
            if name != "convolution":
                return node.target(*arguments, **options)
            arguments = (self._constant(arguments[0]), *arguments[1:])  # as numbers, its result would take more room
        if name == "native_batch_norm":
            options = {"channels": node.args[0].meta["tensor_meta"].shape[1]}
        elif name == "split":
            options = {"length": node.args[0].meta["tensor_meta"].shape[node.args[2]]}
        handler = getattr(self, f"_on_{name}", None)
        if handler is None:
            raise errors.DoesNotFit(f"cannot be written as a graph: it takes {node.target}")
        return handler(*arguments, **options)

    def _emit(self, kind: str, *inputs, outputs: int = 1, **attributes):
        given = ["" if each is None else self._constant(each) for each in inputs]
        made = [self._name() for _ in range(outputs)]
        self._nodes.append((given, made, _node(kind, given, made, **attributes)))
        return made[0] if outputs == 1 else made

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _constant(self, value) -> str:
        """Return the name of a value; that of numbers is made now.

        Sixteen bits are used where they lose nothing, and eight for matrices that were stored in so many.
        """
        if isinstance(value, str):
            return value
        array = value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        self.finite &= bool(np.isfinite(array).all())
        if array.dtype == np.float32 and array.size > 16:
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if (half.astype(np.float32) == array).all():
                return self._shared(half, wide=True)
            for axis in (0, 1) if array.ndim == 2 and min(array.shape) > 16 else ():  # rows, or taken as columns
                steps = np.abs(array).max(1 - axis, keepdims=True) / np.float32(127)
                numbers = np.rint(array / np.where(steps == 0, 1, steps))
                if (numbers * steps == array).all():
                    return self._emit("Mul", self._shared(numbers.astype(np.int8), wide=True), steps)
        return self._shared(array)

    def _shared(self, array: np.ndarray, wide: bool = False) -> str:
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._numbers:
            name = self._name()
            self._numbers[key] = (name, name)
            if wide:
                self._numbers[key] = (name, self._emit("Cast", name, to=1))
        return self._numbers[key][1]

    def _plain(self, value: str) -> str:
        """Return a value with its channels in torch's order."""
        if value in self._orders:
            return self._emit("Gather", value, np.argsort(self._orders[value]), axis=1)
        return value

    # ---- what ATen calls them ----

    def _binary(self, kind: str, a, b):
        order = next((self._orders[each] for each in (a, b) if isinstance(each, str) and each in self._orders), None)
        if order is not None and all(isinstance(each, str) or np.size(each) > 1 for each in (a, b)):
            a, b, order = *(self._plain(each) if isinstance(each, str) else each for each in (a, b)), None
        numbers = [each if isinstance(each, (str, Tensor)) else float(each) for each in (a, b)]
        made = self._emit(kind, *numbers)
        if order is not None:
            self._orders[made] = order
        return made

    def _on_add(self, a, b):
        return self._binary("Add", a, b)

    def _on_sub(self, a, b):
        return self._binary("Sub", a, b) if isinstance(b, str) else self._binary("Add", a, -b)

    def _on_mul(self, a, b):
        return self._binary("Mul", a, b)

    def _on_div(self, a, b):
        return self._binary("Div", a, b)

    def _on_rsub(self, a, b):
        return self._binary("Sub", b, a)

    def _on_addcmul(self, a, b, c):
        return self._binary("Add", self._binary("Mul", b, c), a)

    def _on_lerp(self, a, b, weight):
        if not isinstance(weight, str) and weight == 1:
            return b
        return self._binary("Add", a, self._binary("Mul", self._binary("Sub", b, a), weight))

    def _on_relu(self, x):
        return self._emit("Relu", self._plain(x))

    def _on_leaky_relu(self, x, slope=0.01):
        return self._emit("LeakyRelu", self._plain(x), alpha=float(slope))

    def _on_sqrt(self, x):
        return self._emit("Sqrt", self._plain(x))

    def _on_rsqrt(self, x):
        return self._emit("Pow", self._plain(x), -0.5)

    def _on_square(self, x):
        return self._binary("Mul", x, x)

    def _on_pow(self, x, exponent):
        return self._emit("Pow", self._plain(x), float(exponent))

    def _on_neg(self, x):
        return self._binary("Mul", x, -1.0)

    def _on_tanh(self, x):
        return self._emit("Tanh", self._plain(x))

    def _on_clamp(self, x, least=None, most=None):
        return self._emit("Clip", self._plain(x), *(None if each is None else float(each) for each in (least, most)))

    def _on_clamp_min(self, x, least):
        return self._on_clamp(x, least)

    def _on_ones_like(self, x, **options):
        return self._binary("Add", self._binary("Mul", x, 0.0), 1.0)

    def _on_split_with_sizes(self, x, sizes, dim=0):
        return self._emit("Split", self._plain(x), list(sizes), outputs=len(sizes), axis=dim)

    def _on_split(self, x, size, dim=0, length=0):
        return [self._on_slice(x, dim, start, start + size) for start in range(0, length, size)]

    def _on_mean(self, x, dims, keepdim=False):
        return self._emit("ReduceMean", self._plain(x), axes=list(dims), keepdims=int(keepdim))

    def _on_sum(self, x, dims, keepdim=False):
        return self._emit("ReduceSum", self._plain(x), list(dims), keepdims=int(keepdim))

    def _on_cat(self, parts, dim=0):
        return self._emit("Concat", *map(self._plain, parts), axis=dim)

    def _on_view(self, x, shape):
        if not any(shape):
            return x
        return self._emit("Reshape", self._plain(x), list(shape))

    def _on_unsqueeze(self, x, dim):
        return self._emit("Unsqueeze", self._plain(x), [dim])

    def _on_select(self, x, dim, index):
        return self._emit("Gather", self._plain(x), index, axis=dim)

    def _on_slice(self, x, dim=0, start=0, end=None, step=1):
        return self._emit("Slice", self._plain(x), [start or 0], [2**63 - 1 if end is None else end], [dim], [step])

    def _on_mm(self, a, b):
        return self._emit("MatMul", a, b)

    def _on_addmm(self, bias, a, b):
        return self._binary("Add", self._emit("MatMul", a, b), bias)

    def _on_max_pool2d_with_indices(self, x, kernel, stride=(), padding=(0, 0), dilation=(1, 1), ceil=False):
        pooled = self._emit("MaxPool", self._plain(x), kernel_shape=list(kernel), strides=list(stride or kernel),
                            pads=list(padding) * 2, dilations=list(dilation), ceil_mode=int(ceil))  # fmt: skip
        return pooled, None

    def _on_native_batch_norm(self, x, weight, bias, mean, variance, training, momentum, eps, channels):
        weight = torch.ones(channels) if weight is None else weight
        bias = torch.zeros(channels) if bias is None else bias
        x = self._plain(x)
        if training:  # of one picture: that is instance normalisation
            return self._emit("InstanceNormalization", x, weight, bias, epsilon=float(eps)), None, None
        factor = weight * torch.rsqrt(variance + eps)
        factor, shift = (value.view(-1, 1, 1) for value in (factor, bias - mean * factor))
        return self._binary("Add", self._binary("Mul", x, factor), shift), None, None

    def _on_upsample_nearest2d(self, x, size, *factors):
        if factors == (1, 1):
            return x
        scales, x = np.array([1, 1, *factors], np.float32), self._plain(x)
        made = self._emit("Resize", x, None, scales, mode="nearest", nearest_mode="floor",
                          coordinate_transformation_mode="asymmetric")  # fmt: skip
        if list(factors) == [2, 2]:
            self._doubled[made] = x
        return made

    def _on_upsample_bilinear2d(self, x, size, align, *factors):
        if align:
            raise errors.DoesNotFit("cannot be written as a graph: upsampling that aligns corners")
        return self._emit("Resize", self._plain(x), None, np.array([1, 1, *factors], np.float32), mode="linear",
                          coordinate_transformation_mode="half_pixel")  # fmt: skip

    def _pad(self, mode: str, x, around):
        left, right, top, bottom = around
        padded = self._emit("Pad", x, [0, 0, top, left, 0, 0, bottom, right], mode=mode)
        if x in self._orders:
            self._orders[padded] = self._orders[x]
        return padded

    def _on_reflection_pad2d(self, x, around):
        padded = self._pad("reflect", x, around)
        self._padded[padded] = (x, list(around))
        return padded

    def _on_replication_pad2d(self, x, around):
        return self._pad("edge", x, around)

    def _on_pixel_unshuffle(self, x, factor):
        x = self._plain(x)
        made = self._emit("SpaceToDepth", x, blocksize=factor)
        # ONNX puts the place in the block first, torch the colour: the convolution that follows is written so.
        self._orders[made] = np.arange(3 * factor**2).reshape(3, factor**2).T.ravel()
        return made

    def _on_pixel_shuffle(self, x, factor):
        return self._emit("DepthToSpace", self._plain(x), blocksize=factor, mode="CRD")

    def _on_convolution(self, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
        kind, more = "Conv", {}
        source, around = self._padded.get(x, ("", []))
        if transposed:
            kind, more = "ConvTranspose", {"output_padding": list(output_padding)}
            x = self._plain(x)
        elif (source in self._doubled and around == [1] * 4 and isinstance(weight, Tensor) and groups == 1
              and (weight.shape[2:], stride, padding, dilation) == ((3, 3), [1, 1], [0, 0], [1, 1])):  # fmt: skip
            # The same in four ninths of the multiplications: a value that is there four times is multiplied once.
            kind, x, weight = "ConvTranspose", self._pad("edge", self._doubled[source], around), _spread(weight)
            stride, padding = [2, 2], [3, 3]
        elif x in self._orders and isinstance(weight, Tensor) and groups == 1:
            weight = weight[:, torch.from_numpy(self._orders[x])]
        else:
            x = self._plain(x)
        return self._emit(kind, x, weight, *([] if bias is None else [bias]), strides=list(stride),
                          pads=list(padding) * 2, dilations=list(dilation), group=groups, **more)  # fmt: skip

    # ---- bytes ----

    def to_bytes(self, metadata: dict[str, str]) -> bytes:
        """Return the file: a ModelProto."""
        numbers = [
            b"".join(_number(1, side) for side in shape)
            + _number(2, _TYPES[kind]) + _field(8, name.encode()) + _field(9, data)
            for (kind, shape, data), (name, _) in self._numbers.items()
        ]  # fmt: skip
        needed = {name for _, made, _ in self._nodes if made[0].startswith(_RESULTS) for name in made}
        nodes = []
        for given, made, node in reversed(self._nodes):
            if needed.intersection(made):
                needed.update(given)
                nodes.insert(0, node)
        graph = _fields(1, nodes) + _field(2, b"styletools") + _fields(5, numbers)
        graph += _fields(11, self._inputs) + _fields(12, self._outputs)
        told = [_field(1, key.encode()) + _field(2, value.encode()) for key, value in sorted(metadata.items())]
        opset = _field(1, b"") + _number(2, OPSET)
        return _number(1, 8) + _field(2, b"styletools") + _field(7, graph) + _field(8, opset) + _fields(14, told)


def _spread(weight: Tensor) -> Tensor:
    """Return the weights (in, out, 4, 4) of the transposed convolution that doubles the sides and applies `weight`.

    weight: (out, in, 3, 3).
    """
    turned = F.pad(weight.flip(2, 3).flatten(0, 1)[:, None], (1, 1, 1, 1))
    return F.conv2d(turned, torch.ones(1, 1, 2, 2)).view(*weight.shape[:2], 4, 4).transpose(0, 1).contiguous()


def _of_any_size(node, twin) -> tuple:
    """Return the arguments of a step, given the same step of a picture of another size, as they are for all sizes."""
    name = getattr(node.target, "__name__", str(node.target))
    if str(node.target) != str(twin.target):
        raise errors.DoesNotFit("cannot be written as a graph: its steps depend on the size of the picture")
    if str(node.args) == str(twin.args):
        return node.args
    if name.startswith("view"):
        if tuple(node.args[1]) == tuple(node.args[0].meta["tensor_meta"].shape):
            return node.args[0], [0] * len(node.args[1])  # as it is
        shape = [a if a == b else -1 for a, b in zip(node.args[1], twin.args[1])]
        if shape.count(-1) == 1:
            return node.args[0], shape
    sizes = [each.args[0].meta["tensor_meta"].shape[2:] for each in (node, twin)] if name.startswith("upsample") else []
    if sizes and all(list(size) == list(each.args[1]) for size, each in zip(sizes, (node, twin))):
        return node.args[0], None, 1, 1
    if name.startswith("upsample") and len(node.args) > 3 and None not in node.args:
        return node.args[0], None, *node.args[2:]
    raise errors.DoesNotFit(f"cannot be written as a graph: {node.target} depends on the size of the picture")


def _flat(values):
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _fields(number: int, every: Sequence[bytes]) -> bytes:
    return b"".join(_field(number, data) for data in every)


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes) -> bytes:
    """Return a NodeProto."""
    made = _fields(1, [name.encode() for name in inputs]) + _fields(2, [name.encode() for name in outputs])
    made += _field(3, f"{kind}-{outputs[0]}".encode()) + _field(4, kind.encode())
    for name, value in attributes.items():
        start = _field(1, name.encode())
        if isinstance(value, str):
            made += _field(5, start + _field(4, value.encode()) + _number(20, 3))
        elif isinstance(value, float):
            made += _field(5, start + b"\x15" + struct.pack("<f", value) + _number(20, 1))
        elif isinstance(value, int):
            made += _field(5, start + _number(3, value) + _number(20, 2))
        else:
            made += _field(5, start + b"".join(_number(8, each) for each in value) + _number(20, 7))
    return made


def _value(name: str, shape: Sequence) -> bytes:
    """Return a ValueInfoProto of float32; sides that are words are free."""
    dims = [_field(2, side.encode()) if isinstance(side, str) else _number(1, side) for side in shape]
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, 1) + _field(2, _fields(1, dims))))
