"""Matrix products written plainly: x W + b, with a number of b for each output.

A Gemm is alpha x W + beta C, and C may be any shape that spreads to that of the product (ONNX operators, Gemm-13).
Int8 kernels add a bias in steps of input scale x weight scale, which factors would change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from quant_search.layers import attributes_of, values_of


def plain_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with equal outputs, whose Gemms have their factors in constant weights and biases.

    A factor of a computed operand stays, and so does a constant that differs from row to row.  A weight that one layer
    reads transposed and another as it is becomes two: its scales would lie along either axis.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    values, uses = values_of(model), Counter(name for node in model.graph.node for name in node.input)
    axes: dict[str, int] = {}
    for node in result.graph.node:
        if node.op_type == "Gemm":
            _write_plainly(result.graph, node, values, uses)
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in values:
            axis = _outputs_axis(node)
            if axes.setdefault(node.input[1], axis) != axis:
                _put(result.graph, node, 1, values[node.input[1]], uses)
    return result


def _outputs_axis(node: NodeProto) -> int:
    """Along which axis of its weight the outputs of a product lie."""
    return 0 if attributes_of(node).get("transB") else 1


def _write_plainly(
    graph: onnx.GraphProto, node: NodeProto, values: Mapping[str, np.ndarray], uses: Mapping[str, int]
) -> None:
    settings = attributes_of(node)
    weight = values.get(node.input[1])
    if weight is not None and (alpha := settings.get("alpha", 1.0)) != 1:
        _put(graph, node, 1, np.float32(alpha) * weight, uses)
        _set_to_one(node, "alpha")
    bias = values.get(node.input[2]) if len(node.input) > 2 else None
    if bias is not None:
        plain = np.float32(settings.get("beta", 1.0)) * bias
        if weight is not None and bias.size in (1, bias.shape[-1] if bias.ndim else 1):
            plain = np.broadcast_to(plain.reshape(-1), weight.shape[_outputs_axis(node)])
        if plain.shape != bias.shape or not np.array_equal(plain, bias):
            _put(graph, node, 2, plain, uses)
        _set_to_one(node, "beta")


def _put(graph: onnx.GraphProto, node: NodeProto, place: int, value: np.ndarray, uses: Mapping[str, int]) -> None:
    """Gives a node another constant, under its old name unless others read that, too."""
    old = node.input[place]
    if uses[old] > 1:
        node.input[place] = f"{node.name}.{('weight', 'bias')[place - 1]}"
    else:
        graph.initializer.remove(next(t for t in graph.initializer if t.name == old))
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), node.input[place]))


def _set_to_one(node: NodeProto, name: str) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.f = 1.0
