"""Spaces small enough to enumerate, with conditions on conditions or equal networks, and random tables over them."""

import numpy as np

from search_spaces.space import Equivalence, SearchSpace
from search_spaces.value import Choice
from supernet.relaxed.cost_table import CostTable

FLAT = SearchSpace("flat", [Choice(f"c{i}", tuple(range(2 + i % 3))) for i in range(6)])
_DEPTH, _WIDTH = Choice("depth", (1, 2)), Choice("width", (8, 16))
_KIND = Choice("kind", ("a", "b", "c"), _DEPTH.among(2))
DEEP = SearchSpace(
    "deep",
    [
        _WIDTH,
        _DEPTH,
        Choice("kernel1", (3, 5)),
        _KIND,
        Choice("kernel2", (3, 5), _DEPTH.among(2)),
        Choice("ratio", (1, 2, 3), ((_KIND.among("a", "c"), _WIDTH.among(16)), (_DEPTH.among(1),))),
    ],
)


def without_dead_edges(rows: np.ndarray) -> np.ndarray:
    """Rows (n, 4) of two paths of two edges each: without both edges, one has no use."""
    paths = rows.reshape(-1, 2, 2)
    return np.where((paths > 0).all(2, keepdims=True), paths, 0).reshape(-1, 4)


_EDGES = [Choice(f"edge{i}", ("none", "skip", "conv")) for i in range(4)]
EQUAL = SearchSpace(
    "equal",
    [
        Choice("width", (8, 16)),
        *_EDGES,
        Choice("kernel", (3, 5, 7), _EDGES[1].among("conv")),
    ],
    Equivalence(tuple(choice.name for choice in _EDGES), without_dead_edges),
)
SPACES = {"flat": FLAT, "deep": DEEP, "equal": EQUAL}


def random_table(space: SearchSpace, seed: int) -> CostTable:
    """A cost for each choice, and for two groups of choices together."""
    rng = np.random.default_rng(seed)
    names = [choice.name for choice in space.choices]
    groups = [*((name,) for name in names), (names[0], names[-1]), (names[4], names[2], names[0])]
    sizes = {choice.name: len(choice.options) for choice in space.choices}
    return CostTable(1.0, {group: rng.uniform(0, 1, [sizes[name] for name in group]) for group in groups})
