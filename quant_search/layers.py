"""The layers of an ONNX graph that hold weights, and which of them feed one another.

Quantization works layer by layer; `Layer` says where each keeps its weight and bias and along which axis its output
channels lie.  A `Pair` is what cross-layer equalization needs (arXiv:1906.04721, section 4.1): between its two layers
stands nothing but operators f with f(s x) = s f(x) for every s > 0, so that scales of channels move through.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from latency.runtimes.onnx_runtime import tensors_of

# f(s x) = s f(x) for s > 0, value by value or within a channel; a Clip only as long as it cuts at 0 alone.
_BY_VALUE = ("Relu", "LeakyRelu", "Identity", "Dropout")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")
_RESHAPES = ("Flatten", "Reshape", "Squeeze", "ReduceMean")


@dataclass(frozen=True)
class Layer:
    """A node that multiplies by a constant weight.

    Args:
        name: the node's.
        op_type: Conv, Gemm or MatMul.
        weight: the initializer's name; of shape (out, in / groups, *kernel) for Conv, (in, out) for MatMul, and either
            way round for Gemm.
        bias: the initializer's name, "" without; that of a MatMul is added by the node after it.
        out_axis: the axis of the weight along which output channels lie.
        shape: the weight's.
        strides, pads, dilations: of a Conv by axis, pads as (begins, ends); () of others.
        shared: whether another node reads the weight or the bias, too.
    """

    name: str
    op_type: str
    input: str
    output: str
    weight: str
    bias: str
    out_axis: int
    shape: tuple[int, ...]
    groups: int = 1
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    shared: bool = False

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.shape[self.out_axis]

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.shape[1 - self.out_axis] * self.groups

    @property
    def depthwise(self) -> bool:
        """Whether every channel is filtered on its own."""
        return 1 < self.groups == self.in_channels

    def by_channel(self, values: np.ndarray) -> np.ndarray:
        """`values` (out channels,) shaped so that they multiply the weight."""
        return values.reshape([-1 if axis == self.out_axis else 1 for axis in range(len(self.shape))])

    def by_input(self, values: np.ndarray) -> np.ndarray:
        """`values` (in channels,) shaped so that they multiply the weight: (out, in / groups, 1, ...) for Conv."""
        if self.op_type != "Conv":
            return values.reshape([-1 if axis != self.out_axis else 1 for axis in range(2)])
        grouped = np.repeat(values.reshape(self.groups, -1), self.out_channels // self.groups, axis=0)
        return grouped.reshape(*grouped.shape, *[1] * (len(self.shape) - 2))

    def summed(self, products: np.ndarray) -> np.ndarray:
        """Sums (out channels,) over all other axes of `products`, which have the shape of the weight."""
        return products.sum(tuple(axis for axis in range(len(self.shape)) if axis != self.out_axis))


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads what the first makes.

    Args:
        through: names of the nodes between them, in order.
        clips: those of them that cut at 0 and above, too: scales move through one only where it never cuts above.
        repeats: inputs of the second for each output channel of the first, which a Flatten lays one after the other.
    """

    first: Layer
    second: Layer
    through: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    repeats: int = 1


def values_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The floating-point initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}


def scalars_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The constants of one element by name, whether initializers or made by nodes."""
    made = {
        node.output[0]: a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute
        if a.name == "value"
    }  # fmt: skip
    found = {t.name: t for t in model.graph.initializer} | made
    return {name: numpy_helper.to_array(t) for name, t in found.items() if math.prod(t.dims) == 1}


def with_values(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of `model` in which the named initializers have other values.

    Raises:
        ValueError: a name that is no initializer, or another shape.
    """
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for name, value in values.items():
        if shapes.get(name) != value.shape:
            raise ValueError(f"initializer {name!r} has the shape {shapes.get(name)}, got values of {value.shape}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name], np.float32), tensor.name))
    return result


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """The layers of a model whose weights are float32 initializers, in the order of the graph.

    Raises:
        ValueError: two nodes of one name, or a layer without one.
    """
    finder = _Finder(model)
    found = tuple(layer for node in model.graph.node if (layer := finder.layer(node)) is not None)
    for name, times in Counter(layer.name for layer in found).items():
        if times > 1 or not name:
            raise ValueError(f"{times} layers are called {name!r}: name every node (`ptq.intake.prepared` does)")
    return found


def layers_of_codes(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """The layers of a QDQ model whose weights are stored as codes; `weight` and `bias` name the codes.

    Raises:
        ValueError: as `layers`.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    shapes = {t.name: t.dims for t in model.graph.initializer}
    shapes |= {
        n.output[0]: shapes[n.input[0]] for n in model.graph.node if n.op_type == "Cast" and n.input[0] in shapes
    }
    codes = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes
    }
    for name, source in codes.items():  # shapes alone: values of another type, by the name that layers read
        plain.graph.initializer.append(TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shapes[source]))
    found = layers(plain)
    return tuple(
        replace(layer, weight=codes[layer.weight], bias=codes.get(layer.bias, layer.bias))
        for layer in found
        if layer.weight in codes
    )


def layers_of(model: onnx.ModelProto, nodes: Collection[str]) -> tuple[Layer, ...]:
    """Those of `layers` whose nodes are named.

    Raises:
        ValueError: as `layers`.
    """
    wanted = set(nodes)
    return tuple(layer for layer in layers(model) if layer.name in wanted)


class _Finder:
    """Looks for layers among the nodes of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._shapes = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._ends = {value.name for value in graph.output}

    def layer(self, node: NodeProto) -> Layer | None:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in self._shapes:
            return None
        shape = self._shapes[node.input[1]]
        settings = attributes_of(node)
        if node.op_type != "Conv" and (len(shape) != 2 or node.input[0] in self._shapes or settings.get("transA")):
            return None
        bias = self._bias(node)
        own = [node.input[1], *([bias] if bias else [])]
        layer = Layer(
            node.name, node.op_type, node.input[0], node.output[0], node.input[1], bias,
            out_axis=0 if node.op_type == "Conv" or settings.get("transB") else 1,
            shape=shape,
            shared=any(self._uses[name] > 1 or name in self._ends for name in own),
        )  # fmt: skip
        return layer if node.op_type != "Conv" else _with_window(layer, settings)

    def _bias(self, node: NodeProto) -> str:
        if node.op_type == "MatMul":
            added = self.added(node.output[0])
            return next(name for name in added.input if name != node.output[0]) if added else ""
        return node.input[2] if len(node.input) > 2 and node.input[2] in self._shapes else ""

    def added(self, output: str) -> NodeProto | None:
        """The node that adds a constant for each channel to a product, and is all that reads it."""
        after = self._readers.get(output, [])
        if len(after) != 1 or after[0].op_type != "Add" or output in self._ends:
            return None
        return after[0] if any(len(self._shapes.get(name, ())) == 1 for name in after[0].input) else None

    def only_reader(self, tensor: str) -> NodeProto | None:
        """The node that alone reads a tensor, once."""
        readers = self._readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self._ends else None


def _with_window(layer: Layer, settings: Mapping[str, Any]) -> Layer:
    axes = len(layer.shape) - 2
    if settings.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ValueError(f"layer {layer.name!r} pads by {settings['auto_pad']!r}: use `ptq.intake.prepared` first")
    return replace(
        layer,
        groups=settings.get("group", 1),
        strides=tuple(settings.get("strides", (1,) * axes)),
        pads=tuple(settings.get("pads", (0,) * 2 * axes)),
        dilations=tuple(settings.get("dilations", (1,) * axes)),
    )


def layer_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Layer name to the MACs of one image; runs the model once on a blank one.

    Raises:
        ValueError: a model that does not run at batch 1.
    """
    shapes = tensors_of(model)
    return {layer.name: math.prod(shapes[layer.output][0]) * _inner(layer) for layer in layers(model)}


def _inner(layer: Layer) -> int:
    return math.prod(layer.shape) // layer.out_channels


def pairs(model: onnx.ModelProto) -> tuple[Pair, ...]:
    """The pairs of layers through which scales of channels move; runs the model once on a blank image for shapes.

    Layers that share a weight or a bias are in none.

    Raises:
        ValueError: a model that does not run at batch 1.
    """
    finder, shapes = _Finder(model), {name: shape for name, (shape, _) in tensors_of(model).items()}
    by_name = {layer.name: layer for layer in layers(model)}
    limits = scalars_of(model)
    walks = (_walk(layer, finder, shapes, by_name, limits) for layer in by_name.values() if not layer.shared)
    return tuple(pair for pair in walks if pair is not None)


def _walk(
    first: Layer,
    finder: _Finder,
    shapes: Mapping[str, tuple[int, ...]],
    by_name: Mapping[str, Layer],
    limits: Mapping[str, np.ndarray],
) -> Pair | None:
    """The pair that begins with `first`: on from its output, while one node alone reads and moves scales through."""
    tensor = first.output
    through: list[str] = []
    clips: list[str] = []
    if first.op_type == "MatMul" and (added := finder.added(tensor)):
        tensor = added.output[0]
    axis = 1 if first.op_type == "Conv" else len(shapes[tensor]) - 1
    while (node := finder.only_reader(tensor)) is not None:
        second = by_name.get(node.name)
        if second is not None:
            return _closed(Pair(first, second, tuple(through), tuple(clips)), axis, shapes[tensor])
        step = _STEPS.get(node.op_type)
        if step is None or not step(node, axis, shapes, limits):
            return None
        through.append(node.name)
        clips += [node.name] * (node.op_type == "Clip")
        tensor = node.output[0]
    return None


def _closed(pair: Pair, axis: int, shape: tuple[int, ...]) -> Pair | None:
    """The pair, where the second layer sums over the axis along which the channels of the first lie."""
    summed = 1 if pair.second.op_type == "Conv" else len(shape) - 1
    channels = pair.first.out_channels
    if axis != summed or pair.second.shared or shape[axis] % channels or shape[axis] != pair.second.in_channels:
        return None
    return replace(pair, repeats=shape[axis] // channels)


_Step = Callable[[NodeProto, int, Mapping[str, tuple[int, ...]], Mapping[str, np.ndarray]], bool]


def _always(*_: object) -> bool:
    return True


def _over_positions(_node: NodeProto, axis: int, *_: object) -> bool:
    return axis == 1


def _cuts_at_zero(node: NodeProto, _axis: int, _shapes: object, limits: Mapping[str, np.ndarray]) -> bool:
    """Whether a Clip is a ReLU that also cuts above."""
    low = limits.get(node.input[1]) if len(node.input) > 1 else None
    return low is not None and low == 0


def _keeps_channels(node: NodeProto, axis: int, shapes: Mapping[str, tuple[int, ...]], _limits: object) -> bool:
    """Whether maps (b, c, ...) become (b, c * positions), channel after channel, or (b, c) by a mean over positions."""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    if axis != 1 or len(after) < 2 or after[0] != before[0]:
        return False
    if node.op_type == "ReduceMean":
        return after[1] == before[1] and math.prod(after[2:]) == 1
    return after[1:] == before[1:] or after[1:] == (math.prod(before[1:]),)


_STEPS: Mapping[str, _Step] = {
    **dict.fromkeys(_BY_VALUE, _always),
    **dict.fromkeys(_POOLS, _over_positions),
    "Clip": _cuts_at_zero,
    **dict.fromkeys(_RESHAPES, _keeps_channels),
}
