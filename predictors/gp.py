"""Gaussian-process regression of a metric on architecture features.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1; by scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from predictors.protocol import Prediction

Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A fitted process over standardised features.

    Args:
        noise_std: of an observation, in units of the target.
    """

    features: Features
    center: np.ndarray
    scale: np.ndarray
    process: GaussianProcessRegressor
    noise_std: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d); the deviation is that of one observation, noise included."""
        x = (self.features(population) - self.center) / self.scale
        mean, std = self.process.predict(x, return_std=True)
        return Prediction(mean, std)


def fit_gaussian_process(features: Features, population: np.ndarray, targets: np.ndarray) -> GaussianProcess:
    """Fits the metric `targets` (n,) of a population (n, d); O(n³).

    The kernel is a linear trend plus a smooth deviation plus noise; all scales by marginal likelihood.

    Raises:
        ValueError: fewer than two points, or not as many targets.
    """
    if len(population) < 2 or len(population) != len(targets):
        got = f"{len(population)} and {len(targets)}"
        raise ValueError(f"a Gaussian process needs at least 2 points and as many targets, got {got}")
    x = features(population)
    center, spread = x.mean(axis=0), x.std(axis=0)
    # Constant features would divide by zero; they carry nothing. Features count by their share of the sum.
    scale = np.where(spread > 1e-9, spread, 1.0) * np.sqrt(x.shape[1])
    kernel = (
        ConstantKernel(1.0, (1e-3, 1e3)) * DotProduct(sigma_0=1.0, sigma_0_bounds=(1e-3, 1e3))
        + ConstantKernel(1.0, (1e-3, 1e3)) * RBF(1.0, (0.1, 30.0))
        + WhiteKernel(0.1, (1e-5, 1e1))
    )
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is no failure here
        process.fit((x - center) / scale, targets)
    noise_std = float(np.sqrt(process.kernel_.k2.noise_level) * np.std(targets))
    return GaussianProcess(features, center, scale, process, noise_std)
