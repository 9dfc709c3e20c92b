"""The method that orders left-out architectures best, fitted and with intervals that hold what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from predictors.catalog import PREDICTORS
from predictors.conformal import Conformal, deviation_factor
from predictors.cross_validation import Fit, left_out_predictions
from predictors.protocol import Prediction
from predictors.training import training_order
from search_spaces.space import SearchSpace

METHODS = ("gp", "ridge", "boosting")  # what is worth its time; the first is taken where others are hardly better
_MOST = 200  # points that methods are compared on, so that a choice takes a bounded time
_TIE = 0.3  # a difference in Kendall's tau that is none, times the root of the number of points


@dataclass(frozen=True, eq=False)
class Chosen:
    """The method `name`, fitted, and the cross-validated Kendall tau-b of all that were tried."""

    name: str
    predictor: Conformal
    scores: Mapping[str, float]

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        return self.predictor.predict(population)


def choose_predictor(
    space: SearchSpace,
    population: np.ndarray,
    targets: np.ndarray,
    seed: int = 0,
    methods: Sequence[str] = METHODS,
    folds: int = 5,
) -> Chosen:
    """Fits the best of `methods` to the metric `targets` (n,) of a population (n, d).

    Of those that chance may have put behind the best (by 0.3 / √n in tau) the one listed first is taken.  Beyond 200
    points, 200 drawn by the seed are cross-validated; time then grows only with the one fit to all.

    Raises:
        ValueError: no methods or an unknown one, fewer than three points, not as many targets, or one not finite.
    """
    unknown = [name for name in methods if name not in PREDICTORS]
    if unknown or not methods:
        raise ValueError(f"expected methods among {', '.join(PREDICTORS)}, got {', '.join(unknown) or 'none'}")
    order = training_order(population, targets, least=3)
    rows, y = np.asarray(population)[order], np.asarray(targets, dtype=float)[order]
    some = np.sort(np.random.default_rng(seed).permutation(len(y))[:_MOST])
    fits: dict[str, Fit] = {name: _seeded(space, name, seed) for name in methods}
    found = {name: left_out_predictions(fit, rows[some], y[some], folds, seed) for name, fit in fits.items()}
    scores = {name: _tau(prediction.mean, y[some]) for name, prediction in found.items()}
    name = next(name for name in methods if scores[name] >= max(scores.values()) - _TIE / np.sqrt(len(some)))
    factor = deviation_factor(found[name], y[some])
    return Chosen(name, Conformal(fits[name](rows, y), factor), scores)


def _seeded(space: SearchSpace, name: str, seed: int) -> Fit:
    return lambda rows, targets: PREDICTORS[name].fit(space, rows, targets, seed)


def _tau(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b, 0 where one of the two is constant: nothing is ordered."""
    found = float(kendalltau(predicted, truth).statistic)
    return 0.0 if np.isnan(found) else found
