"""Weights with zeros as smaller files: nonzero values and a bit for each position, from which the weight is rebuilt.

A bitmap beside the values (as in EIE's and SCNN's compressed weights, arXiv:1602.01528 and 1708.04485, and unlike
indices, which take more from a density of some hundredths on) is n / 8 bytes for n weights, whatever the pattern.
Standard operators of opset 13 rebuild the weight, once for all weights of a type:

    bits = mask mod (2, 4 .. 256) >= (1, 2 .. 128);  weight = values[bits * cumsum(bits)],  where values[0] = 0

All their inputs are constants, so that ONNX Runtime computes them as it opens the file, before it looks for int8
kernels: kernels, outputs and time of a call are those of the dense file, to the bit.  OpenVINO 2026.4 gives the same
outputs, but leaves the int8 kernel of some products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quant_search.weight_codes import packed_tensor

_TYPES = {TensorProto.FLOAT: "fp32", TensorProto.INT8: "int8", TensorProto.INT4: "int4"}
_BITS = 8  # positions to a byte of a mask


@dataclass(frozen=True, eq=False)
class _Weight:
    """One constant that may be stored by its nonzero values: `codes` is flat, of an integer type as wide as its own."""

    tensor: TensorProto
    codes: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Where it is not zero, bool (n,); a negative zero counts as a value."""
        return self.codes != 0

    @property
    def bits(self) -> int:
        """Of one value as it is stored."""
        return 4 if self.tensor.data_type == TensorProto.INT4 else 8 * self.codes.itemsize

    def gain(self) -> int:
        """The bytes that storing it sparsely saves, without what is the same for all weights."""
        shape, node = _shaped(self.tensor)
        stored = (int(self.kept.sum()) * self.bits + len(self.codes)) / 8 + shape.ByteSize() + node.ByteSize() + 16
        return int(self.tensor.ByteSize() - stored)


def stored_sparsely(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose weights are stored by their nonzero values wherever that is smaller.

    Weights in fp32, int8 codes and packed INT4 codes (two nonzero ones to a byte) are; a model without zeros that are
    worth it comes back as it was.  Outputs are the same, to the bit.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for data_type, name in _TYPES.items():
        weights = [w for w in _candidates(result, data_type) if w.gain() > 0]
        tensors, nodes = _chain(weights, f"sparse.{name}") if weights else ([], [])
        added = sum(part.ByteSize() for part in (*tensors, *nodes))
        if sum(w.tensor.ByteSize() for w in weights) > added:
            _replace(result.graph, [w.tensor.name for w in weights], tensors, nodes)
    return result


def _candidates(model: onnx.ModelProto, data_type: int) -> list[_Weight]:
    """Constants of a type that nodes alone read; four-bit ones, if all that read them widen them."""
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    widened = _only_cast(model.graph.node)
    return [
        _Weight(tensor, _codes(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == data_type
        and tensor.name not in ends
        and (data_type != TensorProto.INT4 or tensor.name in widened)
    ]


def _only_cast(nodes: Iterable[NodeProto]) -> set[str]:
    cast, others = set[str](), set[str]()
    for node in nodes:
        (cast if node.op_type == "Cast" else others).update(node.input)
    return cast - others


def _codes(tensor: TensorProto) -> np.ndarray:
    """The values (n,) of a constant as integers of their own bits."""
    values = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.FLOAT:
        return np.ascontiguousarray(values).reshape(-1).view(np.int32)
    return np.asarray(values).astype(np.int8).reshape(-1)


def _chain(weights: Sequence[_Weight], name: str) -> tuple[list[TensorProto], list[NodeProto]]:
    """The constants and nodes that rebuild all weights of a type, under their own names."""
    data_type, sizes = weights[0].tensor.data_type, [len(w.codes) for w in weights]
    shapes = [_shaped(w.tensor) for w in weights]
    parts = [f"{w.tensor.name}.flat" for w in weights]
    if rest := -sum(sizes) % _BITS:  # of the last byte
        parts.append(f"{name}.rest")
    constants = {**_constants(weights), "sizes": np.array([*sizes, rest][: len(parts)], np.int64)}
    tensors = [numpy_helper.from_array(array, f"{name}.{part}") for part, array in constants.items()]
    split = helper.make_node("Split", [f"{name}.all", f"{name}.sizes"], parts, f"{name}.Split")
    nodes = [_node(op, inputs, output, name, settings) for op, inputs, output, settings in _steps(data_type)]
    return (
        [_values(weights, f"{name}.values"), *tensors, *(shape for shape, _ in shapes)],
        [*nodes, split, *(node for _, node in shapes)],
    )


def _constants(weights: Sequence[_Weight]) -> dict[str, np.ndarray]:
    """What `_steps` reads besides values; bit k of a byte is set where byte mod 2^(k+1) > 2^k - 1."""
    powers = 2 ** np.arange(_BITS, dtype=np.int32)
    mask = np.packbits(np.concatenate([w.kept for w in weights]), bitorder="little")
    return {
        "mask": mask[:, None],
        "above": powers * 2,
        "below": powers - 1,
        "flat": np.array([-1], np.int64),
        "axis": np.array(0, np.int64),
    }


def _steps(data_type: int) -> list[tuple[str, list[str], str, dict[str, int]]]:
    """Operator, inputs, output and attributes of each node from mask and values to all weights, one after another."""
    four_bits = data_type == TensorProto.INT4
    return [
        # Not by BitShift, which OpenVINO 2026.4 rounds to the nearest.
        ("Cast", ["mask"], "bytes", {"to": TensorProto.INT32}),
        ("Mod", ["bytes", "above"], "lower", {}),
        ("Greater", ["lower", "below"], "bits", {}),
        ("Reshape", ["bits", "flat"], "row", {}),
        ("Cast", ["row"], "kept", {"to": TensorProto.INT32}),
        ("CumSum", ["kept", "axis"], "counts", {}),
        ("Mul", ["counts", "kept"], "places", {}),
        *([("Cast", ["values"], "wide", {"to": TensorProto.INT8})] if four_bits else []),
        ("Gather", ["wide" if four_bits else "values", "places"], "all", {}),
    ]


def _node(op: str, inputs: Sequence[str], output: str, name: str, settings: Mapping[str, int]) -> NodeProto:
    read = [f"{name}.{part}" for part in inputs]
    return helper.make_node(op, read, [f"{name}.{output}"], f"{name}.{op}.{output}", **settings)


def _values(weights: Sequence[_Weight], name: str) -> TensorProto:
    """The nonzero values of all weights behind a zero, which stands for every one."""
    codes = np.concatenate([np.zeros(1, weights[0].codes.dtype), *(w.codes[w.kept] for w in weights)])
    if weights[0].tensor.data_type == TensorProto.INT4:
        return packed_tensor(codes, name)
    floats = weights[0].tensor.data_type == TensorProto.FLOAT
    return numpy_helper.from_array(codes.view(np.float32) if floats else codes, name)


def _shaped(tensor: TensorProto) -> tuple[TensorProto, NodeProto]:
    """The shape of a weight, and the node that gives it to its values."""
    shape = numpy_helper.from_array(np.array(tensor.dims, np.int64), f"{tensor.name}.shape")
    inputs = [f"{tensor.name}.flat", shape.name]
    return shape, helper.make_node("Reshape", inputs, [tensor.name])


def _replace(
    graph: onnx.GraphProto, names: Sequence[str], tensors: Sequence[TensorProto], nodes: Sequence[NodeProto]
) -> None:
    """Puts nodes that make weights, first of all, in the place of these weights."""
    gone = set(names)
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    behind = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *tensors])
    graph.node.extend([*nodes, *behind])
