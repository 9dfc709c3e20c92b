"""Rank correlations with bootstrap intervals: how sure an agreement of few architectures is.

Efron and Tibshirani, "An introduction to the bootstrap" (1993), section 13.3: percentile intervals, here over the
architectures.  A resample is a vector of weights, so that all resamples are products of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

RESAMPLES = 2000
_TAIL = 0.025
_BLOCK = 256


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and its 95 % interval, all in [-1, 1] and never NaN."""

    value: float
    low: float
    high: float


def correlations(x: np.ndarray, y: np.ndarray, seed: int = 0) -> tuple[Correlation, Correlation]:
    """Kendall's tau-b and Spearman's rho of `x` (n,) and `y` (n,), with intervals of `RESAMPLES` resamples.

    Where one of them is constant it orders nothing: both are 0 in [-1, 1].  Resamples in which one is constant are
    left out.  Where all resamples agree, as in a perfect order, the interval is that of n / 2 disjoint pairs, all
    ordered alike: each is with probability p, and p^(n/2) >= 0.025.  O(RESAMPLES · n²) time, O(RESAMPLES · n) memory.

    Raises:
        ValueError: lengths that differ, fewer than 3 values, or one that is not finite.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise ValueError(f"a rank correlation needs two equally long rows of at least 3, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a rank correlation needs finite values, got NaN or infinity: leave out what failed")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(0.0, -1.0, 1.0), Correlation(0.0, -1.0, 1.0)
    tau, rho = float(kendalltau(x, y).statistic), float(spearmanr(x, y).statistic)
    taus, rhos = _resampled(x, y, np.random.default_rng(seed))
    pairs = _of_disjoint_pairs(len(x))
    return _correlation(tau, taus, pairs), _correlation(rho, rhos, _rho_from_tau(pairs))


def _correlation(value: float, resampled: np.ndarray, perfect: float) -> Correlation:
    low, high = np.quantile(resampled, (_TAIL, 1 - _TAIL)) if len(resampled) else (value, value)
    if high - low < 1e-6:  # the resamples know of no other order, which few items do not prove
        low, high = (perfect, 1.0) if value > 0 else (-1.0, -perfect)
    value = min(max(value, -1.0), 1.0)
    return Correlation(value, max(-1.0, min(float(low), value)), min(1.0, max(float(high), value)))


def _of_disjoint_pairs(n: int) -> float:
    """The smallest tau that a perfect order of `n` items does not refute."""
    return 2 * _TAIL ** (1 / (n // 2)) - 1


def _rho_from_tau(tau: float) -> float:
    """The least rho that goes with `tau`: Durbin and Stuart, "Inversions and rank correlation coefficients", 1951."""
    return (3 * tau - 1) / 2 if tau >= 0 else (tau * tau + 2 * tau - 1) / 2


def _resampled(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tau-b and rho (r,) of resamples, where defined.

    With weights w, signs s and t of all differences in x and y: tau-b = Σ w w' s t / √(Σ w w' s² · Σ w w' t²), and
    the ranks, centred, are half of Σ w' s, those of rho.
    """
    n = len(x)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)
    (rank_x, untied_x), (rank_y, untied_y) = _ranked(x, weights), _ranked(y, weights)
    defined = (untied_x > 0) & (untied_y > 0)
    agreeing = np.zeros(RESAMPLES)
    for start in range(0, n, _BLOCK):  # the signs of all pairs would not fit in memory for many items
        rows = slice(start, start + _BLOCK)
        signs = np.sign(x[rows, None] - x) * np.sign(y[rows, None] - y)
        agreeing += ((weights @ signs.astype(np.float32).T) * weights[:, rows]).sum(axis=1, dtype=float)
    products, squares_x, squares_y = (
        (weights * a * b).sum(axis=1, dtype=float)[defined]
        for a, b in ((rank_x, rank_y), (rank_x, rank_x), (rank_y, rank_y))
    )
    taus = agreeing[defined] / np.sqrt(untied_x * untied_y)[defined]
    return taus, products / np.sqrt(squares_x * squares_y)


def _ranked(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred middle ranks (r, n) in resamples of weights (r, n), and how many ordered pairs (r,) are not tied."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    grouped = np.add.reduceat(weights[:, np.argsort(group, kind="stable")], starts, axis=1)
    ranks = np.cumsum(grouped, axis=1) - grouped / 2 - len(values) / 2
    return ranks[:, group], len(values) ** 2 - np.square(grouped, dtype=float).sum(axis=1)
