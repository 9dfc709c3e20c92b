"""Extremely randomised trees, whose disagreement is the deviation of a prediction.

Source: Geurts, Ernst and Wehenkel, "Extremely randomized trees", 2006; by scikit-learn.  The deviation is that of
Hutter et al., "Algorithm runtime prediction: methods and evaluation", 2014, section 4.3.2: the spread of the trees'
means plus the mean of their leaves' spreads.  It is scaled by how far the trees that have not seen a training point
are off (Johansson et al., "Regression conformal prediction with random forests", 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.tree import ExtraTreeRegressor

from predictors.conformal import deviation_factor
from predictors.protocol import Prediction
from predictors.training import Features, warped_data
from predictors.warp import Warp

_LEAST = 1e-4  # the variance of trees that all say the same, as a share of the targets'


@dataclass(frozen=True, eq=False)
class Forest:
    """A fitted forest on a warped scale of the metric.

    Args:
        leaves: of each tree, the mean and the mean square of the targets at its nodes (nodes, 2).
        factor: by which deviations are multiplied.
    """

    features: Features
    warp: Warp
    trees: tuple[ExtraTreeRegressor, ...]
    leaves: tuple[np.ndarray, ...]
    factor: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        x = np.ascontiguousarray(self.features(population), dtype=np.float32)
        total = np.zeros((len(x), 2))
        for tree, leaves in zip(self.trees, self.leaves, strict=True):
            total += leaves[tree.tree_.apply(x)]
        found = _prediction(total / len(self.trees))
        return self.warp.unwarp(Prediction(found.mean, found.std * self.factor))


def fit_forest(
    features: Features, population: np.ndarray, targets: np.ndarray, seed: int, trees: int = 100, leaf: int = 2
) -> Forest:
    """Fits the metric `targets` (n,) of a population (n, d); O(trees n log n f).

    Args:
        leaf: the fewest training points in a leaf.

    Raises:
        ValueError: fewer than two points, not as many targets, or a target that is not finite.
    """
    x, z, warp = warped_data(features, population, targets)
    model = ExtraTreesRegressor(trees, min_samples_leaf=leaf, bootstrap=True, random_state=seed).fit(x, z)
    leaves = tuple(_moments(tree) for tree in model.estimators_)
    factor = _unseen_factor(model, leaves, x, z)
    return Forest(features, warp, tuple(model.estimators_), leaves, factor)


def _unseen_factor(
    model: ExtraTreesRegressor, leaves: tuple[np.ndarray, ...], x: np.ndarray, targets: np.ndarray
) -> float:
    """By what deviations are to be multiplied for 90 % of the targets (n,), by the trees that were not shown them."""
    total, votes = np.zeros((len(x), 2)), np.zeros((len(x), 1))
    for tree, drawn, known in zip(model.estimators_, model.estimators_samples_, leaves, strict=True):
        unseen = np.setdiff1d(np.arange(len(x)), drawn)
        total[unseen] += known[tree.tree_.apply(x[unseen])]
        votes[unseen] += 1
    told = votes[:, 0] > 0
    return deviation_factor(_prediction(total[told] / votes[told]), targets[told]) if told.any() else 1.0


def _prediction(moments: np.ndarray) -> Prediction:
    """Mean and deviation from means and mean squares (n, 2)."""
    mean = moments[:, 0]
    return Prediction(mean, np.sqrt(np.maximum(moments[:, 1] - mean**2, _LEAST)))


def _moments(tree: ExtraTreeRegressor) -> np.ndarray:
    """Mean and mean square of the targets at each node (nodes, 2)."""
    mean = tree.tree_.value[:, 0, 0]
    return np.column_stack([mean, mean**2 + np.maximum(tree.tree_.impurity, 0)])
