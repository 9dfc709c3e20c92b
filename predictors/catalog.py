"""The methods that learn a metric from some architectures, by name; importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from predictors.boosting import fit_boosting
from predictors.categorical_gp import fit_categorical_gp
from predictors.forest import fit_forest
from predictors.mlp import fit_mlp
from predictors.option_features import option_features
from predictors.protocol import Predictor
from predictors.quantized import fit_around_drop
from predictors.ridge import fit_ridge
from search_spaces.space import SearchSpace


def _fit_apq(space: SearchSpace, columns: Sequence[int], rows: np.ndarray, targets: np.ndarray, seed: int) -> Predictor:
    from predictors.quantized_mlp import fit_quantized_mlp  # loads torch

    return fit_quantized_mlp(space, columns, rows, targets, seed)


@dataclass(frozen=True)
class PredictorEntry:
    """A method.

    Args:
        fit: from a space, a population (n, d), its targets (n,) and a seed to a predictor.
        calibrated: whether its deviations come from points that it has not been fitted to in any way; others' are
            to be set by `predictors/conformal.py`.
    """

    summary: str
    fit: Callable[[SearchSpace, np.ndarray, np.ndarray, int], Predictor]
    calibrated: bool


@dataclass(frozen=True)
class QuantizedEntry:
    """A method that learns from networks in full precision and quantized ones.

    Args:
        fit: from a joint space, its choices of policies (with options from few bits to many), a population (n, d), its
            targets (n,), worse the larger they are, and a seed to a predictor.
    """

    summary: str
    fit: Callable[[SearchSpace, Sequence[int], np.ndarray, np.ndarray, int], Predictor]


PREDICTORS = {
    "ridge": PredictorEntry(
        summary="a hyperplane over options and their counts; the fastest",
        fit=lambda space, rows, targets, _: fit_ridge(option_features(space), rows, targets),
        calibrated=False,
    ),
    "gp": PredictorEntry(
        summary="a Gaussian process with a kernel made for choices (the default)",
        fit=lambda space, rows, targets, _: fit_categorical_gp(space, rows, targets),
        calibrated=False,
    ),
    "boosting": PredictorEntry(
        summary="gradient-boosted trees, a committee of five",
        fit=lambda space, rows, targets, seed: fit_boosting(option_features(space), rows, targets, seed),
        calibrated=True,
    ),
    "forest": PredictorEntry(
        summary="extremely randomised trees",
        fit=lambda space, rows, targets, seed: fit_forest(option_features(space), rows, targets, seed),
        calibrated=True,
    ),
    "mlp": PredictorEntry(
        summary="eight small neural networks; fitting loads torch",
        fit=lambda space, rows, targets, seed: fit_mlp(option_features(space), rows, targets, seed),
        calibrated=True,
    ),
    "mlp-hinge": PredictorEntry(
        summary="the same, trained to order pairs by a margin",
        fit=lambda space, rows, targets, seed: fit_mlp(option_features(space), rows, targets, seed, loss="hinge"),
        calibrated=False,
    ),
    "mlp-kendall": PredictorEntry(
        summary="the same, trained on a smooth rank correlation",
        fit=lambda space, rows, targets, seed: fit_mlp(option_features(space), rows, targets, seed, loss="kendall"),
        calibrated=False,
    ),
}

# The methods that know what a policy is.
QUANTIZED = {
    "drop-gp": QuantizedEntry(
        summary="a Gaussian process around a drop that never shrinks as bits fall (the default)",
        fit=lambda space, columns, rows, targets, _: fit_around_drop(space, columns, rows, targets),
    ),
    "joint-gp": QuantizedEntry(
        summary="one Gaussian process over architectures and policies",
        fit=lambda space, columns, rows, targets, _: fit_categorical_gp(space, rows, targets),
    ),
    "apq": QuantizedEntry(
        summary="small neural networks, trained in full precision, then with the policy (APQ); fitting loads torch",
        fit=_fit_apq,
    ),
}
