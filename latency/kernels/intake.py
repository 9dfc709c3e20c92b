"""Programs of the contract from int8 ONNX files in QDQ form.

Taken in are files with a QuantizeLinear and a DequantizeLinear around every layer, as this toolkit and ONNX Runtime's
`quantize_static` write them.  Activations are uint8 or int8 (whose codes are moved by 128) with one scale each, weights
int8 or fewer bits, by tensor or by channel.

Every rounding that the file has is kept, also that of a projection before its residual is added: without it, half of
the outputs differ from ONNX Runtime's behind five residual blocks, and nine in ten behind fifteen, since later layers
make more of small differences.  With it, outputs are the same where ONNX Runtime runs its own int8 kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import NodeProto, TensorProto, numpy_helper

from latency.kernels.contract import Dequantize, Logits, Program
from latency.kernels.intake_functions import cut, elementwise
from latency.kernels.intake_joins import add, batch_norm, concatenate, multiply
from latency.kernels.intake_layers import convolution, product
from latency.kernels.intake_node import BATCH, Handler, Node
from latency.kernels.intake_pools import global_pool, window_pool
from latency.kernels.intake_rounding import dequantize, quantize
from latency.kernels.intake_shapes import gather, identity, resize, shape_of, view
from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import Constant, Pixels, Sums, Unsupported, Value, Values
from latency.runtimes.session import called

_SHOWN = 3
_LAYERS = ("Conv", "Gemm", "MatMul")
_MOVES = ("Slice", "Gather", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Identity")

HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(("HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Softplus"), elementwise),
    **dict.fromkeys(("Div", "Min", "Max", "Abs", "Neg", "Erf", "Gelu", "Mish"), elementwise),
    **dict.fromkeys(("Relu", "Clip"), cut),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), view),
    **dict.fromkeys(("Identity", "Dropout"), identity),
    **dict.fromkeys(("Gemm", "MatMul"), product),
    **dict.fromkeys(("MaxPool", "AveragePool"), window_pool),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), global_pool),
    **dict.fromkeys(("Add", "Sub"), add),
    "Mul": multiply,
    "Conv": convolution,
    "BatchNormalization": batch_norm,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Gather": gather,
    "Concat": concatenate,
    "Resize": resize,
    "Shape": shape_of,
}


def program_of(model: bytes | Path | onnx.ModelProto) -> Program:
    """The program that a QDQ file stands for; nothing is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another input than one of float32 images of known size, or nodes that the contract does not cover:
            these are named by reason, the first few of each.
    """
    if isinstance(model, onnx.ModelProto):
        return _Intake(model).program()
    try:
        found = onnx.load_model(model) if isinstance(model, Path) else onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ValueError(f"fused kernels cannot read {called(model)}: it is no ONNX file") from error
    return _Intake(found).program()


class _Intake:
    """Walks over the nodes of a model in their order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self._stored = {t.name: t for t in model.graph.initializer}
        name, shape, self._batch = self._input()
        self._steps = Steps(shape)
        self._values: dict[str, Value | None] = {name: Pixels(0, shape)}  # None: behind a node that is refused
        self._refused: dict[str, tuple[NodeProto, str]] = {}

    def program(self) -> Program:
        """The program.

        Raises:
            ValueError: nodes that are not covered.
        """
        self._check()
        for node in self._graph.node:
            self._take(node)
        self._stop_if_refused()
        self._end()
        self._stop_if_refused()
        return self._steps.program()

    def _input(self) -> tuple[str, tuple[int, int, int], int | None]:
        """The name and the shape of the input, and how many images it is fixed to."""
        inputs = [value for value in self._graph.input if value.name not in self._stored]
        kinds = [value.type.tensor_type for value in inputs]
        sizes = [d.dim_value for d in kinds[0].shape.dim] if kinds else []
        floats = len(kinds) == 1 and kinds[0].elem_type == TensorProto.FLOAT
        if not floats or len(sizes) != 4 or not all(sizes[1:]) or len(self._graph.output) != 1:
            names = ", ".join(f"{value.name!r}" for value in inputs)
            raise ValueError(
                "fused kernels take files with one input of float32 images (b, c, h, w) of known size and one output, "
                f"got inputs {names or 'none'} of sizes {sizes} and {len(self._graph.output)} outputs"
            )
        return inputs[0].name, (sizes[1], sizes[2], sizes[3]), sizes[0] or None

    def _check(self) -> None:
        """Refuses what can be told from nodes alone."""
        dependent = _dependent(self._graph, self._values)
        for node in self._graph.node:
            if node.domain not in ("", "ai.onnx"):
                self._refuse(node, f"an operator of {node.domain}")
            elif node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in self._stored:
                self._refuse(node, "computes in fp32: its weight is not quantized")
            elif node.op_type not in HANDLERS and not dependent.isdisjoint(node.input):
                self._refuse(node, "an operator that has no counterpart")

    def _refuse(self, node: NodeProto, reason: str) -> None:
        self._refused.setdefault(_name(node), (node, reason))

    def _stop_if_refused(self) -> None:
        """One line with the nodes that are refused, by reason: the first few of each, and how many there are."""
        if not self._refused:
            return
        nodes = [_name(node) for node in self._graph.node]
        reasons: dict[str, list[str]] = {}
        for name in sorted(self._refused, key=nodes.index):
            node, why = self._refused[name]
            reasons.setdefault(f"({node.op_type}): {why}", []).append(repr(name))
        said = [f"{_some(names, ', ')} {reason}" for reason, names in reasons.items()]
        count = f"{len(self._refused)} of {len(nodes)} nodes"
        raise ValueError(f"fused kernels do not cover {count}: {_some(said, '; ')}")

    def _value(self, name: str) -> Value | None:
        if name in self._stored and name not in self._values:
            self._values[name] = Constant(_array(self._stored[name]))
        return self._values.get(name)

    def _take(self, node: NodeProto) -> None:
        given = tuple(self._value(name) if name else None for name in node.input)
        self._values.update(dict.fromkeys(node.output))
        if _name(node) in self._refused or any(
            value is None and name for name, value in zip(node.input, given, strict=True)
        ):
            return  # refused, or behind a node that is, which says nothing more
        taken = Node(_name(node), node.op_type, node, given, self._opset, self._batch)
        try:
            made = _ahead(taken) or HANDLERS[node.op_type](taken, self._steps)
        except Unsupported as reason:
            self._refuse(node, str(reason))
        else:
            self._values[node.output[0]] = made

    def _end(self) -> None:
        """The step that gives the output."""
        name = self._graph.output[0].name
        node = next((node for node in self._graph.node if name in node.output), None)
        value = self._value(name)
        if node is None or value is None:
            raise ValueError(f"the output {name!r} is made by no node")
        try:
            self._give(_name(node), value)
        except Unsupported as reason:
            self._refuse(node, str(reason))

    def _give(self, name: str, value: Value) -> None:
        flat = getattr(value, "flat", False)
        if isinstance(value, Values) and value.codes is not None and flat and value.shape[1:] == (1, 1):
            operation = Dequantize(value.codes.scale, value.codes.zero)
            self._steps.add(name, operation, (self._steps.tensor(name, value.codes),), value.shape[:1])
        elif isinstance(value, Sums) and value.weight is not None and flat and not value.cut and value.linear:
            bias = value.offset * value.scale.astype(np.float64) + value.bias
            outputs = len(value.weight)
            scale, bias = (np.broadcast_to(x, (outputs,)).astype(np.float32) for x in (value.scale, bias))
            self._steps.add(name, Logits(value.weight, scale, bias), value.inputs, (outputs,))
        else:
            raise Unsupported("gives the output: expected codes (b, classes) dequantized, or a linear layer's logits")


def _some(words: Sequence[str], comma: str) -> str:
    """The first few, and how many more there are."""
    more = len(words) - _SHOWN
    return comma.join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _name(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)


def _dependent(graph: onnx.GraphProto, known: Collection[str]) -> set[str]:
    """The tensors that depend on more than the shape of the input."""
    found = set(known)
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _array(tensor: TensorProto) -> np.ndarray:
    values = np.asarray(numpy_helper.to_array(tensor))
    return values.astype(np.int8) if tensor.data_type == TensorProto.INT4 else values


def _ahead(node: Node) -> Constant | None:
    """What a node makes where all it reads is constant, and None of others.

    Raises:
        Unsupported: a shape with the number of images in it, in a node that does more than moving it.
    """
    if node.kind in ("QuantizeLinear", "DequantizeLinear", "Shape"):
        return None
    if not all(value is None or isinstance(value, Constant) for value in node.inputs):
        return None
    given = [value.values if isinstance(value, Constant) else None for value in node.inputs]
    if node.kind not in _MOVES and any(x is not None and x.dtype == np.int64 and (x == BATCH).any() for x in given):
        raise Unsupported("computes with the number of images")
    try:
        return Constant(node.evaluate(given))
    except Exception as error:  # the reference's errors have no base of their own
        raise Unsupported(f"cannot be evaluated ahead: {str(error).splitlines()[0]}") from error
