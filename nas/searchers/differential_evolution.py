"""Differential evolution over a discretised unit cube: DE-NAS (Awad et al., arXiv:2012.06400).

For several objectives its selection is that of GDE3 (Kukkonen and Lampinen 2005): of a parent and a trial neither of
which is better both stay, and the population is cut back by non-dominated rank and crowding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.objectives import Evaluation
from nas.searchers.fitness import best_first, ranks_of
from nas.searchers.random_search import fresh_rows
from search_spaces.space import INDEX, SearchSpace

_STALE = 10  # generations in a row without anything new, after which random architectures follow
_Row = tuple[int, ...]


@dataclass(frozen=True)
class _Trial:
    """A point (d,) of the unit cube, its architecture, and the member that it may replace (None: a new one)."""

    point: np.ndarray
    row: _Row
    parent: int | None


class DifferentialEvolution:
    """rand/1/bin: a random member, moved by the scaled difference of two others, crossed over with the parent.

    Each choice is an axis of the unit cube, and its options are cells of equal width.  A generation is asked for
    in pieces of any size; trials whose architecture is known are decided without asking.

    Args:
        population: members; the paper's 20.
        scale: the factor F of the difference.
        crossover: the chance CR that an axis is the mutant's.
    """

    def __init__(
        self, space: SearchSpace, seed: int, population: int = 20, scale: float = 0.5, crossover: float = 0.5
    ) -> None:
        self._space, self._population, self._scale, self._crossover = space, max(4, population), scale, crossover
        self._rng = np.random.default_rng(seed)
        self._members: list[tuple[np.ndarray, Evaluation]] = []
        self._trials: list[_Trial] = []  # of this generation
        self._known: dict[_Row, Evaluation] = {}
        self._asked: set[_Row] = set()
        self._waiting: list[_Row] = []  # to be asked for
        self._open: set[_Row] = set()  # asked for, and nothing told since

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d) of this generation.

        Empty while a whole generation waits to be told, and where the space is used up.
        """
        if not self._waiting and not self._open:
            self._next_generation()
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        self._open.update(rows)
        self._asked.update(rows)
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations; those from elsewhere decide trials of later generations."""
        self._open.clear()
        self._known.update({e.arch.indices: e for e in evaluations})
        self._asked.update(e.arch.indices for e in evaluations)
        self._waiting = [row for row in self._waiting if row not in self._asked]

    def _next_generation(self) -> None:
        for _ in range(_STALE):
            self._select()
            missing = self._population - len(self._members)
            self._trials = self._first(missing) if missing > 0 else self._bred()
            self._waiting = self._new_rows()
            if self._waiting:
                return
        self._select()
        self._trials = self._first(self._population)  # beside the members: the best of both stay
        self._waiting = self._new_rows()

    def _new_rows(self) -> list[_Row]:
        """The architectures of the trials that are to be asked for, each once."""
        return list(dict.fromkeys(t.row for t in self._trials if t.row not in self._asked))

    def _select(self) -> None:
        """Ends the generation: each trial against its parent, then back to the population's size."""
        members, more = list(self._members), []
        for trial in self._trials:
            if (found := self._known.get(trial.row)) is None:
                continue  # failed
            if trial.parent is None:
                more.append((trial.point, found))
                continue
            parent = members[trial.parent]
            of_trial, of_parent = ranks_of([found, parent[1]])
            if of_trial == of_parent and _differ(found, parent[1]):
                more.append((trial.point, found))
            elif of_trial <= of_parent:
                members[trial.parent] = (trial.point, found)
        self._members = [(members + more)[i] for i in best_first([e for _, e in members + more])[: self._population]]
        self._trials = []

    def _first(self, n: int) -> list[_Trial]:
        """Up to n new random trials, anywhere in their cells; at the start also all that was told before."""
        told = [] if self._members else list(self._known)
        rows = fresh_rows(self._space, max(0, n - len(told)), self._rng, set(self._asked))
        rows = np.concatenate([np.array(told, dtype=INDEX).reshape(len(told), len(self._space)), rows])
        points = (rows + self._rng.random(rows.shape)) / self._space.cardinalities
        return [_Trial(p, tuple(row), None) for p, row in zip(points, rows.tolist(), strict=True)]

    def _bred(self) -> list[_Trial]:
        """One trial for each member."""
        points = np.array([point for point, _ in self._members])
        shape = points.shape
        others = np.argsort(self._rng.random((len(points), len(points) - 1)), axis=1)[:, :3]
        others += others >= np.arange(len(points))[:, None]  # none is its own parent
        a, b, c = points[others.T]
        mutants = a + self._scale * (b - c)
        outside = (mutants < 0) | (mutants >= 1)
        mutants = np.where(outside, self._rng.random(shape), mutants)
        taken = self._rng.random(shape) < self._crossover
        taken[np.arange(len(points)), self._rng.integers(shape[1], size=len(points))] = True  # one axis at least
        trials = np.where(taken, mutants, points)
        return [_Trial(p, row, i) for i, (p, row) in enumerate(zip(trials, self._discretised(trials), strict=True))]

    def _discretised(self, points: np.ndarray) -> list[_Row]:
        """The architectures of points (n, d)."""
        cells = (points * self._space.cardinalities).astype(int)
        return list(map(tuple, self._space.canonical(np.minimum(cells, self._space.cardinalities - 1)).tolist()))


def _differ(one: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations of one rank are not equally good, but each better in something."""
    return one.violation == other.violation == 0 and one.costs != other.costs
