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
    before it.  In a block, each node that multiplies begins the next layer.  Of a block with more or fewer of these
    nodes than layers, or where one is named after another layer than its turn says, only the whole time is known, a
    single one.

    Args:
        blocks: all of the network, whose members are the paths to look for.
    """
    position = {block.name: i for i, block in enumerate(traced)}
    members = {member: position[b.name] for b in blocks if b.name in position for member in b.members}
    paths = {block.name: block.members for block in blocks}
    inside: list[list[Node]] = [[] for _ in traced]
    here = 0
    for node in parts.nodes:
        here = _place(node.name, members, here)
        inside[here].append(node)
    return [_layer_seconds(nodes, b, paths[b.name], cost) for nodes, b in zip(inside, traced, strict=True)]


def _layer_seconds(nodes: Sequence[Node], block: TracedBlock, members: Sequence[str], cost: ProfilerCost) -> np.ndarray:
    paths = [_path(layer.path, members) for layer in block.layers]
    seconds, told = np.zeros(max(1, len(paths))), True
    layer = 0 if paths and not paths[0] else -1  # the first one is what comes before any weights
    for node in nodes:
        if _MULTIPLIES.search(node.kind):
            layer += 1
            named = [i for i, path in enumerate(paths) if path and path in node.name.split("/")]
            told &= not named or layer in named
        seconds[min(max(layer, 0), len(seconds) - 1)] += cost.without(node)
    if not told or layer != len(paths) - 1:
        seconds = seconds.sum(keepdims=True)
    return np.maximum(seconds, LEAST_S)


def _path(inside: str, members: Sequence[str]) -> str:
    """The path of a module in the network, from that in a row of the block's members."""
    number, _, rest = inside.partition(".")
    return ".".join(filter(None, (members[int(number)], rest))) if number else ""


def _place(name: str, members: Mapping[str, int], before: int) -> int:
    """The block that a node's name points to: by the last module path in it that leads into a block."""
    for segment in reversed(re.split("/", name)):
        path = segment
        while path:
            if path in members:
                return members[path]
            path = path.rpartition(".")[0]
    return before
