"""Inherited accuracies of many subnets of one supernet, which share the work for the links that they begin with.

Subnets whose chains begin with equal links have, after those, the same calibrated activations.  So the chains are
walked as a radix tree, depth first: what a group of subnets has in common is calibrated and run once, its activations
are kept while the group is walked, and only the rest is run for each.  Where nothing is shared, every subnet is one
run from the images to the logits, as in `supernet.calibrate.inherited_accuracy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.chain import Chain, Link, extract_links
from search_spaces.space import Architecture
from supernet.calibrate import (
    CALIBRATION_IMAGES,
    calibrate_in_passing_,
    calibration_batches,
    calibration_images,
    device_of,
    inherited_images,
)
from supernet.data import Dataset

KEPT_BYTES = 2**30
"""Bound of all kept activations together; what is being computed and what it is computed from come on top."""

OnEach = Callable[[int, float], None]


def inherited_accuracies(
    network: nn.Module,
    archs: Sequence[Architecture],
    dataset: Dataset,
    images: int = CALIBRATION_IMAGES,
    batch: int = 256,
    on_each: OnEach | None = None,
    *,
    kept_bytes: int = KEPT_BYTES,
) -> np.ndarray:
    """Inherited accuracies (n,) of `archs`, in their order: each as `inherited_accuracy` gives it.

    Costs one run of every node of the tree of the architectures' links, on the calibration and on the validation
    images.  Never more than one by one: activations beyond `kept_bytes` are dropped, those nearest to the images
    first, and made again when they are needed.

    Args:
        on_each: called with the position in `archs` and the accuracy as each is known, in the tree's order.

    Raises:
        ValueError: no validation images, fewer than two training images, or a batch below 2.
    """
    tree = _Tree(network, archs, dataset, images, batch, kept_bytes)
    found = np.empty(len(archs))
    for i, value in tree.accuracies():
        found[i] = value
        if on_each is not None:
            on_each(i, value)
    return found


@dataclass
class _Activations:
    """After some links: of the calibration and of the validation images, in batches (b, …)."""

    calibration: Sequence[Tensor]
    validation: Sequence[Tensor]

    @property
    def images(self) -> int:
        return sum(map(len, (*self.calibration, *self.validation)))


@dataclass(eq=False)
class _Node:
    """A place where subnets part: after the first `depth` links of the subnet `arch`."""

    parent: _Node | None
    arch: int
    depth: int
    bytes: int
    kept: _Activations | None = None


class _Tree:
    """The chains of `archs` and the activations kept on the way to where the walk is."""

    def __init__(
        self,
        network: nn.Module,
        archs: Sequence[Architecture],
        dataset: Dataset,
        images: int,
        batch: int,
        kept_bytes: int,
    ) -> None:
        self.archs, self.kept_bytes = archs, kept_bytes
        self.device = device_of(network)
        x, y = inherited_images(dataset)
        if not len(x):
            raise ValueError("inherited accuracies need validation images, got none")
        chain, numbers = Chain(network), dict[Link, int]()
        self.links = [chain.links(arch) for arch in archs]
        self.keys = [tuple(numbers.setdefault(link, len(numbers)) for link in links) for links in self.links]
        self.labels = torch.from_numpy(y).split(batch)
        first = _Activations(
            calibration_batches(calibration_images(dataset, images), batch), torch.from_numpy(x).split(batch)
        )
        self.path = [_Node(None, 0, 0, 0, first)]  # from the images to where the walk is

    def accuracies(self) -> Iterator[tuple[int, float]]:
        """The position and accuracy of every subnet."""
        if self.archs:
            yield from self._walk(list(range(len(self.archs))))

    def _walk(self, group: list[int]) -> Iterator[tuple[int, float]]:
        """Of subnets that agree up to the last node of the path."""
        node = self.path[-1]
        shared = _shared([self.keys[i] for i in group], node.depth)
        if shared == max(len(self.keys[i]) for i in group):
            value = self._accuracy(node, group[0])
            yield from ((i, value) for i in group)
            return
        inner = self._node(node, group[0], shared) if shared > node.depth else None
        if inner is not None:
            self.path.append(inner)
        for part in _parted(group, self.keys, shared):
            yield from self._walk(part)
        if inner is not None:
            self.path.pop()

    def _node(self, parent: _Node, arch: int, depth: int) -> _Node | None:
        """A node whose activations are made when they are first needed; None where they alone are too large."""
        before = self._activations(parent)
        with torch.inference_mode():
            one = self._plain(parent, arch, depth).eval()(self._own(before.validation[0][:1]))
        size = one.numel() * one.element_size() * before.images
        return _Node(parent, arch, depth, size) if size <= self.kept_bytes else None

    def _activations(self, node: _Node) -> _Activations:
        if node.kept is None and node.parent is not None:
            before = self._activations(node.parent)
            self._make_room(node)
            plain = self._plain(node.parent, node.arch, node.depth)
            calibration = calibrate_in_passing_(plain, map(self._own, before.calibration))
            node.kept = _Activations(calibration, list(self._outputs(plain, before.validation)))
        if node.kept is None:
            raise AssertionError("the images are always kept")
        return node.kept

    def _make_room(self, node: _Node) -> None:
        """Drop what lies nearest to the images until `node` fits: it is the largest and the least often needed."""
        for other in self.path[1:]:
            if sum(n.bytes for n in self.path if n.kept is not None) + node.bytes <= self.kept_bytes:
                return
            other.kept = None

    def _accuracy(self, node: _Node, arch: int) -> float:
        before = self._activations(node)
        plain = self._plain(node, arch, len(self.links[arch]))
        calibrate_in_passing_(plain, map(self._own, before.calibration))
        hits = (
            int((logits.argmax(1) == labels.to(self.device)).sum())
            for logits, labels in zip(self._outputs(plain, before.validation), self.labels, strict=True)
        )
        return sum(hits) / sum(map(len, self.labels))

    def _plain(self, node: _Node, arch: int, depth: int) -> nn.Module:
        """The plain links of a subnet from `node` up to `depth`."""
        plain = extract_links(self.links[arch][node.depth : depth], self.archs[arch])
        return plain.to(memory_format=torch.channels_last) if self.device.type == "cpu" else plain

    def _outputs(self, plain: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for batch in batches:
            with torch.inference_mode():
                yield plain(self._own(batch))

    def _own(self, batch: Tensor) -> Tensor:
        """A copy on the network's device, which a layer may change in place."""
        return batch.to(self.device, copy=True)


def _shared(chains: Sequence[tuple[int, ...]], start: int) -> int:
    """How many links all chains begin with, of which `start` are known."""
    low, high = min(chains), max(chains)  # what these two share, all share
    depth = start
    while depth < min(len(low), len(high)) and low[depth] == high[depth]:
        depth += 1
    return depth


def _parted(group: Iterable[int], keys: Sequence[tuple[int, ...]], depth: int) -> Iterable[list[int]]:
    """`group` by the link after `depth`, of which a chain that ends there has none."""
    parts: dict[tuple[int, ...], list[int]] = {}
    for i in group:
        parts.setdefault(keys[i][depth : depth + 1], []).append(i)
    return parts.values()
