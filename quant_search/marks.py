"""Which tensors of an ONNX graph pass through int8 when some of its nodes are quantized.

The rules are those of ONNX Runtime's `QDQQuantizer` (`onnxruntime/quantization/operators`), so that its graph
optimiser finds what it looks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto, TensorProto

from quant_search.layers import attributes_of, scalars_of

# What has an int8 kernel in ONNX Runtime on CPU, or is moved through unchanged.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "GlobalAveragePool", "AveragePool", "MaxPool")


@dataclass(frozen=True)
class Constant:
    """How an initializer is stored: weights in int8 around zero, other operands in uint8 as activations are.

    Args:
        axis: of the channels that have a scale each; None for one scale.
    """

    weight: bool
    axis: int | None = None


@dataclass(frozen=True)
class Bias:
    """A bias is stored in steps of input scale x weight scale, as int8 kernels accumulate.

    Args:
        source: the initializer it is a copy of.
    """

    source: str
    input: str
    weight: str


@dataclass
class Marks:
    """What `mark` found.

    Args:
        activations: tensor to the tensor whose scale it shares, or to None where it has its own.
        biases: name in the new graph to what it is made of.
        own_bias: (output of a node, its bias) where the node needs a copy of the bias, to the name of the copy.
        renamed: tensor to the output of the only node that reads it, which is dropped: rounding does its work.
    """

    activations: dict[str, str | None] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    biases: dict[str, Bias] = field(default_factory=dict)
    own_bias: dict[tuple[str, str], str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def scale_of(self, tensor: str) -> str:
        """The activation whose scale `tensor` has."""
        while (other := self.activations[tensor]) is not None:
            tensor = other
        return tensor

    def drops(self, node: NodeProto) -> bool:
        """Whether the rounding of its output does the work of `node`."""
        return any(name in self.renamed for name in node.input)

    def made_as(self, tensor: str) -> str:
        """What the output `tensor` of a node that stays is called once the nodes after it are dropped."""
        while tensor in self.renamed:
            tensor = self.renamed[tensor]
        return tensor


def quantizable(model: onnx.ModelProto, nodes: Sequence[str]) -> list[NodeProto]:
    """The named nodes that have an int8 kernel, in order."""
    wanted = set(nodes)
    return [node for node in model.graph.node if node.name in wanted and node.op_type in OPERATORS]


def float_activations(model: onnx.ModelProto) -> set[str]:
    """The tensors besides initializers that are known to be float32."""
    weightless = onnx.ModelProto()  # shapes do not depend on the weights, which are most of the bytes
    weightless.ir_version = max(model.ir_version, 4)
    weightless.opset_import.extend(model.opset_import)
    graph = weightless.graph
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    small = 64  # shapes to reshape to and the like: values that inference needs
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= small + len(tensor.name):
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    known = onnx.shape_inference.infer_shapes(weightless).graph
    values = [*known.value_info, *known.input, *known.output]
    found = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found - {tensor.name for tensor in model.graph.initializer}


def mark(model: onnx.ModelProto, nodes: Sequence[str]) -> Marks:
    """What changes when the named nodes compute in int8; those without an int8 kernel stay as they are."""
    marker = _Marker(model, float_activations(model))
    for node in quantizable(model, nodes):
        marker.add(node)
    return marker.marks


class _Marker:
    """Marks the tensors of one node after the other, in the order of the graph."""

    def __init__(self, model: onnx.ModelProto, floats: Collection[str]) -> None:
        graph = model.graph
        self.marks = Marks()
        self._floats = floats
        self._rank = {t.name: len(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._ends = {value.name for value in (*graph.input, *graph.output)}
        self._limits = scalars_of(model)

    def add(self, node: NodeProto) -> None:
        """Marks what `node` reads and writes."""
        if node.op_type in ("Conv", "Gemm"):
            self._product(node)
        elif node.op_type == "MatMul":
            for name in (*node.input, *node.output):
                self._weight(name, 1)
        elif node.op_type in ("Relu", "Clip"):
            self._activation_function(node)
        elif node.op_type in ("MaxPool", "AveragePool"):
            if node.input[0] in self.marks.activations and node.output[0] in self._floats:
                self.marks.activations[node.output[0]] = node.input[0]
        else:
            for name in (*node.input, *node.output):
                self._operand(name)

    def _operand(self, name: str) -> None:
        if name in self._rank:
            self.marks.constants.setdefault(name, Constant(weight=False))
        elif name in self._floats:
            self.marks.activations.setdefault(name, None)

    def _weight(self, name: str, axis: int) -> None:
        if name not in self._rank:
            self._operand(name)
        elif axis < self._rank[name]:
            self.marks.constants[name] = Constant(weight=True, axis=axis)
        else:
            self.marks.constants.setdefault(name, Constant(weight=True))

    def _product(self, node: NodeProto) -> None:
        settings = attributes_of(node)
        self._operand(node.input[0])
        self._operand(node.output[0])
        self._weight(node.input[1], 0 if node.op_type == "Conv" or settings.get("transB", 0) else 1)
        factors = any(settings.get(name, 1.0) != 1 for name in ("alpha", "beta"))
        if len(node.input) < 3 or self._rank.get(node.input[2]) != 1 or factors:
            return  # added in fp32; `ptq.intake.prepared` writes products plainly
        name = source = node.input[2]
        if name in self.marks.biases:  # another layer's, with another scale
            name = self.marks.own_bias[node.output[0], source] = f"{source}_of_{node.output[0]}"
        self.marks.biases[name] = Bias(source, node.input[0], node.input[1])

    def _activation_function(self, node: NodeProto) -> None:
        """Rounding to the range of its output cuts as a ReLU does: one that nothing else looks behind is dropped.

        Every range holds 0, so that it does not cut as a Clip to an interval without 0.
        """
        before, after = node.input[0], node.output[0]
        if before not in self.marks.activations:
            return
        if self._uses[before] == 1 and before not in self._ends and (node.op_type == "Relu" or self._holds_zero(node)):
            del self.marks.activations[before]
            self.marks.renamed[before] = after
        self._operand(after)

    def _holds_zero(self, clip: NodeProto) -> bool:
        """Whether the ends of a Clip are constants with 0 between them."""
        low, high = [*clip.input[1:], "", ""][:2]
        if any(name and name not in self._limits for name in (low, high)):
            return False
        return bool((not low or self._limits[low] <= 0) and (not high or self._limits[high] >= 0))
