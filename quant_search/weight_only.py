"""Weights in few bits, activations in fp32: files an eighth of the size, and what ONNX Runtime makes of them.

`stored` is for size alone: ONNX Runtime computes the weight as it opens the file and runs in fp32 from then on, in the
time of the fp32 file.  `in_blocks` is for products of few rows, which are bound by reading weights: MatMulNBits of
com.microsoft reads four bits a weight at every call.  A blocked DequantizeLinear of opset 21 before a MatMul becomes
that kernel, too, but not where a bias is added: ONNX Runtime makes a Gemm of the two first, and dequantizes every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quant_search.formats.granularity import per_group
from quant_search.formats.integer import Integer
from quant_search.layers import Layer, attributes_of, layers_of, values_of
from quant_search.onnx_qdq import with_int4
from quant_search.weight_codes import WeightCodes, packed_tensor

BLOCK = 32
ACCURACY_LEVELS = {"fp32": 1, "int8": 4}  # as MatMulNBits numbers what it multiplies in
_LEAST_BLOCK = 16  # of MatMulNBits, whose blocks are powers of two
_CONTRIBUTED = "com.microsoft"


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


def in_blocks(
    model: onnx.ModelProto, nodes: Sequence[str], size: int = BLOCK, activations: str = "int8"
) -> onnx.ModelProto:
    """A copy of `model` whose named MatMul and Gemm nodes are MatMulNBits by 4-bit weights in blocks of `size` inputs.

    Each block has the scale of its largest weight, rounded to the nearest.

    Args:
        activations: `int8` rounds them at every call, with a scale for each block, and is about three times as fast as
            `fp32`.

    Raises:
        ValueError: a convolution, a size that is no power of two from 16 on, or other activations.
    """
    if size < _LEAST_BLOCK or size & (size - 1):
        raise ValueError(f"blocks of weights have a power of two from {_LEAST_BLOCK} on, got {size}")
    if activations not in ACCURACY_LEVELS:
        raise ValueError(f"activations of products by blocks are {' or '.join(ACCURACY_LEVELS)}, got {activations!r}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    found, values = {layer.name: layer for layer in layers_of(result, nodes)}, values_of(result)
    for layer in found.values():
        if layer.op_type == "Conv":
            raise ValueError(f"node {layer.name!r} is a Conv: only MatMul and Gemm multiply by blocks, see `stored`")
    for node in result.graph.node:
        if node.name in found:
            _multiply_by_blocks(result.graph, node, found[node.name], values, size, ACCURACY_LEVELS[activations])
    if found and all(opset.domain != _CONTRIBUTED for opset in result.opset_import):
        result.opset_import.append(helper.make_opsetid(_CONTRIBUTED, 1))
    _keep_read(result.graph)
    return result


def _multiply_by_blocks(
    graph: onnx.GraphProto, node: NodeProto, layer: Layer, values: Mapping[str, np.ndarray], size: int, level: int
) -> None:
    """Makes a product one by blocks, in place."""
    settings = attributes_of(node) if node.op_type == "Gemm" else {}
    weight = np.moveaxis(values[layer.weight], layer.out_axis, 0) * np.float32(settings.get("alpha", 1.0))
    number, rows = Integer(4), per_group(1, size)
    scales = number.scales(weight, rows)
    codes = number.codes(weight, scales, rows)
    blocks = scales.scale.shape[1]
    codes = np.pad(codes, [(0, 0), (0, blocks * size - codes.shape[1])])
    raised = (codes + 8).astype(np.uint8).reshape(len(codes), blocks, size)  # 8 stands for zero
    packed = raised[..., ::2] | raised[..., 1::2] << 4
    inputs = [node.input[0]]
    for ending, value in (("codes", packed), ("scale", scales.scale)):
        inputs.append(f"{layer.name}.{ending}")
        graph.initializer.append(numpy_helper.from_array(value, inputs[-1]))
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        inputs += ["", "", _bias(graph, node, layer, values, settings.get("beta", 1.0))]
    product = helper.make_node(
        "MatMulNBits", inputs, list(node.output), layer.name, domain=_CONTRIBUTED,
        K=layer.in_channels, N=layer.out_channels, bits=4, block_size=size, accuracy_level=level,
    )  # fmt: skip
    node.CopyFrom(product)


def _bias(graph: onnx.GraphProto, node: NodeProto, layer: Layer, values: Mapping[str, np.ndarray], beta: float) -> str:
    """The name of the bias (out channels,) that is added to a product by blocks."""
    given = values.get(node.input[2])
    if given is None or given.size not in (1, layer.out_channels):
        raise ValueError(f"node {layer.name!r} adds {node.input[2]!r}, expected a number for each of its outputs")
    name = f"{layer.name}.bias"
    bias = np.broadcast_to(given.reshape(-1) * np.float32(beta), layer.out_channels)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(bias, np.float32), name))
    return name


def _keep_read(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _replace(graph: onnx.GraphProto, weight: str, tensors: Sequence[TensorProto], nodes: Sequence[NodeProto]) -> None:
    """Nodes that make `weight` of `tensors` in place of the initializer."""
    for tensor in [t for t in graph.initializer if t.name == weight]:
        graph.initializer.remove(tensor)
    graph.initializer.extend(tensors)
    for node in reversed(nodes):
        graph.node.insert(0, node)
