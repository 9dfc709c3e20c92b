"""A monotone transform that makes a metric's values nearly normal, and the way back for predictions.

Accuracies have a long lower tail (networks that did not learn) which would rule a least-squares fit.
A value so far off that it is hardly one of the metric (of a run that blew up) would rule the scale itself.
Source: Yeo and Johnson, "A new family of power transformations to improve normality or symmetry", 2000;
fences as in Tukey, "Exploratory data analysis", 1977, but much farther out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import yeojohnson, yeojohnson_normmax

from predictors.protocol import Prediction

_POWERS = (-2.0, 6.0)  # beyond these the tail would be all that is left of the scale
_KNOTS = 512
_FENCE = 30.0  # interquartile ranges: no tail that a metric has by itself reaches so far


@dataclass(frozen=True, eq=False)
class Warp:
    """A strictly increasing map between the metric and a scale on which its known values have mean 0 and deviation 1.

    Args:
        metric, warped: the map's knots (k,); beyond them it is continued by straight lines.
    """

    metric: np.ndarray
    warped: np.ndarray

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Values of the metric (n,) on the warped scale."""
        return _interpolate(values, self.metric, self.warped)

    def back(self, warped: np.ndarray) -> np.ndarray:
        """Values on the warped scale (n,) as the metric."""
        return _interpolate(warped, self.warped, self.metric)

    def unwarp(self, prediction: Prediction) -> Prediction:
        """A prediction on the warped scale as one of the metric: its median, and half the width of ± one deviation."""
        above, below = self.back(prediction.mean + prediction.std), self.back(prediction.mean - prediction.std)
        return Prediction(self.back(prediction.mean), (above - below) / 2)


def winsorised(targets: np.ndarray) -> np.ndarray:
    """The targets (n,), those farther than 30 interquartile ranges beyond the quartiles moved to there; O(n).

    Warp and predictor are both to be fitted to these.  Where half of the values are equal, all stay: there is no
    telling what is extreme.
    """
    low, high = np.quantile(targets, [0.25, 0.75])
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        return targets
    reach = _FENCE * (high - low)
    return np.clip(targets, low - reach, high + reach)


def fit_warp(targets: np.ndarray) -> Warp:
    """The power transform of the targets (n,) that makes them most likely normal; O(n)."""
    low, high = float(targets.min()), float(targets.max())
    scale = float(targets.std())
    if not scale > 1e-12 * max(abs(low), abs(high)):  # constant: nothing to warp
        scale = max(scale, 1e-12, 1e-9 * abs(low))
        return Warp(np.array([low - scale, low + scale]), np.array([-1.0, 1.0]))
    center = float(targets.mean())
    standard = (targets - center) / scale
    power = float(np.clip(yeojohnson_normmax(standard), *_POWERS))
    knots = np.linspace(standard.min(), standard.max(), _KNOTS)
    curve, known = yeojohnson(knots, power), yeojohnson(standard, power)
    return Warp(center + scale * knots, (curve - known.mean()) / known.std())


def _interpolate(x: np.ndarray, known: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Piecewise linear between the knots, straight on at both ends."""
    below = value[0] + (x - known[0]) * (value[1] - value[0]) / (known[1] - known[0])
    above = value[-1] + (x - known[-1]) * (value[-1] - value[-2]) / (known[-1] - known[-2])
    inside: np.ndarray = np.interp(x, known, value)
    return np.where(x < known[0], below, np.where(x > known[-1], above, inside))
