"""Exhaustive search: every architecture of a small space, in random order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation
from search_spaces.space import INDEX, SearchSpace

MOST = 100_000  # architectures that are listed


class ExhaustiveSearch:
    """Walks a whole space once.

    The order is random, so that a walk that is cut short is a random search.

    Raises:
        ValueError: a space of more than `MOST` architectures.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        if space.size > MOST:
            raise ValueError(
                f"space {space.name!r} has {space.size} architectures, exhaustive search lists {MOST} at most: "
                "take another searcher, such as random"
            )
        rows = [arch.indices for arch in space.enumerate()]
        order = np.random.default_rng(seed).permutation(len(rows))
        self._space = space
        self._left = dict.fromkeys(rows[i] for i in order)  # a set that keeps its order

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d) of the walk."""
        rows = list(self._left)[:n]
        for row in rows:
            del self._left[row]
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Strikes out what is known."""
        for evaluation in evaluations:
            self._left.pop(evaluation.arch.indices, None)
