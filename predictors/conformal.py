"""Intervals that hold as many truths as they say: deviations scaled by what left-out points show.

Source: conformal prediction with residuals relative to the predicted deviation (Lei et al., "Distribution-free
predictive inference for regression", arXiv:1604.04173, section 5.2), from cross-validation's left-out points (Barber
et al., arXiv:1905.02928, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from predictors.cross_validation import Fit, left_out_predictions
from predictors.protocol import Prediction, Predictor


@dataclass(frozen=True, eq=False)
class Conformal:
    """A predictor whose deviations are multiplied by `factor`."""

    predictor: Predictor
    factor: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        found = self.predictor.predict(population)
        return Prediction(found.mean, found.std * self.factor)


def fit_conformal(
    fit: Fit, population: np.ndarray, targets: np.ndarray, share: float = 0.9, folds: int = 5, seed: int = 0
) -> Conformal:
    """Fits `fit` to all targets (n,) of a population (n, d); its intervals of `share` are set by leaving folds out.

    Raises:
        ValueError: as `left_out_predictions`, or a share outside 0 to 1.
    """
    found = left_out_predictions(fit, population, targets, folds, seed)
    return Conformal(fit(population, targets), deviation_factor(found, targets, share))


def deviation_factor(left_out: Prediction, targets: np.ndarray, share: float = 0.9) -> float:
    """What deviations are to be multiplied by, so that intervals of `share` hold that share of new truths.

    The ⌈(n + 1) share⌉-th smallest of the n left-out residuals relative to their half-widths, the largest where there
    are too few.

    Raises:
        ValueError: a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"an interval holds a share between 0 and 1, got {share}")
    width = NormalDist().inv_cdf((1 + share) / 2) * np.maximum(left_out.std, np.finfo(float).tiny)
    relative = np.sort(np.abs(np.asarray(targets, dtype=float) - left_out.mean) / width)
    at = min(math.ceil((len(relative) + 1) * share), len(relative)) - 1
    return float(relative[at])
