"""What a predictor is fitted on: architectures and one value of each, checked and in an order of their own."""

from __future__ import annotations

import numpy as np


def training_order(population: np.ndarray, targets: np.ndarray, least: int = 2) -> np.ndarray:
    """The order (n,) that sorts a population (n, d) and its targets (n,).

    Fitted in this order, bootstraps and optimisers give the same predictor however the data came.

    Raises:
        ValueError: fewer than `least` architectures, not as many targets, or a target that is not finite.
    """
    population, targets = np.asarray(population), np.asarray(targets, dtype=float)
    if len(population) < least or targets.shape != (len(population),):
        got = f"{len(population)} architectures and targets of shape {targets.shape}"
        raise ValueError(f"a predictor needs at least {least} architectures and one target of each, got {got}")
    if not np.isfinite(targets).all():
        worst = int(np.flatnonzero(~np.isfinite(targets))[0])
        raise ValueError(f"targets must be finite, got {targets[worst]} at position {worst}: leave failed ones out")
    return np.lexsort((targets, *population.T[::-1]))
