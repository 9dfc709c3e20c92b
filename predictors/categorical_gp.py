"""Gaussian-process regression with a kernel made for choices.

k(a, b) = s exp(-Σ_f λ_f (φ_f(a) - φ_f(b))²) + l Σ_f w_f φ_f(a) φ_f(b) + 1, over the features φ of
`predictors/option_features.py`.  With one column per option the first part is the exponentiated Hamming kernel of
categorical Bayesian optimisation, whose λ are learnt per choice (Wan et al., "Think global and act local: Bayesian
optimisation over high-dimensional categorical and mixed search spaces", arXiv:2102.07188, section 4).  Here λ_f is a
factor of the choice times one of the option, shared by all choices with the same list of options, and the features
count options too.  The second part is a trend, so that predictions go on beyond the data.  All factors maximise
marginal likelihood times log-normal priors (Rasmussen and Williams, 2006, equations 5.8 and 5.9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotri, dtrtri
from scipy.optimize import minimize

from predictors.option_features import OptionFeatures, option_features
from predictors.protocol import Prediction
from predictors.training import training_order
from predictors.warp import Warp, fit_warp, winsorised
from search_spaces.space import SearchSpace

_SIZES = np.log([1.0, 0.5, 0.1])  # of the smooth part, the trend and the noise, as variances, before any data
_SIZE_WIDTHS = np.array([1.0, 1.0, 0.7])  # the deviations of their logarithms
_GLOBAL_WIDTH, _FACTOR_WIDTH = 2.0, 1.0  # the same of what all λ have in common, and of each factor
_LEVEL = 1.0  # the variance of the mean
_LEAST_NOISE = 1e-4  # of the targets' variance, so that single precision is enough to predict
_FEW, _STEPS, _LAST_STEPS = 256, 60, 10  # at most so many points take all the steps, the whole set a few from there
_CHUNK = 8192  # rows predicted at a time, so that the kernel stays in the cache


@dataclass(frozen=True, eq=False)
class Kernel:
    """The covariance of two architectures, from their centred features.

    Args:
        roots: √λ (f,).
        weights: of the features in the trend (f,).
        smooth: the variance of the smooth part.
    """

    roots: np.ndarray
    weights: np.ndarray
    smooth: float

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariances (n, k) of rows (n, f) and (k, f)."""
        result = _distances(a * self.roots, b * self.roots)
        np.exp(np.negative(result, out=result), out=result)
        result *= self.smooth
        result += a @ (b * self.weights).T
        result += _LEVEL
        return result

    def variance(self, a: np.ndarray) -> np.ndarray:
        """Of each row (n, f): (n,)."""
        own: np.ndarray = self.smooth + _LEVEL + np.square(a) @ self.weights
        return own


@dataclass(frozen=True, eq=False)
class CategoricalGP:
    """A fitted process on a warped scale of the metric.

    Args:
        center, scale: of the columns (f,): those of the options, then the extra ones.
        known: standardised features of the n training points (n, f).
        coefficients: inverse covariance times warped targets (n,).
        whitening: the inverse of the covariance's Cholesky factor, transposed (n, n).
        noise: the variance of one observation on the warped scale.
        left_out: predictions of the training points, each from all others, in the order given to the fit.
    """

    features: OptionFeatures
    center: np.ndarray
    scale: np.ndarray
    warp: Warp
    kernel: Kernel
    known: np.ndarray
    coefficients: np.ndarray
    whitening: np.ndarray
    noise: float
    left_out: Prediction

    def predict(self, population: np.ndarray, extra: np.ndarray | None = None) -> Prediction:
        """The metric of each row of a canonical population (n, d), with the extra columns (n, s) of the fit if any.

        The deviation is that of one observation, noise included.

        Raises:
            ValueError: other extra columns than the fit had.
        """
        mean, variance = self._moments(population, extra)
        return self.warp.unwarp(Prediction(mean, np.sqrt(variance + self.noise)))

    def predict_off(self, population: np.ndarray, deviations: float, extra: np.ndarray | None = None) -> np.ndarray:
        """The means (n,) moved by so many deviations, noise left out: what the metric may well be (confidence bounds).

        Raises:
            ValueError: as `predict`.
        """
        if deviations == 0:
            return self.predict_mean(population, extra)
        mean, variance = self._moments(population, extra)
        return self.warp.back(mean + deviations * np.sqrt(variance))

    def predict_mean(self, population: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
        """The means (n,) of `predict` alone, in a third of the time.

        Raises:
            ValueError: as `predict`.
        """
        x = self._standardised(population, extra)
        mean = np.empty(len(x))
        for start in range(0, len(x), _CHUNK):
            here = slice(start, start + _CHUNK)
            mean[here] = self.kernel(x[here], self.known) @ self.coefficients
        return self.warp.back(mean)

    def _moments(self, population: np.ndarray, extra: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances (n,) on the warped scale, noise left out."""
        x = self._standardised(population, extra)
        mean, variance = np.empty(len(x)), np.empty(len(x))
        for start in range(0, len(x), _CHUNK):
            here = slice(start, start + _CHUNK)
            shared = self.kernel(x[here], self.known)
            explained = shared @ self.whitening
            mean[here] = shared @ self.coefficients
            variance[here] = self.kernel.variance(x[here]) - np.einsum("ij,ij->i", explained, explained)
        return mean, np.maximum(variance, 0.0)

    def _standardised(self, population: np.ndarray, extra: np.ndarray | None) -> np.ndarray:
        given = _columns(self.features, population, extra)
        if given.shape[1] != len(self.center):
            expected = len(self.center) - len(self.features.choice)
            got = given.shape[1] - len(self.features.choice)
            raise ValueError(f"the process was fitted with {expected} extra columns, got {got}")
        x = np.subtract(given, self.center, dtype=given.dtype)  # extra columns may be large: in double precision
        return _single(x / self.scale.astype(x.dtype))


def fit_categorical_gp(
    space: SearchSpace, population: np.ndarray, targets: np.ndarray, extra: np.ndarray | None = None
) -> CategoricalGP:
    """Fits the metric `targets` (n,) of a canonical population (n, d); O(n³), some 0.2 s for 200 points.

    Args:
        extra: more numbers about each architecture (n, s), such as its latency; smooth dimensions of the kernel.

    Raises:
        ValueError: fewer than two points, not as many targets or extra rows, or a number that is not finite.
    """
    order = training_order(population, targets)
    features = option_features(space)
    given = _columns(features, np.asarray(population), extra)[order]
    y = winsorised(np.asarray(targets, dtype=float)[order])
    warp = fit_warp(y)
    z = warp.forward(y)
    center, scale = given.mean(axis=0), np.ones(given.shape[1])
    extras = slice(len(features.choice), None)
    scale[extras] = np.where(np.ptp(given[:, extras], axis=0) > 0, given[:, extras].std(axis=0), 1.0)
    x = (given - center) / scale
    logs, (smooth, trend, noise) = _most_likely(x, z, _factors(features, given.shape[1]))
    kernel = Kernel(np.exp(0.5 * logs), trend * _trend_weights(x, np.exp(logs)), float(smooth))
    factor = np.linalg.cholesky(kernel(x, x) + noise * np.eye(len(z)))
    coefficients, whitening = cho_solve((factor, True), z), dtrtri(factor, lower=1)[0].T
    own = 1 / np.square(whitening).sum(axis=1)  # Rasmussen and Williams, equation 5.12
    back = np.argsort(order)
    return CategoricalGP(
        features=features,
        center=center,
        scale=scale,
        warp=warp,
        kernel=Kernel(_single(kernel.roots), _single(kernel.weights), kernel.smooth),
        known=_single(x),
        coefficients=_single(coefficients),
        whitening=_single(whitening),
        noise=float(noise),
        left_out=warp.unwarp(Prediction((z - coefficients * own)[back], np.sqrt(own)[back])),
    )


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32, copy=False)


def _columns(features: OptionFeatures, population: np.ndarray, extra: np.ndarray | None) -> np.ndarray:
    """The features of a population (n, d) and its extra columns (n, s) side by side."""
    if extra is None:
        return features(population)
    extra = np.asarray(extra, dtype=float)
    if extra.ndim != 2 or len(extra) != len(population):
        raise ValueError(f"extra columns belong to {len(population)} architectures, got an array of {extra.shape}")
    if not np.isfinite(extra).all():
        raise ValueError("extra columns must be finite, got NaN or infinity: leave such architectures out")
    return np.concatenate([features(population), extra], axis=1)


def _factors(features: OptionFeatures, columns: int) -> np.ndarray:
    """Which factors make up each column's λ (f, p): one of all, of its choice, and of its option; 0 or 1."""
    extras = -1 - np.arange(columns - len(features.choice))  # each extra column is a choice of its own
    choice, option = (np.concatenate([numbers, extras]) for numbers in (features.choice, features.option))
    groups = [choice[:, None] == np.unique(choice), option[:, None] == np.unique(option)]
    return np.concatenate([np.ones((columns, 1)), *groups], axis=1, dtype=float)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances between the rows of two arrays (n, f) and (k, f): (n, k)."""
    product = a @ b.T
    product *= -2
    product += np.square(a).sum(axis=1)[:, None]
    product += np.square(b).sum(axis=1)
    return np.maximum(product, 0, out=product)


def _trend_weights(x: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Features' shares (f,) of a trend of unit variance: as important as in the smooth part."""
    return scales / max(scales @ np.square(x).mean(axis=0), 1e-12)


def _most_likely(x: np.ndarray, y: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log λ (f,), and sizes of smooth part, trend and noise (3,), most likely for y (n,) at centred features (n, f)."""
    start = np.concatenate([np.zeros(factors.shape[1]), _SIZES])
    start[0] = -np.log(4 * max(np.square(x).mean(axis=0).sum(), 1e-12))  # two random rows are at distance 1/2
    found, steps = start, _STEPS
    if len(y) > _FEW:
        some = np.linspace(0, len(y) - 1, _FEW).astype(int)  # the rows are sorted: these are from everywhere
        found, steps = _Unlikeliness(x[some], y[some], factors, start).least(start, _STEPS), _LAST_STEPS
    found = _Unlikeliness(x, y, factors, start).least(found, steps)
    sizes = np.exp(found[-3:])
    sizes[2] += _LEAST_NOISE
    return factors @ found[:-3], sizes


@dataclass(frozen=True, eq=False)
class _Unlikeliness:
    """Minus the logarithm of marginal likelihood times priors, of the logarithms of factors and sizes (p + 3,).

    Args:
        start: the priors' medians.
    """

    x: np.ndarray
    y: np.ndarray
    factors: np.ndarray
    start: np.ndarray

    def least(self, begin: np.ndarray, steps: int) -> np.ndarray:
        """Where it is least, after at most so many steps from `begin`."""
        bounds = [(a - 6, a + 6) for a in self.start]
        found: np.ndarray = minimize(
            self, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
        ).x
        return found

    def __call__(self, at: np.ndarray) -> tuple[float, np.ndarray]:
        """The value and its slope (p + 3,)."""
        scales, (smooth, trend, noise) = np.exp(self.factors @ at[:-3]), np.exp(at[-3:])
        weights = _trend_weights(self.x, scales)
        scaled = self.x * np.sqrt(scales)
        kernel = smooth * np.exp(-_distances(scaled, scaled))
        covariance = kernel + trend * (self.x * weights) @ self.x.T + _LEVEL
        covariance[np.diag_indices(len(self.y))] += noise + _LEAST_NOISE
        factor = np.linalg.cholesky(covariance)
        inverse = dpotri(factor, lower=1)[0]
        inverse = inverse + np.tril(inverse, -1).T  # only one half is written
        solved = inverse @ self.y
        pull = np.outer(solved, solved) - inverse
        smoothly = pull * kernel
        by_scale = np.einsum("af,af->f", self.x, smoothly @ self.x) - smoothly.sum(axis=1) @ np.square(self.x)
        along = 0.5 * trend * weights * np.einsum("af,af->f", self.x, pull @ self.x)
        # A feature that weighs more takes from the others, since the trend's variance is fixed.
        by_scale = by_scale * scales + along - along.sum() * weights * np.square(self.x).mean(axis=0)
        sizes = [0.5 * smoothly.sum(), along.sum(), 0.5 * noise * np.trace(pull)]
        away = (at - self.start) / self._widths
        value = 0.5 * self.y @ solved + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        return float(value), away / self._widths - np.concatenate([self.factors.T @ by_scale, sizes])

    @property
    def _widths(self) -> np.ndarray:
        factors = np.full(self.factors.shape[1] - 1, _FACTOR_WIDTH)
        return np.concatenate([[_GLOBAL_WIDTH], factors, _SIZE_WIDTHS])
