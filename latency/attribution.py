"""Which block and layer of a network each node of its optimised graph belongs to.

ONNX Runtime keeps the names of the file's nodes and tensors in the names of what it fuses them into, and in them stand
the paths of modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from latency.blocks import TracedBlock
from latency.parts import Node, Parts, ProfilerCost
from search_spaces.network import Block

LEAST_S = 1e-7  # what a block or layer that computes nothing still counts
_MULTIPLIES = re.compile("Conv|Gemm|MatMul")


def layer_seconds(
    parts: Parts, traced: Sequence[TracedBlock], blocks: Sequence[Block], cost: ProfilerCost
) -> list[np.ndarray]:
    """The times of the layers of each traced block inside a network whose nodes were timed.

    A node that names no block (one that the run-time put in: a reordering, a part of an activation) goes with the node
    before it.  In a block, each node that multiplies weights begins the next layer.  Of a block with more or fewer of
    these nodes than layers only the whole time is known, a single one.

    Args:
        blocks: all of the network, whose members are the paths to look for.
    """
    position = {block.name: i for i, block in enumerate(traced)}
    members = {member: position[b.name] for b in blocks if b.name in position for member in b.members}
    inside: list[list[Node]] = [[] for _ in traced]
    here = 0
    for node in parts.nodes:
        here = _place(node.name, members, here)
        inside[here].append(node)
    return [_layer_seconds(nodes, block, cost) for nodes, block in zip(inside, traced, strict=True)]


def _layer_seconds(nodes: Sequence[Node], block: TracedBlock, cost: ProfilerCost) -> np.ndarray:
    before = bool(block.layers) and block.layers[0].kind == "none"
    seconds = np.zeros(max(1, len(block.layers)))
    layer = -1 + before
    for node in nodes:
        layer += bool(_MULTIPLIES.search(node.kind))
        seconds[min(max(layer, 0), len(seconds) - 1)] += node.seconds - cost.node_s - cost.input_s * node.inputs
    if layer != len(block.layers) - 1:
        seconds = seconds.sum(keepdims=True)
    return np.maximum(seconds, LEAST_S)


def _place(name: str, members: Mapping[str, int], before: int) -> int:
    """The block that a node's name points to: by the last module path in it that leads into a block."""
    for segment in reversed(re.split("/", name)):
        path = segment
        while path:
            if path in members:
                return members[path]
            path = path.rpartition(".")[0]
    return before
