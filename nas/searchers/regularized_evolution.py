"""Regularized evolution: a population that ages (Real et al., arXiv:1802.01548, algorithm 1).

For several objectives, the winner of a tournament is the best by non-dominated rank and crowding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation
from nas.searchers.fitness import best
from nas.searchers.novelty import novel_rows
from nas.searchers.random_search import fresh_rows
from search_spaces.moves import mutate_one
from search_spaces.space import INDEX, SearchSpace


class RegularizedEvolution:
    """Children are mutations of the winner of a tournament; with every evaluation told, the oldest one dies.

    Args:
        population: evaluations alive, and random architectures to begin with.  The paper's 100 are for tens of
            thousands of evaluations.
        tournament: members drawn, with replacement, for each child.
    """

    def __init__(self, space: SearchSpace, seed: int, population: int = 30, tournament: int = 10) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._population, self._tournament = population, tournament
        self._alive: deque[Evaluation] = deque(maxlen=population)
        self._asked: set[tuple[int, ...]] = set()

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d): random ones until the population is asked for, then children."""
        missing = self._population - len(self._asked) if self._alive else n
        first = fresh_rows(self._space, min(n, max(0, missing)), self._rng, self._asked)
        if len(first) == n or not self._alive:
            return first
        return np.concatenate([first, novel_rows(self._space, n - len(first), self._child, self._rng, self._asked)])

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations into the population, each in place of the oldest one."""
        self._alive.extend(evaluations)
        self._asked.update(e.arch.indices for e in evaluations)

    def _child(self) -> np.ndarray:
        drawn = self._rng.integers(len(self._alive), size=self._tournament)
        winner = best([self._alive[i] for i in drawn])
        return mutate_one(self._space, np.array([winner.arch.indices], dtype=INDEX), self._rng)[0]
