"""What each ONNX operator does with channels: the rules by which `channel_flow` follows them through a graph.

A rule gives the atoms of a node's outputs, in order, or None where the channels that the node reads must stay.
Source of the operators: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from onnx import NodeProto

from quant_search.sparsity.weighted import attributes_of

if TYPE_CHECKING:
    from quant_search.sparsity.channel_flow import Atoms, Role, Tracer

    Rule = Callable[[Tracer, NodeProto], Sequence[Atoms] | None]


def _convolution(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    weight, x = t.constants.get(node.input[1]), t.atoms.get(node.input[0])
    groups = _integer(node, "group", 1)
    if weight is None or (x is None and groups > 1) or any(n not in t.constants for n in node.input[2:] if n):
        return None
    if x is not None and groups > 1 and groups == len(x):
        out = x.repeat(weight.dims[0] // groups)
        t.edit("group", x)
    else:
        out = t.make(node, weight.dims[0])
        for atoms in (out,) if x is None else (x, out):
            places = atoms.reshape(groups, -1)
            for other in places[1:]:
                t.tie(places[0], other)
        if x is not None:
            t.cut(node, node.input[1], 1, x[: weight.dims[1]], "read")
    for name in node.input[1:]:
        if name:
            t.cut(node, name, 0, out, "made")
    return [out]


def _product(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Gemm and MatMul of (b, c) by a constant."""
    weight, x = t.constants.get(node.input[1]), t.atoms.get(node.input[0])
    if weight is None or len(weight.dims) != 2 or len(t.shape(node.input[0])) != 2 or _integer(node, "transA", 0):
        return None
    if any(name not in t.constants for name in node.input[2:] if name):
        return None
    swapped = _integer(node, "transB", 0)
    out = t.make(node, weight.dims[1 - swapped])
    if x is not None:
        t.cut(node, node.input[1], swapped, x, "read")
    t.cut(node, node.input[1], 1 - swapped, out, "made")
    for name in node.input[2:]:
        _operand(t, node, name, out, 2, "made")
    return [out]


def _operand(t: Tracer, node: NodeProto, name: str, atoms: Atoms, rank: int, role: Role) -> None:
    """What is added to or multiplied with channels at `atoms`, of an activation of so many axes."""
    if name in t.constants:
        dims = t.constants[name].dims
        axis = len(dims) - rank + 1
        if axis >= 0 and dims[axis] == len(atoms) > 1:
            t.cut(node, name, axis, atoms, role)
    elif len(other := t.atoms[name]) == len(atoms):
        t.tie(other, atoms)
    else:
        t.hold(other)  # one for all channels


def _elementwise(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    rank, names = len(t.shape(node.output[0])), [name for name in node.input if name]
    active = [name for name in names if name not in t.constants]
    if rank < 2 or any(name not in t.atoms or len(t.shape(name)) != rank for name in active):
        return None
    channels = t.shape(node.output[0])[1]
    whole = next((t.atoms[name] for name in active if len(t.atoms[name]) == channels), None)
    if whole is None:
        return None
    for name in names:
        _operand(t, node, name, whole, rank, "carried")
    return [whole]


def _each(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """What works on every channel alone and in the same way."""
    x = t.atoms.get(node.input[0])
    return None if x is None or any(node.output[1:]) else [x]


def _batch_norm(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    x = t.atoms.get(node.input[0])
    if x is None or any(name not in t.constants for name in node.input[1:]) or any(node.output[1:]):
        return None
    for i, name in enumerate(node.input[1:]):
        t.cut(node, name, 0, x, "made" if i < 2 else "carried")
    return [x]


def _concat(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    if any(name not in t.atoms for name in node.input):
        return None
    parts = [t.atoms[name] for name in node.input]
    if _integer(node, "axis", 1) % len(t.shape(node.output[0])) == 1:
        return [np.concatenate(parts)]
    for part in parts[1:]:
        t.tie(parts[0], part)
    return [parts[0]]


def _flatten(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """(b, c, ...) to (b, c * ...), by Flatten or by a Reshape to sizes that are written down."""
    x, before, after = t.atoms.get(node.input[0]), t.shape(node.input[0]), t.shape(node.output[0])
    if x is None or len(after) != 2 or after != (before[0], math.prod(before[1:])):
        return None
    out = x.repeat(after[1] // len(x))
    if node.op_type == "Reshape":
        sizes = _values(t, node, 1)
        if sizes is None:
            return None
        if sizes[1] != -1:
            t.edit("reshape", out, values=sizes)
    return [out]


def _spatial(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Reductions and changes of shape that leave batch and channels alone."""
    x, rank = t.atoms.get(node.input[0]), len(t.shape(node.input[0]))
    axes = _integers(node, "axes") or _values(t, node, 1)
    rank += len(axes) if axes and node.op_type == "Unsqueeze" else 0
    if x is None or not axes or any(axis % rank < 2 for axis in axes):
        return None
    return [x]


def _pad(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Constant channels before or after, as on shortcuts of ResNets for CIFAR, go with those that they are added to."""
    x, pads, rank = t.atoms.get(node.input[0]), _values(t, node, 1), len(t.shape(node.input[0]))
    if x is None or pads is None or len(pads) != 2 * rank or pads[0] or pads[rank]:
        return None
    before, after = pads[1], pads[rank + 1]
    if not before and not after:
        return [x]
    if min(before, after) < 0 or attributes_of(node).get("mode", b"constant") != b"constant":
        return None
    out = np.concatenate([t.fresh(before), x, t.fresh(after)])
    t.edit("pad", out, np.arange(before), np.arange(before + len(x), len(out)), values=pads)
    return [out]


def _resize(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    scales = _values(t, node, 2)
    return _each(t, node) if scales and scales[1] == 1 else None


def _gather(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    x, places = t.atoms.get(node.input[0]), t.value(node.input[1])
    if x is None or places is None or places.ndim != 1 or _integer(node, "axis", 0) != 1:
        return None
    picked = places % len(x)
    t.edit("gather", x, picked)
    return [x[picked]]


def _slice(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    x, rank = t.atoms.get(node.input[0]), len(t.shape(node.input[0]))
    starts, ends, axes, steps = (_values(t, node, i) for i in (1, 2, 3, 4))
    if x is None or starts is None or ends is None or axes is None:
        return None
    along = [axis % rank for axis in axes]
    if 0 in along or (len(node.input) > 4 and steps is None):
        return None
    if 1 not in along:
        return [x]
    if along != [1] or steps not in (None, [1]):
        return None
    taken = np.arange(len(x))[starts[0] : ends[0]]
    t.edit("slice", x, taken)
    return [x[taken]]


def _split(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    x, rank = t.atoms.get(node.input[0]), len(t.shape(node.input[0]))
    if x is None or not all(node.output):
        return None
    axis = _integer(node, "axis", 0) % rank
    if axis != 1:
        return [x] * len(node.output) if axis else None
    ends = np.cumsum([t.shape(name)[1] for name in node.output])
    parts = np.split(np.arange(len(x)), ends[:-1])
    t.edit("split", x, *parts)
    return [x[part] for part in parts]


def _shape(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Looking at a shape holds nothing yet; what it is used for may."""
    if node.attribute:
        return None
    t.shape_of[node.output[0]] = node.input[0]
    return []


def _zeros(t: Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Constants as large as another tensor."""
    like = t.shape_of.get(node.input[0])
    return [t.atoms[like]] if like in t.atoms else None


def _integer(node: NodeProto, name: str, default: int) -> int:
    return cast(int, attributes_of(node).get(name, default))


def _integers(node: NodeProto, name: str) -> list[int] | None:
    return cast("list[int] | None", attributes_of(node).get(name))


def _values(t: Tracer, node: NodeProto, i: int) -> list[int] | None:
    """The numbers that a node's input at `i` holds whatever the graph is given."""
    value = t.value(node.input[i]) if len(node.input) > i and node.input[i] else None
    return None if value is None else value.ravel().tolist()


_EACH = (
    "Abs", "AveragePool", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "MaxPool", "Mish",
    "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
_ELEMENTWISE = ("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum")
_SPATIAL = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Squeeze", "Unsqueeze")

RULES: Mapping[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "ConstantOfShape": _zeros,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _product,
    "InstanceNormalization": _batch_norm,
    "MatMul": _product,
    "Pad": _pad,
    "Reshape": _flatten,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    **dict.fromkeys(_EACH, _each),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_SPATIAL, _spatial),
}
