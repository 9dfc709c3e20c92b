"""Times of kernels of one kind: non-negative prices times a smooth ratio.

The prices of what a kernel computes and moves make a roofline fitted to the device, which keeps extrapolation positive
and sane; how far a shape is off it is a Gaussian process in logarithms (Rasmussen and Williams, 2006, algorithm 2.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import lsq_linear, minimize
from scipy.spatial.distance import cdist

from predictors.kernel_work import Work

_LEAST_PRICE = 1e-4  # of what costs about one: a kernel that has only what was never seen to cost still costs a little
HARD_TO_TELL_S = 1e-6  # times are known to about this: short kernels say little of prices
_TUNED_ON, _FITTED_ON = 220, 900  # samples: the cost is cubic
_STEPS = 40


@dataclass(frozen=True, eq=False)
class RatioModel:
    """A fitted kind.

    Args:
        prices: seconds per million units of each amount (p,).
        center, scale: of the logarithms (d,).
        theta: logarithms of the process' parameters (d + 3,).
        x, log_ratio: the standardised samples (n, d) and their ratios to the priced time (n,).
        noise: of each sample's logarithm, added to that of all (n,).
    """

    prices: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    theta: np.ndarray
    x: np.ndarray
    log_ratio: np.ndarray
    noise: np.ndarray
    _cholesky: np.ndarray = field(init=False, repr=False)
    _weights: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        factor = _factor(self.theta, self.x, self.noise)
        object.__setattr__(self, "_cholesky", factor)
        object.__setattr__(self, "_weights", cho_solve((factor, True), self.log_ratio))

    def plain(self) -> dict[str, Any]:
        """As JSON; numbers to seven digits."""
        return {f.name: _rounded(getattr(self, f.name)) for f in fields(self) if f.init}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> RatioModel:
        """The model that `plain` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return RatioModel(**{f.name: np.array(plain[f.name], dtype=float) for f in fields(RatioModel) if f.init})

    def seconds(self, works: Sequence[Work]) -> tuple[np.ndarray, np.ndarray]:
        """The time of each kernel (n,), and the deviation of its logarithm (n,), that of a sample not included."""
        priced = np.array([w.amounts for w in works]) @ self.prices * 1e-6
        x = (np.array([w.logs for w in works]) - self.center) / self.scale
        between = _covariance(self.theta, x, self.x)
        mean = between @ self._weights
        solved = solve_triangular(self._cholesky, between.T, lower=True)
        variance = _prior_variance(self.theta, x) - (solved**2).sum(axis=0)
        return priced * np.exp(mean), np.sqrt(np.maximum(variance, 1e-6))


def fit_ratio(
    works: Sequence[Work],
    seconds: np.ndarray,
    seed: int = 0,
    theta: np.ndarray | None = None,
    known_to_s: float = HARD_TO_TELL_S,
) -> RatioModel:
    """Fits kernels of one family to their times (n,).

    Args:
        theta: parameters of an earlier fit, to be kept.
        known_to_s: to which times are known.
    """
    amounts, logs, seconds = _unique(works, seconds)
    prices = _price(amounts, seconds, known_to_s)
    center, scale = logs.mean(axis=0), np.maximum(logs.std(axis=0), 0.1)
    x, noise = (logs - center) / scale, (known_to_s / seconds) ** 2 / 2
    log_ratio = np.log(seconds / (amounts @ prices * 1e-6))
    order = np.random.default_rng(seed).permutation(len(x))[:_FITTED_ON]
    x, noise, log_ratio = x[order], noise[order], log_ratio[order]
    if theta is None:
        tuned = slice(0, _TUNED_ON)
        theta = _tuned(x[tuned], log_ratio[tuned], noise[tuned])
    rounded = (_rounded(part) for part in (prices, center, scale, theta, x, log_ratio, noise))
    return RatioModel(*map(np.array, rounded))  # as they are saved: a loaded model predicts the same


def _rounded(values: np.ndarray) -> Any:
    return np.vectorize(lambda v: float(f"{v:.7g}"), otypes=[float])(values).tolist()


def _price(amounts: np.ndarray, seconds: np.ndarray, known_to_s: float) -> np.ndarray:
    weight = 1 / (seconds * 1e6 + known_to_s * 1e6)
    with np.errstate(invalid="ignore"):  # 0 times an open bound, inside the solver
        found = lsq_linear(amounts * weight[:, None], seconds * 1e6 * weight, bounds=(_LEAST_PRICE, np.inf))
    return np.asarray(found.x)


def _unique(works: Sequence[Work], seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal works once, with the mean of their logarithmic times."""
    rows: dict[tuple[tuple[float, ...], tuple[float, ...]], list[float]] = {}
    for work, t in zip(works, seconds, strict=True):
        rows.setdefault((work.amounts, work.logs), []).append(float(np.log(t)))
    amounts, logs = (np.array([key[i] for key in rows]) for i in (0, 1))
    return amounts, logs, np.exp([np.mean(times) for times in rows.values()])


# -- the process: a linear trend, a smooth deviation with a scale for each feature, and noise ----------


def _covariance(theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    trend, smooth, scales = np.exp(theta[0]), np.exp(theta[1]), np.exp(theta[3:])
    near = np.exp(-0.5 * cdist(a / scales, b / scales, "sqeuclidean"))
    result: np.ndarray = trend * (1 + a @ b.T) + smooth * near
    return result


def _prior_variance(theta: np.ndarray, a: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.exp(theta[0]) * (1 + (a**2).sum(axis=1)) + np.exp(theta[1])
    return result


def _factor(theta: np.ndarray, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
    covariance = _covariance(theta, x, x) + np.diag(np.exp(theta[2]) + noise)
    return np.asarray(cho_factor(covariance, lower=True)[0])


def _tuned(x: np.ndarray, y: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The parameters of the largest marginal likelihood, held near a prior."""
    start = np.concatenate([np.log([0.01, 0.1, 0.003]), np.full(x.shape[1], np.log(2.5))])
    width = np.concatenate([[2.0, 1.5, 1.0], np.full(x.shape[1], 1.0)])
    squares = [(x[:, None, j] - x[None, :, j]) ** 2 for j in range(x.shape[1])]
    inner = 1 + x @ x.T

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        trend, smooth, white, inverse = np.exp(theta[0]), np.exp(theta[1]), np.exp(theta[2]), np.exp(-2 * theta[3:])
        rbf = smooth * np.exp(-0.5 * sum(s * w for s, w in zip(squares, inverse, strict=True)))
        factor = cho_factor(trend * inner + rbf + np.diag(white + noise), lower=True)
        alpha = cho_solve(factor, y)
        pull = cho_solve(factor, np.eye(len(y))) - np.outer(alpha, alpha)
        slopes = [trend * (pull * inner).sum(), (pull * rbf).sum(), white * np.trace(pull)]
        pulled = pull * rbf
        slopes += [w * (pulled * s).sum() for s, w in zip(squares, inverse, strict=True)]
        value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * (((theta - start) / width) ** 2).sum()
        return float(value), 0.5 * np.array(slopes) + (theta - start) / width**2

    bounds = [(s - 3 * w, s + 3 * w) for s, w in zip(start, width, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(minimize(loss, start, jac=True, bounds=bounds, options={"maxiter": _STEPS}).x)
