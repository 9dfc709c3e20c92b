"""What a method says of the points it was fitted without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from predictors.committee import left_out_folds
from predictors.protocol import Prediction, Predictor
from predictors.training import training_order

Fit = Callable[[np.ndarray, np.ndarray], Predictor]
"""From a population (n, d) and its targets (n,) to a predictor."""


def left_out_predictions(
    fit: Fit, population: np.ndarray, targets: np.ndarray, folds: int = 5, seed: int = 0
) -> Prediction:
    """Predictions of a population's targets (n,), each by a fit without its fold; as many fits as folds.

    Fewer points than folds are left out one by one.

    Raises:
        ValueError: fewer than three points, not as many targets, a target that is not finite, or fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"cross-validation needs at least 2 folds, got {folds}")
    order = training_order(population, targets, least=3)
    rows, y = np.asarray(population)[order], np.asarray(targets, dtype=float)[order]
    mean, std = np.empty(len(y)), np.empty(len(y))
    for out in left_out_folds(len(y), folds, np.random.default_rng(seed)):
        found = fit(rows[~out], y[~out]).predict(rows[out])
        mean[order[out]], std[order[out]] = found.mean, found.std
    return Prediction(mean, std)
