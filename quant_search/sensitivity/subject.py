"""What a sensitivity measure looks at, and what it finds: the damage of each precision to each group of nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from quant_search.precision import parse_precision

Progress = Callable[[int, int], None]  # parts done, and parts in all
Build = Callable[[Mapping[str, str]], onnx.ModelProto]

_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, the groups of its nodes, and the precisions that each group may have.

    Args:
        model: in fp32, with one input (b, ...) float32 and one output, logits (b, classes).
        groups: name to the names of the nodes that change their precision together: a layer, or a block.
        options: precisions (`fp32`, `int8`, `w4a8`, `w4`) for every group, or of each group its own.
        images: (n, ...) float32, from which ranges and damages are taken.
        labels: classes (n,) of the images, where a measure needs them.
        build: makes the file in which groups have the precisions chosen for them and all others fp32, for measures that
            run files; unless given, weights are rounded to the nearest, and ranges are taken from `images`.

    Raises:
        ValueError: no groups, images or options, an unknown precision or node, a node of two groups, or labels that
            do not fit the images; groups that share a weight, which has one precision.
    """

    model: onnx.ModelProto
    groups: Mapping[str, Sequence[str]]
    options: Sequence[str] | Mapping[str, Sequence[str]]
    images: np.ndarray
    labels: np.ndarray | None = None
    build: Build | None = None
    of_group: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        own = isinstance(self.options, Mapping)
        given = self.options if isinstance(self.options, Mapping) else dict.fromkeys(self.groups, self.options)
        if own and given.keys() != self.groups.keys():
            odd = sorted(given.keys() ^ self.groups.keys())
            raise ValueError(f"options are given for every group or for each by name: {odd[0]!r} has only one of them")
        object.__setattr__(self, "of_group", {name: tuple(given[name]) for name in self.groups})
        self._check_groups()
        self._check_images()
        for option in self.every_option:
            parse_precision(option)

    def _check_groups(self) -> None:
        if not self.groups or not all(self.of_group.values()):
            raise ValueError("sensitivity needs groups of nodes, each with one precision at least, got none")
        there, taken = {node.name for node in self.model.graph.node}, dict[str, str]()
        for group, nodes in self.groups.items():
            for name in nodes:
                if name not in there or not name:
                    raise ValueError(f"group {group!r} has a node {name!r} that the model does not have")
                if taken.setdefault(name, group) != group:
                    raise ValueError(f"node {name!r} stands in the groups {taken[name]!r} and {group!r}: in one only")
        readers: dict[str, str] = {}
        for weight, name in _weights_read(self.model):
            if name in taken and readers.setdefault(weight, taken[name]) != taken[name]:
                others = f"{readers[weight]!r} and {taken[name]!r}"
                raise ValueError(f"the groups {others} share the weight {weight!r}: put them into one group")

    def _check_images(self) -> None:
        if not len(self.images) or self.images.dtype != np.float32:
            got = f"{len(self.images)} of {self.images.dtype}"
            raise ValueError(f"sensitivity needs images of float32, one at least, got {got}")
        if self.labels is not None and self.labels.shape != (len(self.images),):
            got = f"{self.labels.shape} for {len(self.images)} images"
            raise ValueError(f"labels are the classes (n,) of the images (n, ...), got {got}")

    @property
    def every_option(self) -> tuple[str, ...]:
        """The precisions that any group may have, in the order in which they are first named."""
        return tuple(dict.fromkeys(option for options in self.of_group.values() for option in options))

    def table(self, damage: Callable[[str, str], float], progress: Progress | None = None) -> np.ndarray:
        """The damage (groups, options) by a function of a group and an option, NaN where a group lacks the option."""
        options, pairs = self.every_option, [(g, o) for g, own in self.of_group.items() for o in dict.fromkeys(own)]
        rows = {group: i for i, group in enumerate(self.of_group)}
        result = np.full((len(rows), len(options)), np.nan)
        for done, (group, option) in enumerate(pairs):
            result[rows[group], options.index(option)] = damage(group, option)
            if progress is not None:
                progress(done + 1, len(pairs))
        return result

    def classes(self, measure: str) -> np.ndarray:
        """The labels (n,), for a measure that needs them.

        Raises:
            ValueError: there are none.
        """
        if self.labels is None:
            raise ValueError(f"{measure} needs the labels of the images, got none: give them, or take sqnr or kl")
        return self.labels


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The damage done to groups by options.

    Args:
        measure: its name in the catalog.
        damage: (groups, options), larger is worse, fp32 is 0; NaN where a group does not have the option.  Measured
            accuracy drops may be negative: a quantized network may be better by chance.
        seconds: how long it took.
        error: standard error of the damage (groups, options), where it is estimated from random draws.
    """

    measure: str
    groups: tuple[str, ...]
    options: tuple[str, ...]
    damage: np.ndarray
    seconds: float
    error: np.ndarray | None = None

    def of(self, group: str, option: str) -> float:
        """The damage of one option to one group.

        Raises:
            KeyError: no such group or option.
        """
        if group not in self.groups or option not in self.options:
            raise KeyError(f"no damage of {option!r} to {group!r} was measured")
        return float(self.damage[self.groups.index(group), self.options.index(option)])

    def rows(self) -> dict[str, dict[str, float]]:
        """Group to each option that it has to the damage: what allocation minimises the sum of."""
        table = zip(self.groups, self.damage, strict=True)
        return {g: {o: float(d) for o, d in zip(self.options, row, strict=True) if not np.isnan(d)} for g, row in table}

    def ranking(self, option: str) -> tuple[str, ...]:
        """The groups that have the option, the most sensitive first."""
        column = self.damage[:, self.options.index(option)]
        return tuple(self.groups[i] for i in np.argsort(-column, kind="stable") if not np.isnan(column[i]))


class Measure(Protocol):
    """A sensitivity measure as its user sees it; settings of its own come by keyword."""

    def __call__(self, subject: Subject, progress: Progress | None = None) -> Sensitivity:
        """The damage of each option to each group; calls `progress` after every part of the work."""
        ...


def by_layer(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Groups for a model without blocks: each layer with weights, and what runs between it and the next.

    A node without weights goes with the latest layer before it that feeds it, directly or not; what no layer feeds is
    left out.  Layers that share a weight are one group.  A group is called as its first layer's node.
    """
    weight_of, place = {name: weight for weight, name in _weights_read(model)}, dict[str, int]()
    first: dict[str, int] = {}  # weight to the first of the groups that read it
    joined: list[int] = []
    groups: list[list[str]] = []
    for node in model.graph.node:
        if node.name in weight_of:
            groups.append([])
            group = len(groups) - 1
            joined.append(first.setdefault(weight_of[node.name], group))
        else:
            group = max((place[name] for name in node.input if name in place), default=-1)
        if group >= 0:
            groups[group].append(node.name)
            place.update(dict.fromkeys(node.output, group))
    together: dict[int, list[str]] = {}
    for nodes, into in zip(groups, joined, strict=True):
        together.setdefault(into, []).extend(nodes)
    return {nodes[0]: nodes for nodes in together.values()}


def _weights_read(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Each weight with the name of a layer that reads it, in the order of the graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    layers = (node for node in model.graph.node if node.op_type in _WEIGHTED)
    return [(node.input[1], node.name) for node in layers if constants.intersection(node.input[1:2])]
