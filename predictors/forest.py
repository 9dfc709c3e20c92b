"""Extremely randomised trees, whose disagreement is the deviation of a prediction.

Source: Geurts, Ernst and Wehenkel, "Extremely randomized trees", 2006; by scikit-learn.  The deviation is that of
Hutter et al., "Algorithm runtime prediction: methods and evaluation", 2014, section 4.3.2: the spread of the trees'
means plus the mean of their leaves' spreads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.tree import ExtraTreeRegressor

from predictors.protocol import Prediction
from predictors.training import training_order
from predictors.warp import Warp, fit_warp

Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Forest:
    """A fitted forest on a warped scale of the metric.

    Args:
        leaves: of each tree, the mean and the mean square of the targets at its nodes (nodes, 2).
    """

    features: Features
    warp: Warp
    trees: tuple[ExtraTreeRegressor, ...]
    leaves: tuple[np.ndarray, ...]

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        x = np.ascontiguousarray(self.features(population), dtype=np.float32)
        means, mean_squares = np.zeros(len(x)), np.zeros(len(x))
        for tree, leaves in zip(self.trees, self.leaves, strict=True):
            reached = leaves[tree.tree_.apply(x)]
            means += reached[:, 0]
            mean_squares += reached[:, 1]
        mean = means / len(self.trees)
        return self.warp.unwarp(Prediction(mean, np.sqrt(np.maximum(mean_squares / len(self.trees) - mean**2, 0))))


def fit_forest(
    features: Features, population: np.ndarray, targets: np.ndarray, seed: int, trees: int = 100, leaf: int = 2
) -> Forest:
    """Fits the metric `targets` (n,) of a population (n, d); O(trees n log n f).

    Args:
        leaf: the fewest training points in a leaf.

    Raises:
        ValueError: fewer than two points, not as many targets, or a target that is not finite.
    """
    order = training_order(population, targets)
    x, y = features(np.asarray(population)[order]), np.asarray(targets, dtype=float)[order]
    warp = fit_warp(y)
    z = warp.forward(y)
    model = ExtraTreesRegressor(trees, min_samples_leaf=leaf, random_state=seed).fit(x, z)
    return Forest(features, warp, tuple(model.estimators_), tuple(_moments(tree) for tree in model.estimators_))


def _moments(tree: ExtraTreeRegressor) -> np.ndarray:
    """Mean and mean square of the targets at each node (nodes, 2)."""
    mean = tree.tree_.value[:, 0, 0]
    return np.column_stack([mean, mean**2 + np.maximum(tree.tree_.impurity, 0)])
