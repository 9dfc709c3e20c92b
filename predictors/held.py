"""Linear least squares of the relative error, held near a prior as far as the data leave it open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

_RESIDUAL = 0.05  # the relative residual that a prior's widths are set against


@dataclass(frozen=True, eq=False)
class LinearPrior:
    """What is believed of the coefficients (k,) of a sum before anything is measured.

    Args:
        mean: where they are without data.
        width: how far each may move to mend a relative residual of 5 %.
        free: which may become negative (bool); the others are prices.
    """

    mean: np.ndarray
    width: np.ndarray
    free: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldFit:
    """Fitted coefficients (k,), and the relative residual (n,) of each observation had it been left out."""

    coefficients: np.ndarray
    left_out: np.ndarray


def fit_held(terms: np.ndarray, truth: np.ndarray, prior: LinearPrior) -> HeldFit:
    """Coefficients c (k,) with terms (n, k) @ c near `truth` (n,): ridge regression towards the prior's mean.

    Raises:
        ValueError: no observations, not as many truths, or one that is not positive.
    """
    truth = np.asarray(truth, dtype=float)
    if len(terms) != len(truth) or not len(truth) or not (truth > 0).all():
        raise ValueError(f"a fit needs observations and as many positive truths, got {len(terms)} and {truth}")
    # In units of the prior's widths, so that all coefficients are of one size for the solver.
    data = terms / truth[:, None] * prior.width
    rows = np.concatenate([data, _RESIDUAL * np.eye(len(prior.mean))])
    goal = np.concatenate([np.ones(len(truth)), _RESIDUAL * prior.mean / prior.width])
    fitted = lsq_linear(rows, goal, bounds=(np.where(prior.free, -np.inf, 0.0), np.inf))
    coefficients = fitted.x * prior.width
    # A point's residual, had it been left out, is its residual over 1 - leverage.
    q, _ = np.linalg.qr(rows[:, fitted.active_mask == 0])
    leverage = (q[: len(truth)] ** 2).sum(axis=1)
    return HeldFit(coefficients, (terms @ coefficients / truth - 1) / (1 - leverage))
