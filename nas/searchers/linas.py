"""Predictor-guided search in rounds: measure a few, refit, search on predictions, measure the best.

The scheme of LINAS (Cummings et al., "Accelerating neural architecture exploration across modalities using
genetic algorithms", 2022), with NSGA-II as the inner search where a space is too large to be walked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from nas.objectives import Evaluation, cost_array
from nas.pareto import non_dominated
from nas.searchers.choosing import Choose, most_volume
from nas.searchers.evolve import evolve
from nas.searchers.failures import Failures
from nas.searchers.protocol import CostModel
from nas.searchers.random_search import fresh_rows
from search_spaces.space import INDEX, SearchSpace

_LEAST = 2  # evaluations to fit on
_GROWN = 1.02  # times as many evaluations as at the last fit, before there is another: a fit of n takes O(n³)
_TRIES = 2_000  # random architectures, among which admissible ones are looked for
_MOST_AXES = 32  # of a NumPy array of any version


class LINAS:
    """Asks for random architectures first, then for those that a fitted cost model finds best and that will not fail.

    Args:
        fit: from all evaluations told so far to a cost model.
        initial: how many architectures come before the first fit: the anchors, then random ones.
        anchors: architectures (n, d) to begin with, such as the space's corners: models extrapolate badly.
        known: architectures (n, d) of which the model knows more than of others; always among the candidates.
        admits: from a population (n, d) to which rows (n,) are worth an evaluation at random; by default all.
        choose: which of the candidates are measured.
        smooth: whether what is measured counts as the model predicts it, as candidates do: the best of many noisy
            values is better than any honest prediction, so that little seems to be left to gain where most is.
        generations: of the inner NSGA-II, whose population is `population`; it goes on from its last one.
        walked: up to so many architectures, all of the space are candidates, and there is no inner search.
    """

    def __init__(
        self,
        space: SearchSpace,
        fit: Callable[[Sequence[Evaluation]], CostModel],
        objectives: int,
        seed: int,
        initial: int,
        anchors: np.ndarray | None = None,
        known: np.ndarray | None = None,
        admits: Callable[[np.ndarray], np.ndarray] | None = None,
        choose: Choose = most_volume,
        smooth: bool = False,
        generations: int = 20,
        population: int = 64,
        walked: int = 0,
    ) -> None:
        self._space, self._fit, self._objectives = space, fit, objectives
        self._initial, self._admits = initial, admits
        self._choose, self._smooth = choose, smooth
        self._generations, self._population = generations, population
        self._last = np.zeros((0, len(space)), dtype=INDEX)
        self._whole = _all_rows(space) if space.size <= walked else None
        self._candidates = np.zeros((0, len(space)), dtype=INDEX) if known is None else known
        self._rng = np.random.default_rng(seed)
        self._asked: set[tuple[int, ...]] = set()
        self._told: list[Evaluation] = []
        self._failures = Failures(space)
        self._model: CostModel | None = None
        self._fitted = 0  # evaluations that the model knows
        self._anchors: list[tuple[int, ...]] = (
            [] if anchors is None else list(dict.fromkeys(map(tuple, anchors.tolist())))
        )

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d): anchors and random ones up to `initial`, then the best by prediction."""
        rows = self._next(n)
        self._failures.asked(rows.tolist())
        return rows

    def _next(self, n: int) -> np.ndarray:
        if self._anchors:
            return self._open(n)
        missing = self._initial - len(self._asked)
        if missing > 0 or len(self._told) < _LEAST:
            return self._random(min(n, max(missing, 1)))
        rows = self._promising(n)
        self._asked.update(map(tuple, rows.tolist()))
        return np.concatenate([rows, self._random(n - len(rows))])

    def _open(self, n: int) -> np.ndarray:
        """The next anchors (≤ n, d), and random architectures with the last of them."""
        now, self._anchors = self._anchors[:n], self._anchors[n:]
        self._asked.update(now)
        more = max(0, min(n, self._initial) - len(now))
        return np.concatenate([np.array(now, dtype=INDEX), self._random(more)])

    def _random(self, n: int) -> np.ndarray:
        """n new random architectures (≤ n, d), admissible ones where they are found."""
        if self._admits is None or n == 0:
            return fresh_rows(self._space, n, self._rng, self._asked)
        drawn = self._space.sample(_TRIES, self._rng)
        rows = list(dict.fromkeys(map(tuple, drawn[self._admits(drawn)].tolist())))
        rows = [row for row in rows if row not in self._asked][:n]
        self._asked.update(rows)
        found = np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))
        return np.concatenate([found, fresh_rows(self._space, n - len(rows), self._rng, self._asked)])

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations to fit on."""
        self._told.extend(evaluations)
        self._failures.told(evaluations)
        self._asked.update(e.arch.indices for e in evaluations)

    def _promising(self, n: int) -> np.ndarray:
        """The n unseen architectures (≤ n, d) that `choose` takes by their predictions."""
        if self._model is None or len(self._told) >= _GROWN * self._fitted:
            self._model, self._fitted = self._fit(tuple(self._told)), len(self._told)
        model = self._failures.avoided(self._model)
        feasible = [e for e in self._told if e.violation == 0]
        measured = cost_array(feasible).reshape(len(feasible), self._objectives)
        places = np.array([e.arch.indices for e in feasible], dtype=INDEX).reshape(len(feasible), len(self._space))
        rows = self._searched(model, places[non_dominated(measured)]) if self._whole is None else self._whole
        rows = rows[[row not in self._asked for row in map(tuple, rows.tolist())]]
        if not len(rows):
            return rows
        costs, violations = model(rows)
        allowed = np.flatnonzero(violations == 0)
        known = model(places)[0] if self._smooth and len(places) else measured
        picked = allowed[self._choose(costs[allowed], known, n, self._rng)] if len(allowed) else allowed
        others = np.flatnonzero(violations > 0)
        nearest = others[np.lexsort((others, violations[others]))]
        return rows[np.concatenate([picked, nearest[: n - len(picked)]])]

    def _searched(self, model: CostModel, start: np.ndarray) -> np.ndarray:
        """What the inner search finds from `start` (j, d), and the architectures that are always candidates (k, d)."""
        room = self._population + len(self._asked)  # many of the best are measured already
        start = np.concatenate([start, self._last])
        self._last = evolve(self._space, model, start, room, self._generations, self._rng)
        return np.unique(np.concatenate([self._last, self._candidates]), axis=0)


def _all_rows(space: SearchSpace) -> np.ndarray:
    """Every architecture of a small space (n, d)."""
    if space.size == math.prod(space.cardinalities.tolist()) and len(space) < _MOST_AXES:
        return np.indices(tuple(space.cardinalities), dtype=INDEX).reshape(len(space), -1).T
    return np.array([arch.indices for arch in space.enumerate()], dtype=INDEX)
