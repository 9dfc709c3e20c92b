"""How good predictions are: error and rank correlation against the truth."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr


@dataclass(frozen=True)
class Agreement:
    """Predictions against the truth on items that were not used for fitting.

    Args:
        mape: mean absolute error relative to the truth.
        within_5, within_10: the share of items within ± 5 and ± 10 %.
        spearman, kendall: rank correlations (tau-b); NaN for fewer than three items or constant values.
    """

    items: int
    mape: float
    within_5: float
    within_10: float
    spearman: float
    kendall: float

    def plain(self) -> dict[str, float | None]:
        """As JSON, which has no NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def agreement(predicted: np.ndarray, truth: np.ndarray) -> Agreement:
    """How well `predicted` (n,) matches `truth` (n,), which must not be zero.

    Raises:
        ValueError: different lengths, nothing to compare, or a truth of zero.
    """
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    if predicted.shape != truth.shape or not len(truth):
        raise ValueError(f"expected equally many predictions and truths, got {predicted.shape} and {truth.shape}")
    if not truth.all():
        raise ValueError("a relative error needs truths other than zero, got a zero")
    relative = np.abs(predicted - truth) / np.abs(truth)
    ranked = len(truth) >= 3 and np.ptp(truth) > 0 and np.ptp(predicted) > 0
    return Agreement(
        items=len(truth),
        mape=float(relative.mean()),
        within_5=float((relative <= 0.05).mean()),
        within_10=float((relative <= 0.1).mean()),
        spearman=float(spearmanr(predicted, truth).statistic) if ranked else float("nan"),
        kendall=float(kendalltau(predicted, truth).statistic) if ranked else float("nan"),
    )
