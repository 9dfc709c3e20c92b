"""Structured pruning: channels of an ONNX graph taken out for good, so that what is left are smaller dense layers.

Channels that the graph couples (through sums, depthwise convolutions, groups) go together, as in DepGraph
(arXiv:2301.12900); `channel_flow` finds them.  A unit is what goes together; a group is the units that compete: those
that the same layers make, as many channels of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quant_search.sparsity.channel_flow import Edit, Flow, Role, channel_flow
from quant_search.sparsity.weighted import constants_of, write

Keep = Mapping[str, Sequence[int]]  # group name to the units that stay; groups without a name here stay whole


@dataclass(frozen=True)
class Part:
    """A constant along one axis of which the units of a group lie.

    Args:
        axis: of the constant as it is stored.
        units: the unit at each place of the axis; -1 where it is none of the group.
        role: "made" where the constant makes the channels, "read" where it weighs them for others, "carried" else.
    """

    node: str
    tensor: str
    axis: int
    units: tuple[int, ...]
    role: Role


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that compete with each other to be kept.

    Args:
        name: of the first node that makes them, with `#2` and so on where it makes several groups.
        layers: all nodes that make them, in order.
        size: how many units there are.
        width: how many channels they are in the layer that makes most of them; a multiple of `size`.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    width: int
    parts: tuple[Part, ...]


def channel_groups(model: onnx.ModelProto, flow: Flow | None = None) -> tuple[ChannelGroup, ...]:
    """The groups of channels that can go, in the order of the graph; inputs and outputs of the graph are none.

    Args:
        flow: what `channel_flow` found in `model`, where it is asked for more than once.

    Raises:
        ValueError: as of `channel_flow`.
    """
    flow = flow or channel_flow(model)
    classes = _classes(flow)
    owner, unit = np.full(len(flow.fast), -1), np.full(len(flow.fast), -1)
    for i, members in enumerate(classes.values()):
        owner[members], unit[members] = i, np.arange(len(members))
    parts: list[list[Part]] = [[] for _ in classes]
    for cut in flow.cuts:
        along = flow.tied[cut.atoms]
        for i in np.unique(owner[along]):
            if i >= 0:
                units = tuple(np.where(owner[along] == i, unit[along], -1).tolist())
                parts[i].append(Part(cut.node, cut.tensor, cut.axis, units, cut.role))
    return tuple(_group(name, members, own, flow) for (name, members), own in zip(classes.items(), parts, strict=True))


def _group(name: str, members: np.ndarray, parts: list[Part], flow: Flow) -> ChannelGroup:
    counts = {node: int(np.isin(flow.tied[atoms], members).sum()) for node, atoms in flow.makers}
    layers = tuple(node for node, count in counts.items() if count)
    return ChannelGroup(name, layers, len(members), max(counts.values()), tuple(parts))


def _classes(flow: Flow) -> dict[str, np.ndarray]:
    """Group name to the classes of atoms that are its units, in the order in which they are made.

    Those of the first maker of several groups are told apart by a number, in an order that pruning does not change.
    """
    made_by: dict[int, dict[int, int]] = {}  # class to maker to the channels that it makes of it
    for maker, (_, atoms) in enumerate(flow.makers):
        for member in flow.tied[atoms].tolist():
            if not flow.fast[member]:
                counts = made_by.setdefault(member, {})
                counts[maker] = counts.get(maker, 0) + 1
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for member, counts in made_by.items():
        alike.setdefault(tuple(counts.items()), []).append(member)
    groups: dict[str, np.ndarray] = {}
    for kind in sorted(alike):
        node = flow.makers[kind[0][0]][0]
        number = sum(name.partition("#")[0] == node for name in groups) + 1
        groups[node if number == 1 else f"{node}#{number}"] = np.array(alike[kind])
    return groups


def prune_channels(model: onnx.ModelProto, keep: Keep, flow: Flow | None = None) -> onnx.ModelProto:
    """A copy of `model` with the kept channels alone: smaller tensors under the same names, the same nodes.

    It computes what `model` would with zeros in the place of the channels that went.

    Args:
        flow: as of `channel_groups`.

    Raises:
        ValueError: an unknown group, units that are none of it or given twice, a tensor that would be left without
            channels, or as of `channel_flow`.
    """
    flow = flow or channel_flow(model)
    kept = _kept(flow, keep)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if kept.all():
        return result
    result.graph.ClearField("value_info")  # of the sizes before
    tensors = constants_of(result)
    for name, axis in dict.fromkeys((cut.tensor, cut.axis) for cut in flow.cuts):
        places = kept[next(cut.atoms for cut in flow.cuts if (cut.tensor, cut.axis) == (name, axis))]
        if not places.all():
            write(tensors[name], numpy_helper.to_array(tensors[name]).compress(places, axis))
    for edit in flow.edits:
        _apply(edit, result.graph, kept)
    return result


def survivors(model: onnx.ModelProto, keep: Keep) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each node that makes new channels, whether its input channels (i,) and its output channels (o,) stay.

    Raises:
        ValueError: as of `prune_channels`.
    """
    flow = channel_flow(model)
    kept = _kept(flow, keep)
    read = {cut.node: kept[cut.atoms] for cut in flow.cuts if cut.role == "read"}
    return {node: (read[node], kept[atoms]) for node, atoms in flow.makers if node in read}


def _kept(flow: Flow, keep: Keep) -> np.ndarray:
    """Whether each atom stays (n,)."""
    groups = _classes(flow)
    stays = np.ones(len(flow.fast), bool)
    for name, units in keep.items():
        if name not in groups:
            raise ValueError(f"unknown group of channels {name!r}: there are {', '.join(groups) or 'none'}")
        members = groups[name]
        _check_units(name, units, len(members))
        stays[members] = False
        stays[members[list(units)]] = True
    kept = stays[flow.tied]
    for tensor, atoms in flow.tensors.items():
        if not kept[atoms].any():
            raise ValueError(f"no channel of {tensor!r} would be left: keep more units of the groups that make it")
    return kept


def _check_units(name: str, units: Iterable[int], size: int) -> None:
    units = list(units)
    strange = next((u for u in units if not 0 <= u < size), None)
    if strange is not None:
        raise ValueError(f"group {name!r} has units 0 to {size - 1}, got {strange}")
    if not units or len(set(units)) < len(units):
        raise ValueError(f"units of group {name!r} to keep must be given, each once, got {units}")


def _apply(edit: Edit, graph: onnx.GraphProto, kept: np.ndarray) -> None:
    """Changes the setting of a node that depends on which channels are there."""
    node, stays = graph.node[edit.index], kept[edit.atoms]
    if stays.all():
        return
    if edit.kind == "group":
        next(a for a in node.attribute if a.name == "group").i = int(stays.sum())
    elif edit.kind == "gather":
        places = np.cumsum(stays) - 1
        _give(graph, node, 1, places[edit.parts[0][stays[edit.parts[0]]]])
    elif edit.kind == "slice":
        start = int(stays[: edit.parts[0][0]].sum())
        _give(graph, node, 1, np.array([start]))
        _give(graph, node, 2, np.array([start + int(stays[edit.parts[0]].sum())]))
    elif edit.kind == "split":
        _give(graph, node, 1, np.array([int(stays[part].sum()) for part in edit.parts]))
        settings = [a for a in node.attribute if a.name != "num_outputs"]
        del node.attribute[:]
        node.attribute.extend(settings)
    elif edit.kind == "pad":
        pads = np.array(edit.values)
        pads[1], pads[len(pads) // 2 + 1] = (stays[part].sum() for part in edit.parts)
        _give(graph, node, 1, pads)
    else:
        _give(graph, node, 1, np.array([edit.values[0], stays.sum()]))


def _give(graph: onnx.GraphProto, node: NodeProto, i: int, values: np.ndarray) -> None:
    """A constant of the node's own in the place of its input at `i`."""
    name = f"{node.output[0]}_input{i}"
    values = values.astype(np.int64)
    graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, values.shape, values))
    while len(node.input) <= i:
        node.input.append("")
    node.input[i] = name
