"""Gradient-boosted trees: a committee of them, each without one fold of the data.

Source: Friedman, "Stochastic gradient boosting", 2002; by scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from predictors.committee import joined, left_out_folds, noise_of
from predictors.protocol import Prediction
from predictors.training import Features, warped_data
from predictors.warp import Warp


@dataclass(frozen=True, eq=False)
class Boosting:
    """Fitted ensembles of small trees on a warped scale of the metric.

    Args:
        noise: the variance of one observation that the members' disagreement does not explain.
    """

    features: Features
    warp: Warp
    members: tuple[GradientBoostingRegressor, ...]
    noise: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        x = np.ascontiguousarray(self.features(population), dtype=np.float32)
        return self.warp.unwarp(joined(np.stack([member.predict(x) for member in self.members]), self.noise))


def fit_boosting(
    features: Features,
    population: np.ndarray,
    targets: np.ndarray,
    seed: int,
    members: int = 5,
    trees: int = 100,
    depth: int = 3,
    rate: float = 0.1,
) -> Boosting:
    """Fits the metric `targets` (n,) of a population (n, d); O(members trees n f).

    Args:
        rate: how much of each tree is taken.

    Raises:
        ValueError: fewer than two points, not as many targets, or a target that is not finite.
    """
    x, z, warp = warped_data(features, population, targets)
    left_out = left_out_folds(len(z), members, np.random.default_rng(seed))
    fitted = tuple(
        GradientBoostingRegressor(
            n_estimators=trees,
            learning_rate=rate,
            max_depth=depth,
            subsample=0.7 if np.count_nonzero(~out) > 1 else 1.0,  # a share of one point is none
            max_features=0.3,
            random_state=seed + k,
        ).fit(x[~out], z[~out])
        for k, out in enumerate(left_out)
    )
    return Boosting(features, warp, fitted, noise_of(np.stack([member.predict(x) for member in fitted]), left_out, z))
