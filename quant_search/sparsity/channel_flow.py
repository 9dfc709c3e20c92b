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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from latency.runtimes.onnx_runtime import tensors_of
from quant_search.sparsity.channel_rules import RULES
from quant_search.sparsity.weighted import called, check_not_quantized, constants_of

Role = Literal["made", "read", "carried"]
EditKind = Literal["group", "gather", "slice", "split", "pad", "reshape"]
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
        atoms: of the node's input; of its output for a Pad or Reshape.
        parts: places of the input that each output takes, in order; those that a Pad adds before and after.
        values: pads of a Pad, sizes of a Reshape.
    """

    kind: EditKind
    index: int
    atoms: Atoms
    parts: tuple[np.ndarray, ...] = ()
    values: tuple[int, ...] = ()


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
    tracer = Tracer(model)
    for index, node in enumerate(model.graph.node):
        tracer.visit(index, node)
    return tracer.flow()


class Tracer:
    """Follows atoms through the nodes of one graph, in order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = constants_of(model)
        self._graph, self._opsets = model.graph, list(model.opset_import)
        self._fixed: list[NodeProto] = []  # nodes that compute with constants alone
        self._computed: set[str] = set()  # what they make
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

    def edit(self, kind: EditKind, atoms: Atoms, *parts: Atoms, values: Sequence[int] = ()) -> None:
        """The node that is visited has a setting that depends on atoms."""
        self.edits.append(Edit(kind, self.index, atoms, parts, tuple(values)))

    def value(self, name: str) -> np.ndarray | None:
        """What is known of a tensor without an input: a constant, or what nodes compute from constants alone."""
        if name in self.constants:
            return numpy_helper.to_array(self.constants[name])
        if name not in self._computed:
            return None
        graph = helper.make_graph(self._fixed, "fixed", [], [helper.make_empty_tensor_value_info(name)])
        graph.initializer.extend(self._graph.initializer)
        model = helper.make_model(graph, opset_imports=self._opsets)
        (value,) = ReferenceEvaluator(model).run(None, {})
        return np.asarray(value)

    def visit(self, index: int, node: NodeProto) -> None:
        """Gives the outputs of a node their atoms, or holds those of its inputs fast."""
        self.index = index
        if all(name in self.constants or name in self._computed for name in node.input if name):
            self._fixed.append(node)
            self._computed.update(node.output)
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
