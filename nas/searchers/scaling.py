"""Uniform scaling: the baseline of growing all choices together (compound scaling, arXiv:1905.11946)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation
from search_spaces.space import INDEX, SearchSpace

_FINER = (1, 2, 4, 8)  # times as many fractions as networks wanted: after that, the space hardly has more


class UniformScaling:
    """Networks from the smallest to the largest, every choice scaled by the same fraction.

    Choices have few options, so exact scaling gives few networks.  For more steps, each choice rounds up at
    a threshold of its own, spread evenly over the choices (van der Corput's sequence): between two exact
    scalings, the choices grow one after the other.

    Args:
        budget: networks wanted; fewer where the space has no more, and two at least.
        fixed: indices (d,) of choices that are not scaled, `-1` for those that are; by default all are.
    """

    def __init__(self, space: SearchSpace, budget: int, fixed: np.ndarray | None = None) -> None:
        fixed = np.full(len(space), -1) if fixed is None else fixed
        rows: list[tuple[int, ...]] = []
        for finer in _FINER:  # neighbouring fractions may be the same network
            rows = _steps(space, finer * max(2, budget), fixed)
            if len(rows) >= budget:
                break
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(budget, len(rows))).round().astype(int))
        self._space = space
        self._left = [rows[i] for i in chosen]

    def ask(self, n: int) -> np.ndarray:
        """The next networks (≤ n, d), in growing order."""
        rows, self._left = self._left[:n], self._left[n:]
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Nothing to learn."""


def _steps(space: SearchSpace, steps: int, fixed: np.ndarray) -> list[tuple[int, ...]]:
    """The different networks of so many fractions from 0 to 1, in growing order."""
    rows = [
        tuple(space.canonical(np.where(fixed < 0, _scaled(space, step / (steps - 1)), fixed))[0].tolist())
        for step in range(steps)
    ]
    return list(dict.fromkeys(rows))


def _scaled(space: SearchSpace, fraction: float) -> np.ndarray:
    thresholds = np.array([_van_der_corput(j + 1) for j in range(len(space))])
    exact = fraction * (space.cardinalities - 1)
    return np.floor(exact + (1 - thresholds) * (fraction > 0) * (fraction < 1)).astype(int)


def _van_der_corput(i: int) -> float:
    """The i-th element, i ≥ 1, of the base-2 low-discrepancy sequence: i's bits mirrored at the point."""
    value, half = 0.0, 0.5
    while i:
        value += half * (i & 1)
        i, half = i >> 1, half / 2
    return value
