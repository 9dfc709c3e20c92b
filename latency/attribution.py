"""Which block of a network each node of its optimised graph belongs to.

ONNX Runtime keeps the names of the file's nodes and tensors in the names of what it fuses them into, and in them stand
the paths of modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from latency.blocks import TracedBlock
from latency.parts import Parts, ProfilerCost
from search_spaces.network import Block

LEAST_S = 1e-7  # what a block that computes nothing still counts


def block_seconds(
    parts: Parts, traced: Sequence[TracedBlock], blocks: Sequence[Block], cost: ProfilerCost
) -> np.ndarray:
    """The time (k,) of each traced block inside a network whose nodes were timed.

    A node that names no block (one that the run-time put in: a reordering, a part of an activation) goes with the node
    before it.

    Args:
        blocks: all of the network, whose members are the paths to look for.
    """
    position = {block.name: i for i, block in enumerate(traced)}
    members = {member: position[b.name] for b in blocks if b.name in position for member in b.members}
    seconds, here = np.zeros(len(traced)), 0
    for node in parts.nodes:
        here = _place(node.name, members, here)
        seconds[here] += node.seconds - cost.node_s - cost.input_s * node.inputs
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
