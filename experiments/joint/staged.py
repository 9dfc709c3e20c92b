"""The usual way: first an architecture, then fewer channels, then precisions.

Each stage searches with the predictors and the picking that the joint search has; only what is free differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.objectives import Evaluation, cost_array
from nas.pareto import front
from nas.searchers.choosing import most_volume
from nas.searchers.evolve import evolve
from nas.searchers.protocol import CostModel
from quant_search.policy import SUFFIX as PRECISION
from search_spaces.densities import SUFFIX as DENSITY
from search_spaces.space import INDEX, Architecture, SearchSpace
from search_spaces.value import Choice

_PARENTS = 8  # of the front, that a stage goes on from
_POPULATION, _GENERATIONS = 64, 20  # as of LINAS, for all parents together


@dataclass(frozen=True)
class Stage:
    """What is decided at once: the choices that are free, and how many evaluations are spent on them."""

    free: Callable[[Choice], bool]
    evaluations: int


def in_sequence(evaluations: int) -> tuple[Stage, ...]:
    """Architecture, channels, precisions, with a third of the evaluations each."""
    third = evaluations // 3
    return (
        Stage(lambda c: not c.name.endswith((PRECISION, DENSITY)), evaluations - 2 * third),
        Stage(lambda c: c.name.endswith(DENSITY), third),
        Stage(lambda c: c.name.endswith(PRECISION), third),
    )


class Staged:
    """Decides stage by stage; each goes on from the front of all that was found before it.

    Args:
        fit: from all evaluations so far to a cost model.
        base: where what no stage has decided yet stands: all channels, fp32.
        anchors: architectures (n, d) that the first stage begins with.
    """

    def __init__(
        self,
        space: SearchSpace,
        stages: Sequence[Stage],
        fit: Callable[[Sequence[Evaluation]], CostModel],
        base: Architecture,
        anchors: np.ndarray,
        seed: int,
    ) -> None:
        self._space, self._fit, self._base = space, fit, base
        self._left = [[stage.free, stage.evaluations] for stage in stages]
        self._parents = [base.indices]
        self._anchors = [tuple(row) for row in anchors.tolist()]
        self._rng = np.random.default_rng(seed)
        self._asked: set[tuple[int, ...]] = set()
        self._told: list[Evaluation] = []

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d), none of two stages together."""
        while self._left and not self._left[0][1]:
            del self._left[0]
            self._parents = [e.arch.indices for e in _spread(front(self._told))]
        if not self._left:
            return np.zeros((0, len(self._space)), dtype=INDEX)
        free, left = self._left[0]
        rows, self._anchors = self._anchors[:n], self._anchors[n:]
        rows = rows or self._promising(free, min(n, left))
        self._left[0][1] = left - len(rows) if rows else 0
        self._asked.update(rows)
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations to fit on."""
        self._told.extend(evaluations)

    def _promising(self, free: Callable[[Choice], bool], n: int) -> list[tuple[int, ...]]:
        model = self._fit(tuple(self._told))
        each = max(16, _POPULATION // len(self._parents))
        found = [self._around(parent, free, model, each) for parent in self._parents]
        rows = [row for row in dict.fromkeys(map(tuple, np.concatenate(found).tolist())) if row not in self._asked]
        if not rows:
            return []
        costs, _ = model(np.array(rows, dtype=INDEX))
        measured = cost_array([e for e in self._told if e.violation == 0])
        return [rows[i] for i in most_volume(costs, measured, n, self._rng)]

    def _around(
        self, parent: tuple[int, ...], free: Callable[[Choice], bool], model: CostModel, population: int
    ) -> np.ndarray:
        """What the inner search finds (≤ population, d) where only free choices differ from a parent."""
        space = self._space
        arch = Architecture(space, parent)
        columns = [i for i, c in enumerate(space.choices) if free(c) and (c.name in arch.values or not _decided(c))]
        choices = [c if not _decided(c) else Choice(c.name, c.options) for c in (space.choices[i] for i in columns)]
        part = SearchSpace("free", choices)

        def lifted(rows: np.ndarray) -> np.ndarray:
            whole = np.tile(np.array(parent, dtype=INDEX), (len(rows), 1))
            whole[:, columns] = rows
            return space.canonical(whole)

        start = part.canonical(np.array([parent], dtype=INDEX)[:, columns])
        return lifted(evolve(part, lambda r: model(lifted(r)), start, population, _GENERATIONS, self._rng))


def _decided(choice: Choice) -> bool:
    """Whether a choice is active or not once the architecture is known."""
    return choice.name.endswith((PRECISION, DENSITY))


def _spread(found: Sequence[Evaluation]) -> list[Evaluation]:
    """Up to `_PARENTS` of a front, evenly from its one end to the other."""
    ordered = sorted(found, key=lambda e: e.costs)
    positions = np.unique(np.linspace(0, len(ordered) - 1, min(_PARENTS, len(ordered))).round().astype(int))
    return [ordered[i] for i in positions]
