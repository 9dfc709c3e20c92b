"""Which channels of an ONNX graph are one and the same: from the weights that make them to those that read them.

Every output channel of a convolution or matrix product is an atom.  What works on each channel alone hands atoms on,
what adds or multiplies channels ties those at one place together, what joins or picks channels joins or picks atoms;
what mixes channels in a way that is not known here, and the ends of the graph, hold theirs fast.  The idea is that of
DepGraph (arXiv:2301.12900), by single channels in the place of whole layers, so that a sum over joined tensors needs
no rule of its own.  Channels are axis 1 of every activation.

Of a convolution in groups the channels at one place of every group are tied, so that groups stay equal; a depthwise one
hands its channels on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from latency.runtimes.onnx_runtime import tensors_of
from quant_search.sparsity.weighted import attributes_of, called, check_not_quantized, constants_of

Role = Literal["made", "read", "carried"]
_LEAST_OPSET = 13  # before it, sizes of Split and axes of Squeeze were attributes
Atoms = np.ndarray  # int64 (c,): the atom of each channel


@dataclass(frozen=True, eq=False)
class Cut:
    """An axis of a constant along which atoms lie, to be cut where they go.

    Args:
        role: "made" where the values at an atom's place make its channel and may be 0 to make it 0, "read" where they
            weigh it for others, "carried" for the rest.
    """

    tensor: str
    axis: int
    atoms: Atoms
    role: Role
    node: str


@dataclass(frozen=True, eq=False)
class Edit:
    """A node with a setting that depends on which channels of its input go.

    Args:
        index: of the node in the graph.
        atoms: of the node's input.
        parts: places of the input that each output takes, in order.
    """

    kind: Literal["group", "gather", "slice", "split", "reshape"]
    index: int
    atoms: Atoms
    parts: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class Flow:
    """The atoms of a graph.

    Args:
        tied: class of each atom (n,): those of one class stay or go together.
        fast: whether a class holds an atom that must stay (classes,).
        makers: nodes that make new channels by weights, with those.
        tensors: activations with known channels, to their atoms.
    """

    tied: np.ndarray
    fast: np.ndarray
    makers: tuple[tuple[str, Atoms], ...]
    cuts: tuple[Cut, ...]
    edits: tuple[Edit, ...]
    tensors: Mapping[str, Atoms]


def channel_flow(model: onnx.ModelProto) -> Flow:
    """The atoms of `model`; it runs once on blank inputs, for the shapes of its tensors.

    Raises:
        ValueError: a quantized model, an opset before 13, graphs inside of nodes, or a model that does not run.
    """
    check_not_quantized(model)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _LEAST_OPSET:
        raise ValueError(f"the model has opset {opset}, channels are followed from {_LEAST_OPSET} on: export it anew")
    for node in model.graph.node:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ValueError(
                f"node {called(node)!r} ({node.op_type}) holds a graph of its own, which is not looked into"
            )
    tracer = _Tracer(model)
    for index, node in enumerate(model.graph.node):
        tracer.visit(index, node)
    return tracer.flow()


class _Tracer:
    """Follows atoms through the nodes of one graph, in order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = constants_of(model)
        self._graph = model.graph
        self._shapes = {name: shape for name, (shape, _) in tensors_of(model).items()}
        self._count = 0
        self._ties: list[tuple[Atoms, Atoms]] = []
        self._fast: list[Atoms] = []
        self._makers: list[tuple[str, Atoms]] = []
        self.cuts: list[Cut] = []
        self.edits: list[Edit] = []
        self.atoms: dict[str, Atoms] = {}
        self.shape_of: dict[str, str] = {}  # results of Shape nodes
        self.index = 0
        for value in model.graph.input:
            if value.name not in self.constants and len(shape := self.shape(value.name)) > 1:
                self.atoms[value.name] = self.hold(self.fresh(shape[1]))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an activation at batch 1."""
        return self._shapes.get(name, ())

    def fresh(self, n: int) -> Atoms:
        """New atoms."""
        self._count += n
        return np.arange(self._count - n, self._count)

    def make(self, node: NodeProto, n: int) -> Atoms:
        """New channels that the weights of a node make."""
        atoms = self.fresh(n)
        self._makers.append((called(node), atoms))
        return atoms

    def tie(self, a: Atoms, b: Atoms) -> None:
        """Atoms at one place stay or go together."""
        self._ties.append((a, b))

    def hold(self, atoms: Atoms) -> Atoms:
        """Atoms that stay."""
        self._fast.append(atoms)
        return atoms

    def cut(self, node: NodeProto, tensor: str, axis: int, atoms: Atoms, role: Role) -> None:
        """Atoms lie along an axis of a constant; where it was cut before, they are tied to the others."""
        for other in self.cuts:
            if (other.tensor, other.axis) == (tensor, axis):
                self.tie(other.atoms, atoms)
        self.cuts.append(Cut(tensor, axis, atoms, role, called(node)))

    def edit(self, kind: Literal["group", "gather", "slice", "split", "reshape"], atoms: Atoms, *parts: Atoms) -> None:
        """The node that is visited has a setting that depends on atoms."""
        self.edits.append(Edit(kind, self.index, atoms, parts))

    def visit(self, index: int, node: NodeProto) -> None:
        """Gives the outputs of a node their atoms, or holds those of its inputs fast."""
        self.index = index
        if node.op_type == "Constant" or all(name in self.constants for name in node.input if name):
            return
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        made = rule(self, node) if rule else None
        if made is None:
            self._hold_inputs(node)
            return
        for name, atoms in zip((n for n in node.output if n), made, strict=False):
            if self.shape(name)[1:2] != (len(atoms),):  # what the rule says is not what runs
                self.hold(atoms)
            else:
                self.atoms[name] = atoms

    def _hold_inputs(self, node: NodeProto) -> None:
        for name in node.input:
            name = self.shape_of.get(name, name)
            if name in self.atoms:
                self.hold(self.atoms[name])

    def flow(self) -> Flow:
        """What was found; what the graph gives out, and constants that not only cuts read, stay as they are."""
        for value in self._graph.output:
            if value.name in self.atoms:
                self.hold(self.atoms[value.name])
        self._hold_shared()
        none = np.zeros(0, int)
        a, b = (np.concatenate([none, *side]) for side in zip((none, none), *self._ties, strict=True))
        graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(self._count, self._count))
        classes, tied = connected_components(graph, directed=False)
        fast = np.zeros(classes, bool)
        for atoms in self._fast:
            fast[tied[atoms]] = True
        return Flow(tied, fast, tuple(self._makers), tuple(self.cuts), tuple(self.edits), self.atoms)

    def _hold_shared(self) -> None:
        reads = Counter(name for node in self._graph.node for name in node.input)
        reads.update(value.name for value in self._graph.output)
        cutters: dict[tuple[str, int], set[str]] = {}
        for cut in self.cuts:
            cutters.setdefault((cut.tensor, cut.axis), set()).add(cut.node)
        for cut in self.cuts:
            if reads[cut.tensor] > len(cutters[cut.tensor, cut.axis]):
                self.hold(cut.atoms)


Rule = Callable[[_Tracer, NodeProto], Sequence[Atoms] | None]  # atoms of the outputs; None holds those of the inputs


def _convolution(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
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


def _product(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
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


def _operand(t: _Tracer, node: NodeProto, name: str, atoms: Atoms, rank: int, role: Role) -> None:
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


def _elementwise(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
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


def _each(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """What works on every channel alone and in the same way."""
    x = t.atoms.get(node.input[0])
    return None if x is None or any(node.output[1:]) else [x]


def _batch_norm(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    x = t.atoms.get(node.input[0])
    if x is None or any(name not in t.constants for name in node.input[1:]) or any(node.output[1:]):
        return None
    for i, name in enumerate(node.input[1:]):
        t.cut(node, name, 0, x, "made" if i < 2 else "carried")
    return [x]


def _concat(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    if any(name not in t.atoms for name in node.input):
        return None
    parts = [t.atoms[name] for name in node.input]
    if _integer(node, "axis", 1) % len(t.shape(node.output[0])) == 1:
        return [np.concatenate(parts)]
    for part in parts[1:]:
        t.tie(parts[0], part)
    return [parts[0]]


def _flatten(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
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
            t.edit("reshape", out)
    return [out]


def _spatial(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Reductions and changes of shape that leave batch and channels alone."""
    x, rank = t.atoms.get(node.input[0]), len(t.shape(node.input[0]))
    axes = _integers(node, "axes") or _values(t, node, 1)
    rank += len(axes) if axes and node.op_type == "Unsqueeze" else 0
    if x is None or not axes or any(axis % rank < 2 for axis in axes):
        return None
    return [x]


def _pad(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    pads, rank = _values(t, node, 1), len(t.shape(node.input[0]))
    if pads is None or len(pads) != 2 * rank or any(pads[i] for i in (0, 1, rank, rank + 1)):
        return None
    return _each(t, node)


def _resize(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    scales = _values(t, node, 2)
    return _each(t, node) if scales and scales[1] == 1 else None


def _gather(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    x, places = t.atoms.get(node.input[0]), t.constants.get(node.input[1])
    if x is None or places is None or len(places.dims) != 1 or _integer(node, "axis", 0) != 1:
        return None
    picked = numpy_helper.to_array(places) % len(x)
    t.edit("gather", x, picked)
    return [x[picked]]


def _slice(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
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


def _split(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
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


def _shape(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Looking at a shape holds nothing yet; what it is used for may."""
    if node.attribute:
        return None
    t.shape_of[node.output[0]] = node.input[0]
    return []


def _zeros(t: _Tracer, node: NodeProto) -> Sequence[Atoms] | None:
    """Constants as large as another tensor."""
    like = t.shape_of.get(node.input[0])
    return [t.atoms[like]] if like in t.atoms else None


def _integer(node: NodeProto, name: str, default: int) -> int:
    return cast(int, attributes_of(node).get(name, default))


def _integers(node: NodeProto, name: str) -> list[int] | None:
    return cast("list[int] | None", attributes_of(node).get(name))


def _values(t: _Tracer, node: NodeProto, i: int) -> list[int] | None:
    """The numbers of the constant that is a node's input at `i`."""
    tensor: TensorProto | None = t.constants.get(node.input[i]) if len(node.input) > i else None
    return None if tensor is None else numpy_helper.to_array(tensor).ravel().tolist()


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
