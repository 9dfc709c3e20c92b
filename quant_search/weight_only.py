"""Weights in few bits, activations in fp32: files an eighth of the size, and what ONNX Runtime makes of them.

`stored` is for size alone: ONNX Runtime computes the weight as it opens the file and runs in fp32 from then on, in the
time of the fp32 file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quant_search.layers import layers_of
from quant_search.onnx_qdq import with_int4
from quant_search.weight_codes import WeightCodes, packed_tensor


def stored(model: onnx.ModelProto, codes: Mapping[str, WeightCodes]) -> onnx.ModelProto:
    """A copy of `model` whose named nodes keep their weights as codes and scales and compute in fp32.

    Raises:
        ValueError: codes of another shape than the weight's, or a model that cannot be lifted to opset 21.
    """
    result = with_int4(model)
    for layer in layers_of(result, codes):
        given = codes[layer.name]
        if given.values.shape != layer.shape:
            raise ValueError(
                f"node {layer.name!r} has a weight of shape {layer.shape}, got codes of {given.values.shape}"
            )
        if any(node.output[0] == f"{layer.weight}_wide" for node in result.graph.node):
            continue  # a weight that an earlier layer shares
        scale = layer.by_channel(given.scale) if given.scale.ndim else given.scale
        kept = packed_tensor(given.values, f"{layer.weight}_codes") if given.packed else None
        tensors = kept or numpy_helper.from_array(given.values, f"{layer.weight}_codes")
        scales = numpy_helper.from_array(np.asarray(scale, np.float32), f"{layer.weight}_scale")
        wide = f"{layer.weight}_wide"
        nodes = [
            helper.make_node("Cast", [tensors.name], [wide], f"{layer.weight}_Cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [wide, scales.name], [layer.weight], f"{layer.weight}_Mul"),
        ]
        _replace(result.graph, layer.weight, [tensors, scales], nodes)
    return result


def _replace(graph: onnx.GraphProto, weight: str, tensors: Sequence[TensorProto], nodes: Sequence[NodeProto]) -> None:
    """Nodes that make `weight` of `tensors` in place of the initializer."""
    for tensor in [t for t in graph.initializer if t.name == weight]:
        graph.initializer.remove(tensor)
    graph.initializer.extend(tensors)
    for node in reversed(nodes):
        graph.node.insert(0, node)
