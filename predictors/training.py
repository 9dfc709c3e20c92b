"""What a predictor is fitted on: architectures and one value of each, checked and in an order of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from predictors.warp import Warp, fit_warp, winsorised

Features = Callable[[np.ndarray], np.ndarray]


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


def warped_data(features: Features, population: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, Warp]:
    """Features (n, f) and warped targets (n,), winsorised, in the order of `training_order`, and the warp.

    Raises:
        ValueError: as `training_order`.
    """
    order = training_order(population, targets)
    y = winsorised(np.asarray(targets, dtype=float)[order])
    warp = fit_warp(y)
    x = np.ascontiguousarray(features(np.asarray(population)[order]), dtype=np.float32)
    return x, warp.forward(y), warp
