"""Several predictors fitted with a different fold left out each: what they disagree on, and how far all are off.

Source: the members are those of cross-validation+ (Barber et al., "Predictive inference with the jackknife+",
arXiv:1905.02928); here their left-out residuals make a deviation instead of an interval.
"""

from __future__ import annotations

import numpy as np

from predictors.protocol import Prediction


def left_out_folds(n: int, members: int, rng: np.random.Generator) -> np.ndarray:
    """Which of n points each member does not see: bool (≤ members, n), every point left out once."""
    fold = rng.permutation(n) % min(members, n)
    return fold == np.arange(min(members, n))[:, None]


def noise_of(found: np.ndarray, left_out: np.ndarray, targets: np.ndarray) -> float:
    """The variance that the members' disagreement does not explain.

    Args:
        found: what each member says of the training points (members, n).
        left_out: which points it has not seen (members, n), bool; each point by one member.
    """
    member = left_out.argmax(axis=0)
    residuals = found[member, np.arange(len(targets))] - targets
    return max(float(np.mean(residuals**2) - np.mean(found.var(axis=0))), 1e-6)


def joined(found: np.ndarray, noise: float) -> Prediction:
    """The members' mean of what each says (members, n); disagreement and noise make the deviation."""
    return Prediction(found.mean(axis=0), np.sqrt(found.var(axis=0) + noise))
