"""Random search: the baseline that every search must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation
from search_spaces.space import INDEX, SearchSpace

_MISSES = 200  # known architectures drawn in a row, after which what is left of a small space is listed
_LISTED = 10_000  # architectures, up to which a space is small; a larger one then counts as used up


class RandomSearch:
    """Uniform over the options of every choice, without repeats."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._asked: set[tuple[int, ...]] = set()

    def ask(self, n: int) -> np.ndarray:
        """Up to n new random architectures (≤ n, d)."""
        return fresh_rows(self._space, n, self._rng, self._asked)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Remembers what is known, so as not to ask for it."""
        self._asked.update(e.arch.indices for e in evaluations)


def fresh_rows(space: SearchSpace, n: int, rng: np.random.Generator, asked: set[tuple[int, ...]]) -> np.ndarray:
    """Draws up to n architectures (≤ n, d) that are not in `asked`, and adds them to it."""
    rows: list[tuple[int, ...]] = []
    misses = 0
    while len(rows) < n and misses < _MISSES:
        row = tuple(space.sample(1, rng)[0].tolist())  # one by one: asking in pieces draws the same
        misses += 1
        if row not in asked:
            asked.add(row)
            rows.append(row)
            misses = 0
    if len(rows) < n and space.size <= _LISTED:
        left = [arch.indices for arch in space.enumerate() if arch.indices not in asked]
        rows += [left[i] for i in rng.permutation(len(left))[: n - len(rows)]]
        asked.update(rows)
    return np.array(rows, dtype=INDEX).reshape(len(rows), len(space))
