"""RoBoT: the best weighted sum of zero-cost proxies, found by Bayesian optimisation, and then its best architectures.

He et al., "Robustifying and boosting training-free neural architecture search", arXiv:2403.07591, algorithm 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from nas.objectives import Evaluation
from search_spaces.space import INDEX

_CANDIDATES = 2000  # weights among which the acquisition is maximised
_NEAR = 0.3  # how far half of them are from the best weights known, in standard deviations per proxy
_KAPPA = 2.576  # of the upper confidence bound, as in the authors' code


class RoBoT:
    """Asks for the best architecture of a pool by weighted ranks, for weights that Bayesian optimisation tries.

    What was found of an architecture is the observation at its weights.  After `rounds` weights the rest of the budget
    goes to the pool in the order of the best ones.  Weights whose best architecture is known are a round, but ask for
    nothing.  Only directions of weights are tried, since their length orders nothing.  One objective; an evaluation
    that failed or breaks a bound counts as the worst one known.

    Args:
        pool: architectures (n, d) to choose from, each once.
        scores: of the pool by each proxy (n, p), higher is better, NaN where a proxy has none.
        rounds: weights to try; in the paper as many as the budget.

    Raises:
        ValueError: an empty pool or one with repeats, or scores that do not fit it.
    """

    def __init__(self, pool: np.ndarray, scores: np.ndarray, seed: int, rounds: int) -> None:
        self._rows = list(map(tuple, np.asarray(pool, dtype=INDEX).tolist()))
        self._place = {row: i for i, row in enumerate(self._rows)}
        if not self._rows or len(self._place) < len(self._rows):
            raise ValueError(f"expected a pool of different architectures, got {len(self._rows)}, not all different")
        if scores.ndim != 2 or len(scores) != len(self._rows) or not scores.shape[1]:
            raise ValueError(f"expected scores ({len(self._rows)}, proxies) of the pool, got {scores.shape}")
        self._columns = len(self._rows[0])
        self._ranks = normalised_ranks(scores)
        self._rng = np.random.default_rng(seed)
        self._left = rounds
        self._tried: list[tuple[np.ndarray, int]] = []  # weights (p,), and the place of their best architecture
        self._known: dict[int, float | None] = {}  # cost by place; none where the evaluation failed
        self._open: set[int] = set()  # asked for, and nothing told since

    def ask(self, n: int) -> np.ndarray:
        """Up to n architectures of the pool (≤ n, d), none asked or told before."""
        places: list[int] = []
        while len(places) < n and self._left > 0 and len(self._known) + len(self._open) < len(self._rows):
            self._left -= 1
            weights = self._propose()
            place = int(np.argmax(self._ranks @ weights))
            self._tried.append((weights, place))
            if place not in self._known and place not in self._open:
                self._open.add(place)
                places.append(place)
        places += self._exploit(n - len(places))
        return np.array([self._rows[place] for place in places], dtype=INDEX).reshape(len(places), self._columns)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes the evaluations of all that was asked; what is missing has failed."""
        for place in self._open:
            self._known.setdefault(place, None)
        self._open.clear()
        for evaluation in evaluations:
            if evaluation.arch.indices in self._place:
                place = self._place[evaluation.arch.indices]
                self._known[place] = evaluation.costs[0] if evaluation.violation == 0 else None

    def _exploit(self, n: int) -> list[int]:
        """The next n of the pool by the best weights."""
        order = np.argsort(-(self._ranks @ self._best()), kind="stable").tolist()
        places = [place for place in order if place not in self._known and place not in self._open][:n]
        self._open.update(places)
        return places

    def _best(self) -> np.ndarray:
        """The weights (p,) whose architecture is the best one; equal ones while none is known."""
        found = [(cost, i) for i, (_, place) in enumerate(self._tried) if (cost := self._known.get(place)) is not None]
        return self._tried[min(found)[1]][0] if found else _directions(np.ones((1, self._ranks.shape[1])))[0]

    def _propose(self) -> np.ndarray:
        """The next weights (p,): equal ones, then those of the best upper confidence bound of a Gaussian process."""
        if not self._tried:
            return self._best()
        p = self._ranks.shape[1]
        draws = self._rng.normal(size=(_CANDIDATES, p))
        succeeded = [cost for cost in self._known.values() if cost is not None]
        if not succeeded:
            return _directions(draws)[0]
        draws[::2] = self._best() + _NEAR * draws[::2]
        candidates = _directions(draws)
        process = self._fit(max(succeeded), float(np.mean(succeeded)))
        mean, std = process.predict(candidates, return_std=True)
        best: np.ndarray = candidates[np.argmax(_KAPPA * std - mean)]
        return best

    def _fit(self, worst: float, usual: float) -> GaussianProcessRegressor:
        """The process of costs over weights; what is not told yet counts as usual (Ginsbourger et al. 2010)."""
        costs = [usual if place in self._open else self._known[place] for _, place in self._tried]
        process = GaussianProcessRegressor(
            Matern(1.0, (0.1, 10.0), nu=2.5) + WhiteKernel(0.01, (1e-6, 1.0)), normalize_y=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is no failure here
            weights = np.array([weights for weights, _ in self._tried])
            process.fit(weights, np.array([worst if cost is None else cost for cost in costs]))
        return process


def normalised_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of each column of `scores` (n, p) from -½ (lowest) to ½, ties at their mean; 0 where a score is missing.

    Ranks, not values as in the paper: proxies differ by orders of magnitude within one pool.
    """
    ranks = np.zeros(scores.shape)
    for column, found in zip(scores.T, ranks.T, strict=True):
        there = np.isfinite(column)
        found[there] = (rankdata(column[there]) - 0.5) / max(there.sum(), 1) - 0.5
    return ranks


def _directions(weights: np.ndarray) -> np.ndarray:
    """Rows (n, p) at length 1."""
    directions: np.ndarray = weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    return directions
