"""Local search: from an architecture to its best neighbour, over and over (White et al., arXiv:2005.02960).

For several objectives, Pareto local search (Paquete et al., "Pareto local optimum sets in the biobjective traveling
salesman problem", 2004): the neighbours of every non-dominated architecture, one by one at random.  With one
objective there is one non-dominated architecture, and both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation
from nas.searchers.fitness import non_dominated_of
from nas.searchers.random_search import fresh_rows
from search_spaces.moves import neighbours
from search_spaces.space import INDEX, Architecture, SearchSpace

_Row = tuple[int, ...]


class LocalSearch:
    """Climbs from the best of some random architectures, and from a single random one after each local optimum.

    All neighbours of an architecture are evaluated, in random order, before the next is chosen.

    Args:
        initial: random architectures to begin with.
    """

    def __init__(self, space: SearchSpace, seed: int, initial: int = 10) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._known: dict[_Row, Evaluation] = {}
        self._asked: set[_Row] = set()
        self._front: list[Evaluation] = []  # of this climb
        self._visited: set[_Row] = set()  # whose neighbours have been looked at in this climb
        self._around: list[_Row] = []  # that the climb looks at now
        self._waiting: list[_Row] = []  # of those, to be asked for
        self._open: set[_Row] = set()  # asked for, and nothing told since
        self._initial, self._climbs = initial, 0

    def ask(self, n: int) -> np.ndarray:
        """The next neighbours (≤ n, d) of one architecture, or random ones to start from.

        Empty while neighbours wait to be told, and where the space is used up.
        """
        while not self._waiting and not self._open:
            if not self._advance():
                break
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        self._open.update(rows)
        self._asked.update(rows)
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations; neighbours among them that were told from elsewhere are not asked for."""
        self._open.clear()
        self._known.update({e.arch.indices: e for e in evaluations})
        self._asked.update(e.arch.indices for e in evaluations)
        self._waiting = [row for row in self._waiting if row not in self._asked]

    def _advance(self) -> bool:
        """Takes in what was found around one architecture and goes on to another; False where none is left."""
        found = [self._known[row] for row in self._around if row in self._known]
        self._front = non_dominated_of([*self._front, *found])  # of equals the first: plateaus are not walked
        ahead = [e.arch for e in self._front if e.arch.indices not in self._visited]
        if not ahead:
            return self._restart()
        self._look_around(ahead[self._rng.integers(len(ahead))])
        return True

    def _look_around(self, arch: Architecture) -> None:
        self._visited.add(arch.indices)
        self._around = list(map(tuple, self._rng.permutation(neighbours(arch)).tolist()))
        self._waiting = [row for row in self._around if row not in self._asked]

    def _restart(self) -> bool:
        """Begins a climb, the first one also from what was told before it; False where nothing is left to begin at."""
        told = [] if self._climbs else list(self._known)
        n = 1 if self._climbs else max(0, self._initial - len(told))
        rows = fresh_rows(self._space, n, self._rng, set(self._asked))
        self._climbs += 1
        self._front, self._visited = [], set()
        self._waiting = list(map(tuple, rows.tolist()))
        self._around = told + self._waiting
        return bool(self._around)
