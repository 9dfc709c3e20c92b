"""The kernels of an ONNX graph: what each node reads, writes and multiplies at a stated batch.

A graph is taken as it stands: plain, with pairs of QuantizeLinear and DequantizeLinear, or as ONNX Runtime executes it
after its own optimisation (`executed_kernels`), with operators of com.microsoft and com.microsoft.nchwc.  Shapes are
read off a run (`runtimes.onnx_runtime.tensors_of`): ONNX's shape inference knows none of the operators that ONNX
Runtime puts in and stops at a Reshape whose shape is computed, and tensors of a rewritten graph have no counterpart in
the one before.

MACs: a convolution has `out elements · (inputs / groups) · kernel size`, a matrix product `out elements · inner size`,
attention `(queries + outputs) · keys`; normalisation, biases, activations and pooling have none.  Channels that ONNX
Runtime pads to fill its vectors are multiplied and count: the optimised graph may have more MACs than the plain one.
Source of the operators: onnx.ai/onnx/operators and ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import inliner
from onnx.helper import get_attribute_value, tensor_dtype_to_np_dtype

from latency.device import Device
from latency.runtimes.onnx_runtime import executed_graph, tensors_of

Attribute = int | tuple[int, ...]

# What takes the place of its input without a copy, or looks at nothing but a shape.
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size")
_PICKS = ("Slice", "Gather", "GatherElements", "GatherND")  # read what they write, not all of their input
# Where the data stand among the inputs of operators that also take scales, zero points or sizes.
_DATA = {
    "ConvInteger": (0, 1),
    "DequantizeLinear": (0,),
    "DynamicQuantizeMatMul": (0, 1, 4),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1, 6),
    "MatMulNBits": (0, 1, 5),
    "Pad": (0,),
    "QAttention": (0, 1, 2),
    "QGemm": (0, 3, 6),
    "QLinearAdd": (0, 3),
    "QLinearAveragePool": (0,),
    "QLinearConv": (0, 3, 8),
    "QLinearGlobalAveragePool": (0,),
    "QLinearLeakyRelu": (0,),
    "QLinearMatMul": (0, 3),
    "QLinearMul": (0, 3),
    "QLinearSigmoid": (0,),
    "QLinearSoftmax": (0,),
    "QuantizeLinear": (0,),
    "Resize": (0,),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Args:
        dtype: as NumPy and ml_dtypes name it, such as float32, uint8 or int4.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes they take."""
        bits = re.search(r"\d+", self.dtype)
        return math.ceil(self.elements * int(bits[0] if bits else 8) / 8)  # bool, alone without a number, has a byte


@dataclass(frozen=True)
class Kernel:
    """One node as it is executed.

    Args:
        name: the node's, or that of its first output where it has none.
        domain: "" for ONNX's own operators, else com.microsoft, com.microsoft.nchwc and so on.
        activation: the one fused into the node, such as Relu; "" without.
        inputs: activations in the order of the node's inputs, each once.
        weights: weights and biases, in order; all constants of more than a scalar that the node computes with.
        constants: the others: scales, zero points, scalars, shapes, indices.
        attributes: those that are integers or tuples of integers, sorted by name.
        bytes_read: of activations; 0 where the node only renames its input or looks at its shape.
        bytes_written: of activations; 0 likewise.
        weight_bytes: of `weights` and `constants`.
    """

    name: str
    domain: str
    op_type: str
    activation: str
    inputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[tuple[str, Attribute], ...]
    macs: int
    bytes_read: int
    bytes_written: int
    weight_bytes: int

    @property
    def group(self) -> int:
        """Groups of a convolution; 1 of anything else."""
        value = dict(self.attributes).get("group", 1)
        return value if isinstance(value, int) else 1

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Kernel size of a convolution or pool by axis; () of anything else."""
        spatial = next((w.shape[2:] for w in self.weights), ()) if "Conv" in self.op_type else ()
        return self._sizes("kernel_shape") or spatial

    @property
    def stride(self) -> tuple[int, ...]:
        """Stride of a convolution or pool by axis; () of anything else."""
        return self._sizes("strides") or (1,) * len(self.kernel_size)

    @property
    def dilation(self) -> tuple[int, ...]:
        """Dilation of a convolution or pool by axis; () of anything else."""
        return self._sizes("dilations") or (1,) * len(self.kernel_size)

    def _sizes(self, name: str) -> tuple[int, ...]:
        value = dict(self.attributes).get(name, ())
        return value if isinstance(value, tuple) else ()


@dataclass(frozen=True)
class Totals:
    """What a graph costs besides time, at the batch of its kernels.

    Args:
        parameters: elements of weights and biases, shared ones once; norms that are folded have none.
        traffic_bytes: activations read and written by all kernels.
        weight_bytes: of all constants, shared ones once.
    """

    macs: int
    parameters: int
    traffic_bytes: int
    weight_bytes: int


def totals(kernels: Iterable[Kernel]) -> Totals:
    """The sums over `kernels`."""
    kernels = tuple(kernels)
    weights = {w.name: w for k in kernels for w in k.weights}
    constants = weights | {c.name: c for k in kernels for c in k.constants}
    return Totals(
        macs=sum(k.macs for k in kernels),
        parameters=sum(w.elements for w in weights.values()),
        traffic_bytes=sum(k.bytes_read + k.bytes_written for k in kernels),
        weight_bytes=sum(c.bytes for c in constants.values()),
    )


def executed_kernels(model: bytes | Path, device: Device) -> tuple[Kernel, ...]:
    """The kernels that ONNX Runtime executes for a model on `device`, in order, at its batch.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `kernels_of`, or a model that ONNX Runtime does not open.
    """
    return kernels_of(executed_graph(model, device), device.batch)


def kernels_of(model: onnx.ModelProto, batch: int = 1) -> tuple[Kernel, ...]:
    """The kernels of a graph as it stands, in order; nodes that hold a constant are none.

    Runs the graph once on blank inputs, without optimisation: a few times the latency of one call.

    Args:
        batch: the size of the inputs' first axis.

    Raises:
        ValueError: a batch that the graph does not take, other open sizes, nodes with graphs of their own, or an
            operator that multiplies in a way that is not known here.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    found = {name: Tensor(name, *kind) for name, kind in tensors_of(model, batch).items()}
    constants = {t.name: _constant(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ValueError(f"node {node.name!r} ({node.op_type}) holds a graph of its own, which is not looked into")
        if node.op_type == "Constant":
            constants[node.output[0]] = found[node.output[0]]
    nodes = (node for node in model.graph.node if node.op_type != "Constant")
    return tuple(_kernel(node, found | constants, constants) for node in nodes)


def _constant(tensor: onnx.TensorProto) -> Tensor:
    return Tensor(tensor.name, tuple(tensor.dims), tensor_dtype_to_np_dtype(tensor.data_type).name)


def _kernel(node: onnx.NodeProto, tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> Kernel:
    operands = [tensors.get(name) for name in node.input]
    data = _DATA.get(node.op_type, range(len(operands)))
    fixed = {t.name: i for i, t in enumerate(operands) if t and t.name in constants}
    weights = tuple(constants[n] for n, i in fixed.items() if i in data and _is_weight(constants[n]))
    others = tuple(constants[n] for n in fixed if constants[n] not in weights)
    inputs = tuple(dict.fromkeys(t for t in operands if t and t.name not in constants))
    outputs = tuple(tensors[name] for name in node.output if name)
    attributes = {a.name: get_attribute_value(a) for a in node.attribute}
    written = sum(t.bytes for t in outputs)
    read = sum(t.bytes for t in inputs)
    view = node.op_type in VIEWS
    return Kernel(
        name=node.name or node.output[0],
        domain="" if node.domain == "ai.onnx" else node.domain,
        op_type=node.op_type,
        activation=attributes.get("activation", b"").decode(),
        inputs=inputs,
        weights=weights,
        constants=others,
        outputs=outputs,
        attributes=tuple(
            sorted((name, kept) for name, value in attributes.items() if (kept := _plain(value)) is not None)
        ),
        macs=_macs(node, operands, outputs[0], attributes),
        bytes_read=0 if view else min(read, written) if node.op_type in _PICKS else read,
        bytes_written=0 if view else written,
        weight_bytes=sum(t.bytes for t in weights + others),
    )


def _is_weight(constant: Tensor) -> bool:
    return constant.shape != () and constant.dtype not in ("int64", "bool")


def _plain(value: object) -> Attribute | None:
    if isinstance(value, int):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes) and all(isinstance(v, int) for v in value):
        return tuple(value)
    return None


# -- MACs --------------------------------------------------------------------------------------------

_Operands = Sequence[Tensor | None]
_Rule = Callable[[_Operands, Tensor, Mapping[str, object]], int]


def _macs(node: onnx.NodeProto, operands: _Operands, output: Tensor, attributes: Mapping[str, object]) -> int:
    rule = _MACS.get(f"{node.domain}.{node.op_type}") or _MACS.get(node.op_type)
    if rule:
        return rule(operands, output, attributes)
    if _MULTIPLIES.search(node.op_type):
        raise ValueError(f"node {node.name!r} is a {node.op_type}, whose multiplications cannot be counted")
    return 0


def _at(operands: _Operands, i: int) -> Tensor:
    tensor = operands[i] if i < len(operands) else None
    if tensor is None:
        raise ValueError(f"a form of attention without its input {i} cannot be counted")
    return tensor


def _convolution(weight: int) -> _Rule:
    return lambda x, y, _: y.elements * math.prod(_at(x, weight).shape[1:])


def _transposed(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
    return _at(x, 0).elements * math.prod(_at(x, 1).shape[1:])


def _product(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
    axis = -1 if not attributes.get("transA") else 0 if attributes.get("transBatchA") else -2
    return y.elements * _at(x, 0).shape[axis]


def _packed_product(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
    return y.elements * int(str(attributes["K"]))


def _einsum(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
    """The product of the sizes of all letters; a single operand is moved or summed."""
    terms = str(attributes["equation"], "ascii").replace(" ", "").partition("->")[0].split(",")  # type: ignore[call-overload]
    if len(terms) != 2 or "..." in "".join(terms):
        raise ValueError(f"only an Einsum of two operands without '...' can be counted, got {attributes['equation']!r}")
    return math.prod(dict(p for i, t in enumerate(terms) for p in zip(t, _at(x, i).shape, strict=True)).values())


def _attention(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
    """Queries (b, t, c) or (b, heads, t, c) meet keys, and the weights found meet values."""
    return (_at(x, 0).elements + y.elements) * _at(x, 1).shape[-2]


def _projected_attention(past: int) -> _Rule:
    """Attention of com.microsoft: tokens (b, t, c) times weights (c, q + k + v), with q = k; then as above."""

    def rule(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
        if past < len(x) and x[past] is not None:
            raise ValueError("attention with a cache of earlier tokens cannot be counted")
        (b, t, _), weights = _at(x, 0).shape, _at(x, 1)
        queries = (weights.shape[1] - y.shape[-1]) // 2
        return b * t * weights.elements + b * t * t * (queries + y.shape[-1])

    return rule


def _recurrent(x: _Operands, y: Tensor, attributes: Mapping[str, object]) -> int:
    steps = math.prod(_at(x, 0).shape[:2])
    return steps * (_at(x, 1).elements + _at(x, 2).elements)


_MULTIPLIES = re.compile("Conv|MatMul|Gemm|Attention|LSTM|GRU|RNN|MoE|Einsum")  # what must have a rule
_MACS: Mapping[str, _Rule] = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvInteger"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), _product),
    **dict.fromkeys(("MatMul", "FusedMatMul", "FusedMatMulActivation", "QLinearMatMul"), _product),
    **dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), _product),
    "MatMulNBits": _packed_product,
    "Einsum": _einsum,
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
    "com.microsoft.Attention": _projected_attention(4),
    "QAttention": _projected_attention(8),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}
