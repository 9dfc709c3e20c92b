"""Linear regression whose shrinkage is the most likely one.

Source: MacKay, "Bayesian interpolation", 1992; by scikit-learn (Bishop, "Pattern Recognition and Machine Learning",
2006, section 3.5.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import BayesianRidge

from predictors.protocol import Prediction
from predictors.training import Features, warped_data
from predictors.warp import Warp


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted hyperplane on a warped scale of the metric.

    Args:
        center: of the features (f,).
        coefficients: the slope (f,); `root` (f, f) times its transpose is its covariance.
        noise: the variance of one observation.
    """

    features: Features
    warp: Warp
    center: np.ndarray
    coefficients: np.ndarray
    root: np.ndarray
    level: float
    noise: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d); the deviation is that of one observation, noise included."""
        x = self.features(population) - self.center
        variance = np.square(x @ self.root).sum(axis=1) + self.noise
        return self.warp.unwarp(Prediction(x @ self.coefficients + self.level, np.sqrt(variance)))


def fit_ridge(features: Features, population: np.ndarray, targets: np.ndarray) -> Ridge:
    """Fits the metric `targets` (n,) of a population (n, d); O(n f² + f³).

    Raises:
        ValueError: fewer than two points, not as many targets, or a target that is not finite.
    """
    given, z, warp = warped_data(features, population, targets)
    center = given.mean(axis=0)
    model = BayesianRidge(max_iter=300).fit((given - center).astype(float), z)
    values, vectors = np.linalg.eigh(model.sigma_)
    root = vectors * np.sqrt(np.maximum(values, 0))
    slope = model.coef_.astype(center.dtype)
    return Ridge(
        features, warp, center, slope, root.astype(center.dtype), float(model.intercept_), float(1 / model.alpha_)
    )
