"""Bayesian search with an ensemble of neural predictors: BANANAS (White et al., arXiv:1910.11858).

For several objectives, each candidate gets one draw of every objective, and those come first whose draws are not
dominated by others'.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from nas.objectives import Evaluation, cost_array
from nas.searchers.failures import Failures
from nas.searchers.fitness import best_first, order
from nas.searchers.random_search import fresh_rows
from search_spaces.encoding import one_hot
from search_spaces.moves import mutate_one
from search_spaces.space import INDEX, SearchSpace

_LEAST = 4  # evaluations, below which there is nothing to fit
_INCUMBENTS = 10  # that are mutated, in rounds: the paper's
_ROUNDS = 10


class Bananas:
    """Random architectures first, then those mutations of the best that an independent Thompson sample finds best.

    An ensemble of small networks, alike but for their first weights, predicts all costs at once.  Its mean and
    deviation at each candidate are those of a normal distribution, from which one value is drawn (section 4).

    Args:
        initial: random architectures to begin with.
        networks: in the ensemble.
    """

    def __init__(self, space: SearchSpace, seed: int, initial: int = 10, networks: int = 5) -> None:
        self._space, self._initial, self._networks = space, initial, networks
        self._rng = np.random.default_rng(seed)
        self._asked: set[tuple[int, ...]] = set()
        self._told: list[Evaluation] = []
        self._failures = Failures(space)

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d): random ones up to `initial`, then the best by Thompson sampling."""
        rows = self._next(n)
        self._failures.asked(rows.tolist())
        return rows

    def _next(self, n: int) -> np.ndarray:
        missing = max(self._initial - len(self._asked), 0)
        if missing > 0 or len(self._told) < _LEAST:
            return fresh_rows(self._space, min(n, max(missing, 1)), self._rng, self._asked)
        rows = self._candidates()
        if len(rows):
            rows = rows[order(*self._failures.avoided(self._drawn)(rows))[:n]]
        self._asked.update(map(tuple, rows.tolist()))
        return np.concatenate([rows, fresh_rows(self._space, n - len(rows), self._rng, self._asked)])

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations to fit on."""
        self._told.extend(evaluations)
        self._failures.told(evaluations)
        self._asked.update(e.arch.indices for e in evaluations)

    def _candidates(self) -> np.ndarray:
        """New architectures (k, d), one to `_ROUNDS` mutations away from the best that were told."""
        best = best_first(self._told)[:_INCUMBENTS]
        rows = np.array([self._told[i].arch.indices for i in best], dtype=INDEX)
        rounds = []
        for _ in range(_ROUNDS):
            rounds.append(mutate_one(self._space, rows, self._rng))
            rounds.append(mutate_one(self._space, rounds[-1], self._rng))
        unique = np.unique(np.concatenate(rounds), axis=0)
        return unique[[row not in self._asked for row in map(tuple, unique.tolist())]]

    def _drawn(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One draw of the costs (k, m) and violations (k,) of candidates (k, d)."""
        violations = np.array([e.violation for e in self._told], dtype=float)
        targets = np.column_stack([cost_array(self._told), violations])
        predictions = self._predictions(targets, rows)
        draws = self._rng.normal(predictions.mean(axis=0), predictions.std(axis=0))
        # What is nearer to none than to the smallest violation known is none.
        least = violations[violations > 0].min(initial=np.inf)
        return draws[:, :-1], np.where(draws[:, -1] < least / 2, 0.0, draws[:, -1])

    def _predictions(self, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What each network, fitted to `targets` (n, t) of what was told, says of `rows` (k, d): (networks, k, t)."""
        told = one_hot(self._space, np.array([e.arch.indices for e in self._told], dtype=INDEX))
        middle, width = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-12)
        features = one_hot(self._space, rows)
        said = []
        for seed in self._rng.integers(2**31, size=self._networks):
            network = MLPRegressor(
                hidden_layer_sizes=(24, 24), solver="lbfgs", alpha=1e-2, max_iter=60, random_state=int(seed)
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose
                said.append(network.fit(told, (targets - middle) / width).predict(features))
        return middle + width * np.array(said)
