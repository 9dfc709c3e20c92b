"""From an ONNX model to a torch module that computes the same: one step per node, in the order of the file.

The file stays what is measured.  Of the converters there are, onnx2torch 1.5 refuses a layer norm over the last axis,
and what onnx2pytorch 0.6 makes cannot be traced; both go through Python at every node of every call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from latency.runtimes.torch_operators import OPERATORS

_LEAST_OPSET = 13  # before it, softmax and others meant something else
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class _Step:
    """One node.

    Args:
        called: what it is called in errors.
        as_values: positions of inputs that are handed over as Python numbers.
        frees: tensors that no later step needs.
    """

    called: str
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    as_values: frozenset[int]
    frees: tuple[str, ...] = ()


class OnnxModule(nn.Module):
    """The network of an ONNX model with one input and one output; weights are buffers.

    Attributes:
        on_tensor: is called with the name and the value of the input and of every tensor that a node makes; what it
            returns is what the nodes after it read.
        buffer_of: the initializers and constants in floating point that nodes read, to the names of their buffers;
            `torch.func.functional_call` puts others in their place, which may need gradients.
    """

    on_tensor: Callable[[str, Tensor], Tensor] | None = None

    def __init__(self, steps: list[_Step], constants: Mapping[str, Tensor], given: str, result: str) -> None:
        super().__init__()
        self._steps, self._input, self._output = steps, given, result
        self._numbers: dict[str, Tensor] = {}  # shapes and indices, which stay on the CPU with what is computed of them
        self.buffer_of: dict[str, str] = {}
        for name in dict.fromkeys(name for step in steps for name in (*step.inputs, result) if name in constants):
            tensor = constants[name]
            if tensor.is_floating_point() or tensor.dtype == torch.bool:
                self.buffer_of[name] = f"weight_{len(self.buffer_of)}"
                self.register_buffer(self.buffer_of[name], tensor)
            if not tensor.is_floating_point() or any(name in _values_of(step) for step in steps):
                self._numbers[name] = tensor

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) of `x` (b, ...).

        Raises:
            ValueError: a node that cannot be computed so.
        """
        seen = self.on_tensor or _unseen
        known: dict[str, Any] = {self._input: seen(self._input, x)}
        for step in self._steps:
            arguments = [self._argument(step, i, name, known) for i, name in enumerate(step.inputs)]
            for name, value in zip(step.outputs, _run(step, arguments), strict=False):
                known[name] = seen(name, value)
            for name in step.frees:
                known.pop(name, None)
        result: Tensor = known[self._output]
        return result

    def _argument(self, step: _Step, i: int, name: str, known: Mapping[str, Any]) -> Any:
        if not name:
            return None
        if i in step.as_values:
            return (known[name] if name in known else self._numbers[name]).tolist()
        if name in known:
            return known[name]
        return getattr(self, self.buffer_of[name]) if name in self.buffer_of else self._numbers[name]


def _unseen(_: str, value: Tensor) -> Tensor:
    return value


def _values_of(step: _Step) -> set[str]:
    return {step.inputs[i] for i in step.as_values if i < len(step.inputs)}


def _run(step: _Step, arguments: list[Any]) -> tuple[Tensor, ...]:
    try:
        result = step.run(*arguments)
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
        raise ValueError(f"{step.called} cannot be computed in torch: {_gist(error)}") from error
    return result if isinstance(result, tuple) else (result,)


def _gist(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def to_torch(model: onnx.ModelProto) -> OnnxModule:
    """The module of a model, in fp32; what depends on weights alone is computed here, once.

    Raises:
        ValueError: quantized nodes, an operator or attribute that is not known here, an opset before 13, or not one
            input and one output.
    """
    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _LEAST_OPSET:
        raise ValueError(f"the model has opset {opset}, torch takes it from {_LEAST_OPSET} on: export it anew")
    constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"the model has {len(inputs)} inputs and {len(graph.output)} outputs, expected one of each")
    steps = []
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(node)
            continue
        step = _step(node)
        if all(name in constants or not name for name in step.inputs):
            constants.update(zip(step.outputs, _run(step, _constant_arguments(step, constants)), strict=False))
        else:
            steps.append(step)
    result = graph.output[0].name
    return OnnxModule(_with_frees(steps, result), constants, inputs[0], result).eval()


def _constant_arguments(step: _Step, constants: Mapping[str, Tensor]) -> list[Any]:
    tensors = [constants[name] if name else None for name in step.inputs]
    return [t.tolist() if t is not None and i in step.as_values else t for i, t in enumerate(tensors)]


def _with_frees(steps: list[_Step], result: str) -> list[_Step]:
    """The steps, each with what it is the last to need: a batch of images leaves large tensors."""
    last = {name: i for i, step in enumerate(steps) for name in (*step.outputs, *step.inputs)}
    frees: dict[int, list[str]] = {}
    for name, i in last.items():
        if name != result:
            frees.setdefault(i, []).append(name)
    return [
        _Step(s.called, s.run, s.inputs, s.outputs, s.as_values, tuple(frees.get(i, ()))) for i, s in enumerate(steps)
    ]


def _step(node: onnx.NodeProto) -> _Step:
    called = f"node {node.name or node.output[0]!r} ({node.op_type})"
    if node.op_type in _QUANTIZED:
        raise ValueError(f"{called} is quantized, and torch runs fp32 files only: search with --precision fp32")
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        raise ValueError(f"{called}: torch has no form of this operator here; measure it on cpu (ONNX Runtime)")
    function = OPERATORS[node.op_type]
    signature = inspect.signature(function)
    attributes = {a.name: _attribute(a) for a in node.attribute}
    unknown = sorted(attributes.keys() - signature.parameters.keys())
    if unknown:
        raise ValueError(f"{called}: its attribute {unknown[0]!r} is not known to the form in torch")
    if node.op_type == "Split":
        attributes["outputs"] = len(node.output)
    elif any(node.output[1:]):
        raise ValueError(f"{called} has {len(node.output)} outputs, and its form in torch has one")
    inputs = tuple(node.input)
    try:
        signature.bind(*inputs, **attributes)
    except TypeError as error:
        raise ValueError(f"{called} does not fit its operator: {error}") from error
    kinds = [p.annotation for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    as_values = frozenset(i for i, kind in enumerate(kinds) if kind == "Values")
    return _Step(called, functools.partial(function, **attributes), inputs, tuple(node.output), as_values)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return _tensor(value) if isinstance(value, onnx.TensorProto) else value


def _tensor(proto: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def _constant(node: onnx.NodeProto) -> Tensor:
    (attribute,) = node.attribute
    value = _attribute(attribute)
    return value if isinstance(value, Tensor) else torch.tensor(value)
