"""Norms and constants folded into the weights around them, so that int8 kernels meet convolutions alone.

A norm in evaluation is a x + b for each channel, with a = gamma / sqrt(variance + epsilon) and b = beta - mean a
(Ioffe and Szegedy, arXiv:1502.03167, algorithm 2; Jacob et al., arXiv:1712.05877, eq. 14).  After a layer it scales
the layer's rows; before one, its columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, numpy_helper

from quant_search.layers import Layer, attributes_of, layers, values_of

_ARITHMETIC = ("Mul", "Div", "Add", "Sub")
_DRAWN = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
_LOG_ERRORS = 3

Line = tuple[np.ndarray, np.ndarray]  # a and b of a x + b, (c,) or () float64


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which everything that does not depend on the input is an initializer.

    Raises:
        ValueError: constants that ONNX Runtime cannot compute.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    known = {t.name for t in graph.initializer} | {""}
    fixed: list[NodeProto] = []
    for node in graph.node:
        if node.op_type not in _DRAWN and not _holds_graph(node) and known.issuperset(node.input):
            fixed.append(node)
            known.update(node.output)
    if fixed:
        left = [node for node in graph.node if not known.issuperset(node.output)]
        read = {name for node in left for name in node.input} | {value.name for value in graph.output}
        wanted = [name for node in fixed for name in node.output if name in read]
        values = _computed(result, fixed, wanted)
        del graph.node[:]
        graph.node.extend(left)
        graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in wanted)
    _drop_unread(graph)
    return result


def _holds_graph(node: NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def _computed(model: onnx.ModelProto, nodes: Sequence[NodeProto], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """What nodes that read initializers alone make."""
    if not wanted:
        return {}
    read = {name for node in nodes for name in node.input}
    part = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    part.opset_import.extend(model.opset_import)
    part.graph.name = "constants"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _LOG_ERRORS
    try:
        session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(wanted, session.run(list(wanted), {}), strict=True))
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        reason = str(error).splitlines()[0]
        raise ValueError(f"the constants of the model cannot be computed by ONNX Runtime: {reason}") from error


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Removes nodes and initializers that nothing reads."""
    ends = {value.name for value in graph.output}
    while True:
        read = ends | {name for node in graph.node for name in node.input}
        left = [node for node in graph.node if read.intersection(node.output)]
        if len(left) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(left)
    kept = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def fold_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with norms, and products and sums with a constant for each channel, in the layers' weights.

    What stands behind a Conv or Gemm goes into it; what stands before one goes into it, too, unless the layer pads
    with zeros what a shift would have made something else.  Both only where nothing else reads what lies between;
    other norms stay as they are.

    Raises:
        ValueError: as `layers`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    while _fold_one(result.graph, layers(result)):
        pass
    _drop_unread(result.graph)
    return result


def _fold_one(graph: onnx.GraphProto, found: Sequence[Layer]) -> bool:
    """Folds the first norm that can be folded; whether there was one."""
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    made = {layer.output: layer for layer in found if layer.op_type != "MatMul" and uses[layer.output] == 1}
    reads = {layer.input: layer for layer in found if layer.op_type != "MatMul" and uses[layer.input] == 1}
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        data = next((name for name in node.input if name not in values), "")
        if data in made and (line := _line(node, made[data], made[data].out_channels, values)):
            layer = made[data]
            if _scale_rows(graph, nodes[layer.name], layer, line, values, uses):
                nodes[layer.name].output[0] = node.output[0]
                graph.node.remove(node)
                return True
        elif node.output and node.output[0] in reads:
            layer = reads[node.output[0]]
            line = _line(node, layer, layer.in_channels, values)
            pads = any(layer.pads) and line is not None and line[1].any()
            if line and not pads and _scale_columns(graph, nodes[layer.name], layer, line, values, uses):
                nodes[layer.name].input[0] = data
                graph.node.remove(node)
                return True
    return False


def _line(node: NodeProto, layer: Layer, channels: int, values: Mapping[str, np.ndarray]) -> Line | None:
    """a and b (channels,) of a node that computes a x + b for each channel; None of others."""
    if node.op_type == "BatchNormalization":
        settings = attributes_of(node)
        if settings.get("training_mode", 0) or not all(name in values for name in node.input[1:5]):
            return None
        gamma, beta, mean, variance = (values[name].astype(np.float64) for name in node.input[1:5])
        a = gamma / np.sqrt(variance + settings.get("epsilon", 1e-5))
        return a, beta - mean * a
    if node.op_type not in _ARITHMETIC or len(node.input) != 2:
        return None
    first, second = (values.get(name) for name in node.input)
    operand = first if first is not None else second
    if operand is None or not _by_channel(operand, channels, len(layer.shape)):
        return None
    k = np.broadcast_to(operand.astype(np.float64).reshape(-1), channels)
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return k, zero
    if node.op_type == "Add":
        return one, k
    if node.op_type == "Sub":
        return (-one, k) if first is not None else (one, -k)
    return (1 / k, zero) if second is not None and k.all() else None  # k / x is no line


def _by_channel(operand: np.ndarray, channels: int, rank: int) -> bool:
    """Whether an operand of a tensor of `rank` axes is a number for each channel, or one alone."""
    if operand.size == 1 and operand.ndim <= rank:
        return True
    shape = (1,) * (rank - operand.ndim) + operand.shape
    return shape == tuple(channels if axis == 1 else 1 for axis in range(rank))


def _scale_rows(
    graph: onnx.GraphProto,
    node: NodeProto,
    layer: Layer,
    line: Line,
    values: Mapping[str, np.ndarray],
    uses: Mapping[str, int],
) -> bool:
    """a (W x + c) + b = (a W) x + (a c + b); False where the bias is not one number for each channel."""
    a, b = line
    bias = _bias_of(node, layer, values)
    if bias is None:
        return False
    weight = values[layer.weight] * layer.by_channel(a)
    _put(graph, node, layer, weight, a * bias + b, uses)
    return True


def _scale_columns(
    graph: onnx.GraphProto,
    node: NodeProto,
    layer: Layer,
    line: Line,
    values: Mapping[str, np.ndarray],
    uses: Mapping[str, int],
) -> bool:
    """W (a x + b) + c = (W a) x + (W b + c); False as `_scale_rows`."""
    a, b = line
    bias = _bias_of(node, layer, values)
    if bias is None:
        return False
    alpha = attributes_of(node).get("alpha", 1.0)
    weight = values[layer.weight].astype(np.float64)
    shift = alpha * layer.summed(weight * layer.by_input(b))
    _put(graph, node, layer, weight * layer.by_input(a), shift + bias, uses)
    return True


def _bias_of(node: NodeProto, layer: Layer, values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The bias (out channels,) as it is added; None of a Gemm whose third operand is something else."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(layer.out_channels)
    if not layer.bias or values[layer.bias].size not in (1, layer.out_channels):
        return None
    if values[layer.bias].ndim > 1 and values[layer.bias].shape[-1] != layer.out_channels:
        return None
    beta = attributes_of(node).get("beta", 1.0)
    return np.broadcast_to(values[layer.bias].astype(np.float64).reshape(-1) * beta, layer.out_channels)


def _put(
    graph: onnx.GraphProto, node: NodeProto, layer: Layer, weight: np.ndarray, bias: np.ndarray, uses: Mapping[str, int]
) -> None:
    """Gives a layer another weight and bias, under their old names unless others read these, too."""
    names = []
    for old, value, ending in ((layer.weight, weight, "weight"), (layer.bias, bias, "bias")):
        name = old if old and uses[old] == 1 else f"{layer.name}.{ending}"
        for tensor in [t for t in graph.initializer if t.name == name]:
            graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        names.append(name)
    node.input[:] = [node.input[0], *names]
    for attribute in node.attribute:
        if attribute.name == "beta":  # is in the bias now
            attribute.f = 1.0


def with_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which every Conv and Gemm layer has a bias of its own, of zeros where there was none.

    Raises:
        ValueError: as `layers`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, nodes, values = result.graph, {n.name: n for n in result.graph.node}, values_of(model)
    uses = Counter(name for node in graph.node for name in node.input)
    for layer in layers(model):
        if layer.op_type == "MatMul" or (layer.bias and uses[layer.bias] == 1 and values[layer.bias].ndim == 1):
            continue
        node = nodes[layer.name]
        if len(node.input) > 2 and node.input[2] and not layer.bias:
            continue  # a Gemm whose third operand is computed
        bias = values.get(layer.bias, np.zeros(1, np.float32))
        if bias.size not in (1, layer.out_channels):
            continue  # one that differs from image to image
        own = np.broadcast_to(bias.reshape(-1), layer.out_channels).astype(np.float32)
        name = f"{layer.name}.bias"
        graph.initializer.append(numpy_helper.from_array(own, name))
        node.input[:] = [*node.input[:2], name]
    _drop_unread(graph)
    return result


__all__ = ["fold_constants", "fold_norms", "with_biases"]
