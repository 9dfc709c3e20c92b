"""A model from outside, brought into the form that the rest works on.

Nodes with names of their own, opset 13 or later, one float32 input `input` and output `logits` with an open batch,
weights as initializers, norms, factors of products and pads of zeros folded, pads, target shapes and the sizes of the
output written out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

from latency.lowering import INPUT, OPSET, OUTPUT
from latency.runtimes.onnx_runtime import tensors_of
from quant_search.layers import attributes_of
from quant_search.ptq.fold import fold_constants, fold_norms
from quant_search.ptq.pads import fold_pads
from quant_search.ptq.products import plain_products

LEAST_OPSET = 13  # the first whose QuantizeLinear has a scale for each channel
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")
_TOLERANCE = 1e-3


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with equal outputs in the form that `quant_search` wants; `model` stays as it was.

    Raises:
        ValueError: a model that cannot be brought into it, and why: not one float32 input and one output, sizes besides
            the batch left open, a batch that cannot be opened, an opset that cannot be converted, quantized nodes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _check(result.graph)
    _drop_listed_weights(result.graph)
    result = _of_late_opset(result)
    _name_nodes(result.graph)
    result = fold_constants(result)
    _open_batch(result.graph)
    _rename(result.graph, {result.graph.output[0].name: OUTPUT, result.graph.input[0].name: INPUT})
    _drop_identities(result.graph)
    result.graph.ClearField("value_info")
    _write_out_shapes(result)
    _write_out_pads(result)
    result = fold_constants(result)
    folded = fold_norms(fold_constants(fold_pads(plain_products(result))))
    outputs = _compare(result, folded)
    _write_out_sizes(folded.graph.output[0], outputs.shape)
    return folded


def _check(graph: onnx.GraphProto) -> None:
    weights = {t.name for t in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    if kinds != [TensorProto.FLOAT] or len(graph.output) != 1:
        found = f"inputs {[value.name for value in inputs]} and outputs {[value.name for value in graph.output]}"
        raise ValueError(f"the model has {found}, expected one float32 input and one output: cut off the others")
    sizes = inputs[0].type.tensor_type.shape.dim
    if len(sizes) < 2 or not all(size.HasField("dim_value") and size.dim_value > 0 for size in sizes[1:]):
        shape = [size.dim_value or size.dim_param or "?" for size in sizes]
        raise ValueError(f"input {inputs[0].name!r} has the shape {shape}: export it with fixed sizes after the batch")
    for node in graph.node:
        if node.op_type in _QUANTIZED:
            raise ValueError(f"node {node.name!r} is a {node.op_type}: the model is quantized already, give it in fp32")
    if graph.sparse_initializer:
        raise ValueError(f"the model has {len(graph.sparse_initializer)} sparse initializers: store them densely")


def _drop_listed_weights(graph: onnx.GraphProto) -> None:
    """Up to IR version 3 initializers were inputs, which callers could replace."""
    weights = {t.name for t in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)


def _of_late_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an opset from 13 on, and an IR version that knows initializers apart from inputs."""
    model.ir_version = max(model.ir_version, 8)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset >= LEAST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter's errors have no base of their own
        reason = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
        raise ValueError(f"the model has opset {opset} and cannot be converted to {OPSET}: {reason}") from error


def _open_batch(graph: onnx.GraphProto) -> None:
    """Lets the batch be any: in the input and output, and where a Reshape names it."""
    size = graph.input[0].type.tensor_type.shape.dim[0]
    fixed = size.dim_value
    for value in (graph.input[0], graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        if len(dims):
            dims[0].dim_param = "batch"
    if fixed:
        shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
        for tensor in graph.initializer:
            target = numpy_helper.to_array(tensor)
            if tensor.name in shapes and target.size > 1 and target[0] == fixed:
                tensor.CopyFrom(numpy_helper.from_array(_opened(target), tensor.name))


def _opened(target: np.ndarray) -> np.ndarray:
    """A target shape that takes the first size over from what is reshaped."""
    result: np.ndarray = np.concatenate([np.zeros(1, target.dtype), target[1:]])
    return result


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Names of their own for nodes that have none, or one that another has."""
    times = Counter(node.name for node in graph.node)
    taken, count = set(times), Counter[str]()
    for node in graph.node:
        if node.name and times[node.name] == 1:
            continue
        stem = node.name or f"/{node.op_type}"
        name = stem
        while name in taken:
            count[stem] += 1
            name = f"{stem}_{count[stem]}"
        taken.add(name)
        node.name = name


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Renames tensors; another tensor that has the new name already gets one that is free."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    names = {old: new for old, new in names.items() if old != new}
    names |= {new: f"{new}_before" for new in names.values() if new in taken and new not in names}
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Without nodes that hand on what they get; one that makes the output stays."""
    ends = {value.name for value in graph.output}
    same: dict[str, str] = {}
    left = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type in ("Identity", "Dropout") and node.output[0] not in ends:
            same[node.output[0]] = node.input[0]
        else:
            left.append(node)
    del graph.node[:]
    graph.node.extend(left)


def _write_out_shapes(model: onnx.ModelProto) -> None:
    """Constants in place of shapes to reshape to that are computed from the batch."""
    made = {name for node in model.graph.node for name in node.output}
    targets = [n for n in model.graph.node if n.op_type == "Reshape" and n.input[1] in made]
    if not targets:
        return
    names = [node.input[1] for node in targets]
    found = [_run(model, names, batch) for batch in (2, 3)]
    for node, two, three in zip(targets, *found, strict=True):
        grows = np.flatnonzero(two != three)
        rest = (two == -1).any()  # asks for a size of its own; then only the first can be taken over
        if two.shape != three.shape or len(grows) > 1 or (rest and grows.any()):
            continue
        target = two.copy()
        target[grows] = 0 if rest else -1
        name = f"{node.name}.shape"
        model.graph.initializer.append(numpy_helper.from_array(target, name))
        node.input[1] = name


def _run(model: onnx.ModelProto, names: list[str], batch: int, seed: int = 0) -> list[np.ndarray]:
    """The named tensors for a batch of noise."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    sizes = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(seed).standard_normal((batch, *sizes)).astype(np.float32)
    try:
        session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found: list[np.ndarray] = session.run(names, {INPUT: x})
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        reason = str(error).splitlines()[0]
        raise ValueError(f"the model does not run at batch {batch}: {reason}: export it with an open batch") from error
    return found


def _write_out_pads(model: onnx.ModelProto) -> None:
    """Numbers in place of `auto_pad`: pads so that the output has ceil(input / stride) positions."""
    padded = [node for node in model.graph.node if attributes_of(node).get("auto_pad", b"NOTSET") != b"NOTSET"]
    if not padded:
        return
    tensors = {name: shape for name, (shape, _) in tensors_of(model).items()}
    kernels = {t.name: tuple(t.dims[2:]) for t in model.graph.initializer}
    for node in padded:
        settings = attributes_of(node)
        kernel = settings.get("kernel_shape") or kernels.get(node.input[1] if len(node.input) > 1 else "")
        if node.op_type == "ConvTranspose" or not kernel:
            continue
        pads = _pads(tensors[node.input[0]][2:], tuple(kernel), settings)
        for attribute in [a for a in node.attribute if a.name in ("auto_pad", "pads")]:
            node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute("pads", pads))


def _pads(sizes: tuple[int, ...], kernel: tuple[int, ...], settings: Mapping[str, Any]) -> list[int]:
    mode = settings["auto_pad"]
    one = (1,) * len(sizes)
    strides, dilations = (tuple(settings.get(name, one)) for name in ("strides", "dilations"))
    if mode == b"VALID":
        return [0] * 2 * len(sizes)
    begins, ends = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        begins.append(less if mode == b"SAME_UPPER" else more)
        ends.append(more if mode == b"SAME_UPPER" else less)
    return begins + ends


def _compare(before: onnx.ModelProto, after: onnx.ModelProto) -> np.ndarray:
    """The outputs for a batch of two; refuses a fold that changed what the model computes."""
    (old,), (new,) = (_run(model, [OUTPUT], 2) for model in (before, after))
    off, size = float(np.abs(new - old).max(initial=0)), float(np.abs(old).max(initial=0))
    if not off <= _TOLERANCE * max(size, 1e-6):
        raise ValueError(f"folding the model's norms changed outputs of up to {size:g} by {off:g}: report this model")
    return new


def _write_out_sizes(output: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    """The shape of what the model makes of a batch of two, with the batch left open."""
    sizes = ["batch" if axis == 0 and size == 2 else size for axis, size in enumerate(shape)]
    output.CopyFrom(helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, sizes))


__all__ = ["LEAST_OPSET", "prepared"]
