"""The weights of an ONNX graph, as (output channels, input channels of a group, taps), read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm")


@dataclass(frozen=True)
class Layer:
    """A node that multiplies its input with an initializer.

    Args:
        node: its name, or that of its output where it has none.
        weight: the initializer's name.
        transposed: whether it is stored as (input channels, output channels).
        shape: of the weight as (o, i, *k).
        groups: of a convolution.
    """

    node: str
    weight: str
    transposed: bool
    shape: tuple[int, ...]
    groups: int

    @property
    def depthwise(self) -> bool:
        """Whether every output channel has one input channel of its own."""
        return self.groups > 1 and self.shape[1] == 1

    def read(self, stored: np.ndarray) -> np.ndarray:
        """The weight as (o, i, *k), from what is stored; the way back is the same."""
        return np.swapaxes(stored, 0, 1) if self.transposed else stored


def layers_of(model: onnx.ModelProto, nodes: Iterable[str] | None = None) -> tuple[Layer, ...]:
    """The convolutions and matrix products of `model` by float32 constants, in order.

    Args:
        nodes: the names of those that are wanted; by default all.

    Raises:
        ValueError: a quantized model, or a name that is none of such a node.
    """
    check_not_quantized(model)
    values = constants_of(model)
    found = [layer for node in model.graph.node if (layer := _layer(node, values))]
    if nodes is None:
        return tuple(found)
    wanted, known = list(nodes), {layer.node for layer in found}
    strange = next((name for name in wanted if name not in known), None)
    if strange is not None:
        raise ValueError(f"no convolution or matrix product with weights is called {strange!r} in this model")
    return tuple(layer for layer in found if layer.node in wanted)


def _layer(node: NodeProto, values: Mapping[str, TensorProto]) -> Layer | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in values:
        return None
    tensor = values[node.input[1]]
    settings = attributes_of(node)
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or settings.get("transA", 0):
        return None
    if node.op_type != "Conv" and len(tensor.dims) > 2:
        return None  # a product of batches
    transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not settings.get("transB", 0))
    shape = tuple(tensor.dims)
    shape = (shape[1], shape[0]) if transposed else shape
    return Layer(called(node), node.input[1], transposed, shape, int(settings.get("group", 1)))


def called(node: NodeProto) -> str:
    """A node's name, or that of its output where it has none."""
    return str(node.name or node.output[0])


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def constants_of(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """The constants of a model by name, initializers and Constant nodes alike: changing one changes the model."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def check_not_quantized(model: onnx.ModelProto) -> None:
    """Refuses a quantized model: weights are pruned before they are rounded.

    Raises:
        ValueError: with the first node that says so.
    """
    for node in model.graph.node:
        if node.op_type in _QUANTIZED:
            raise ValueError(
                f"node {called(node)!r} ({node.op_type}) is quantized: prune the fp32 model, then quantize"
            )


def weights_of(model: onnx.ModelProto, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The constants of these names as stored, float32; by default the weights of all layers.

    Raises:
        ValueError: a name that is none of a constant.
    """
    values = constants_of(model)
    wanted = [layer.weight for layer in layers_of(model)] if names is None else list(names)
    for name in wanted:
        if name not in values:
            raise ValueError(f"the model has no constant {name!r}")
    return {name: numpy_helper.to_array(values[name]) for name in wanted}


def with_weights(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of `model` with other values of the named constants, of whatever shape.

    Raises:
        ValueError: a name that is none of a constant.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    values = constants_of(result)
    for name, array in weights.items():
        if name not in values:
            raise ValueError(f"the model has no constant {name!r}")
        write(values[name], array)
    return result


def write(tensor: TensorProto, array: np.ndarray) -> None:
    """Puts `array` into a constant in the place of what it holds."""
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def zeros_of(model: onnx.ModelProto, layers: Sequence[Layer] | None = None) -> float:
    """The share of zeros among the weights of layers, by default of all."""
    layers = layers_of(model) if layers is None else layers
    arrays = list(weights_of(model, (layer.weight for layer in layers)).values())
    return float(sum((a == 0).sum() for a in arrays) / max(1, sum(a.size for a in arrays)))
