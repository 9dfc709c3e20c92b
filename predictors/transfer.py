"""Latency on a new device from what is known of other devices and a few measurements on the new one.

A Gaussian process over architectures a, in log latency, whose covariance is learnt from the source devices:

    log t(a) = level + mean of the sources + their deviations + alike options + single options + noise

Each term is a linear map of the sources' standardised log latencies or of the features, with normal weights.
Deviations have the covariance that the sources show between devices (the Gaussian process over devices of a
low-rank factor model); "alike" is a smooth function of what an option costs on the sources: options that cost alike
there cost alike on the new device; single options are what no source knows.  The sizes of the terms and of the noise
maximise marginal likelihood times priors.  Noise is Student's t (Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, sections 2.2, 5.4 and 9.3), so that a measurement that went wrong does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from predictors.protocol import Prediction

Columns = Callable[[np.ndarray], np.ndarray]
"""From a population (n, d) to one row of numbers each: (n, p) features, or (n, s) seconds on s source devices."""

_LEVEL, _MEAN, _DEVIATION, _ALIKE, _OPTION = range(5)
_LEVEL_SIZE = (
    3.0  # of the level, after subtracting the mean of the measurements; in standard deviations, like all sizes
)
_NOISE_SIZE = 0.3
_OPTION_SIZE = 0.4  # with one source; the more sources, the less is left for what no source shows
_WIDTHS = np.array([0.7, 0.7, 0.7, 0.7, 1.0])  # of the priors of the logarithms of the sizes: four terms and the noise
_CLIP = 5.0  # robust deviations, beyond which a source's log latency is an outlier
_ALIKE_LENGTH = 0.3  # of the root mean square cost of an option
_DEGREES = 4.0  # of freedom of the noise
_ROUNDS = 4  # of finding outliers
_CANDIDATES, _POOL = 800, 4000  # among so many is chosen, over so many the uncertainty is averaged


@dataclass(frozen=True, eq=False)
class TransferPrior:
    """What source devices tell of a new device before anything is measured on it.

    Args:
        features, sources: of a population (n, d): features (n, p), and seconds on s devices (n, s).
        low, high, center, scale: limits, mean and deviation (s,) of the sources' log latency.
        feature_center: (p,)
        of_sources, of_features: the maps to terms, (s, r) and (p, q).
        kind: which of the sums' parts each of the 1 + r + q terms belongs to.
        sizes: the prior's standard deviation of each part but the level, and of the noise (5,), in `unit`s.
        unit: the standard deviation of log latency, mean of the sources.
    """

    features: Columns
    sources: Columns
    low: np.ndarray
    high: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    feature_center: np.ndarray
    of_sources: np.ndarray
    of_features: np.ndarray
    kind: np.ndarray
    sizes: np.ndarray
    unit: float

    def terms(self, population: np.ndarray) -> np.ndarray:
        """The terms of n architectures (n, 1 + r + q); those of one part have a mean square sum of 1."""
        known = _log_sources(self.sources, population)
        z = (np.clip(known, self.low, self.high) - self.center) / self.scale
        x = self.features(population) - self.feature_center
        return np.column_stack([np.ones(len(z)), z @ self.of_sources, x @ self.of_features])

    def weights(self, sizes: np.ndarray) -> np.ndarray:
        """The prior variance of each term's weight under sizes (5,)."""
        return np.concatenate([[_LEVEL_SIZE], sizes])[self.kind] ** 2


@dataclass(frozen=True, eq=False)
class TransferPredictor:
    """A fitted model of latency on the new device.

    Args:
        weights: prior variances of the terms.
        measured: terms of the k measured architectures (k, terms).
        factor: Cholesky factor of their covariance, noise included (k, k).
        coefficients: inverse covariance times centred log latencies (k,).
        level: mean log latency in seconds of what was measured.
        noise_std: of a measurement, relative.
        trust: of each measurement (k,), about 1 where it agrees with the others, towards 0 where it went wrong.
    """

    prior: TransferPrior
    weights: np.ndarray
    measured: np.ndarray
    factor: np.ndarray
    coefficients: np.ndarray
    level: float
    noise_std: float
    trust: np.ndarray

    def predict(self, population: np.ndarray) -> Prediction:
        """Latency in seconds of a population (n, d): its median; the deviation is that of one measurement."""
        terms = self.prior.terms(population)
        weighted = terms * self.weights
        shared = weighted @ self.measured.T
        unit = self.prior.unit
        mean = np.exp(self.level + unit * (shared @ self.coefficients))
        known = (shared * cho_solve((self.factor, True), shared.T).T).sum(axis=1)
        variance = np.maximum((weighted * terms).sum(axis=1) - known, 0) * unit**2 + self.noise_std**2
        return Prediction(mean, mean * np.sqrt(variance))


def learn_from_sources(features: Columns, sources: Columns, population: np.ndarray) -> TransferPrior:
    """What the sources tell, learnt on a population (n, d) of architectures; nothing is measured; O(n (s + p)² + p³).

    Args:
        sources: latencies in seconds on source devices: columns of a table, or predictors of other devices.

    Raises:
        ValueError: fewer than two architectures, or a latency that is not positive.
    """
    if len(population) < 2:
        raise ValueError(f"learning from source devices needs at least 2 architectures, got {len(population)}")
    logs, x = _log_sources(sources, population), features(population).astype(float)
    middle = np.median(logs, axis=0)
    spread = 1.4826 * np.median(np.abs(logs - middle), axis=0)
    reach = np.where(spread > 0, _CLIP * spread, np.inf)  # most are equal: there is no telling what is an outlier
    logs = np.clip(logs, middle - reach, middle + reach)
    center, scale = logs.mean(axis=0), logs.std(axis=0)
    unit = float(scale.mean()) or 1.0
    scale = np.where(scale > 1e-9, scale, 1.0)
    z, x_centered = (logs - center) / scale, x - x.mean(axis=0)
    of_sources, deviation = _maps_of_sources(z)
    alike, single = _maps_of_features(x_centered, z)
    option = _OPTION_SIZE / math.sqrt(z.shape[1])
    parts = [(_LEVEL, 1), (_MEAN, 1), (_DEVIATION, of_sources.shape[1] - 1)]
    parts += [(_ALIKE, alike.shape[1]), (_OPTION, single.shape[1])]
    return TransferPrior(
        features,
        sources,
        middle - reach,
        middle + reach,
        center,
        scale,
        x.mean(axis=0),
        of_sources,
        np.column_stack([alike, single]),
        np.concatenate([np.full(count, kind) for kind, count in parts]),
        np.array([1.0, max(deviation, 1e-3), option, option, _NOISE_SIZE]),
        unit,
    )


def choose_samples(prior: TransferPrior, population: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Indices (count,) of architectures of a population (n, d) to measure on the new device, the most telling first.

    Each is the one of 800 random candidates that lowers the mean variance of the predictions most, the level left out,
    which orders nothing (greedy A-optimal design); in an order that does not depend on latencies of the new device.

    Raises:
        ValueError: fewer architectures than are to be chosen, or a count below 1.
    """
    if not 1 <= count <= len(population):
        raise ValueError(f"expected 1 to {len(population)} architectures to choose, got {count}")
    order = np.random.default_rng(seed).permutation(len(population))
    sizes = np.sqrt(prior.weights(prior.sizes[:-1]))
    terms = prior.terms(population[order[:_POOL]]) * sizes
    asked = terms.copy()
    asked[:, prior.kind == _LEVEL] = 0
    goal = asked.T @ asked
    candidates = terms[: max(_CANDIDATES, count)]
    if len(candidates) < count:
        candidates = prior.terms(population[order[:count]]) * sizes
    posterior = np.eye(terms.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        shift = candidates @ posterior
        variance = (shift * candidates).sum(axis=1) + prior.sizes[-1] ** 2
        gain = ((shift @ goal) * shift).sum(axis=1) / variance
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        posterior -= np.outer(shift[best], shift[best]) / variance[best]
    return order[chosen]


def fit_transfer(prior: TransferPrior, population: np.ndarray, seconds: np.ndarray) -> TransferPredictor:
    """The predictor for a new device, on which a population (k, d) took `seconds` (k,); O(k³).

    Raises:
        ValueError: fewer than three measurements, not as many times, or one that is not positive.
    """
    seconds = np.asarray(seconds, dtype=float)
    if len(population) < 3 or seconds.shape != (len(population),):
        got = f"{len(population)} and {seconds.shape}"
        raise ValueError(f"a transfer needs at least 3 measured architectures and as many times, got {got}")
    if not (np.isfinite(seconds) & (seconds > 0)).all():
        raise ValueError(f"latencies on the new device must be positive and finite, got {seconds.min()} s as the least")
    terms, level = prior.terms(population), float(np.median(np.log(seconds)))
    y = (np.log(seconds) - level) / prior.unit
    blocks = np.stack([terms[:, prior.kind == kind] @ terms[:, prior.kind == kind].T for kind in range(5)])
    trust = np.ones(len(y))
    for _ in range(_ROUNDS):
        sizes = _most_likely_sizes(prior.sizes, blocks, y, trust)
        covariance = _covariance(sizes, blocks, trust)
        before, trust = trust, _trust(covariance, y, sizes[-1], trust)
        if np.abs(trust - before).max() < 0.02:
            break
    factor = np.linalg.cholesky(_covariance(sizes, blocks, trust))
    coefficients = cho_solve((factor, True), y)
    weights = prior.weights(sizes[:-1])
    noise_std = float(sizes[-1] * prior.unit * math.sqrt(_DEGREES / (_DEGREES - 2)))
    return TransferPredictor(prior, weights, terms, factor, coefficients, level, noise_std, trust)


def _log_sources(sources: Columns, population: np.ndarray) -> np.ndarray:
    """Log latency (n, s) on the source devices."""
    seconds = np.asarray(sources(population), dtype=float)
    if seconds.ndim != 2 or len(seconds) != len(population) or not seconds.shape[1]:
        raise ValueError(f"sources must give ({len(population)}, s) seconds, got an array of shape {seconds.shape}")
    if not (np.isfinite(seconds) & (seconds > 0)).all():
        column = int(np.flatnonzero(~(np.isfinite(seconds) & (seconds > 0)).all(axis=0))[0])
        raise ValueError(f"source device {column} has latencies that are not positive: leave out it or those rows")
    return np.log(seconds)


def _maps_of_sources(z: np.ndarray) -> tuple[np.ndarray, float]:
    """Maps (s, 1 + s) of standardised log latencies to their mean and to their deviations from it.

    And how large these are, relative to the mean: root mean square over devices and architectures.
    """
    count = z.shape[1]
    mean = z.mean(axis=1)
    to_mean = np.full((count, 1), 1 / (count * (mean.std() or 1.0)))
    share = (z @ to_mean).T @ z / len(z)  # of the mean in each device
    to_deviations = np.eye(count) - to_mean @ share
    total = math.sqrt(((z @ to_deviations) ** 2).sum(axis=1).mean())
    if total < 1e-6:  # one source, or equal ones
        return np.column_stack([to_mean, np.zeros((count, count))]), 0.0
    return np.column_stack([to_mean, to_deviations / total]), total / math.sqrt(count)


def _maps_of_features(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (p, q) and (p, p) of centred features (n, p) to what alike options share, and to themselves.

    What an option costs on the sources is found by ridge regression of z (n, s).
    """
    gram = x.T @ x / len(x)
    total = np.trace(gram) or 1.0
    costs = np.linalg.solve(gram + 0.01 * total / len(gram) * np.eye(len(gram)), x.T @ z / len(x))
    costs /= math.sqrt((costs**2).sum(axis=1).mean()) or 1.0
    squares = (costs**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * costs @ costs.T, 0)
    values, vectors = np.linalg.eigh(np.exp(-0.5 * distances / _ALIKE_LENGTH**2))
    kept = values > 1e-6 * values[-1]
    alike = vectors[:, kept] * np.sqrt(values[kept])
    return alike / math.sqrt(np.trace(alike.T @ gram @ alike) or 1.0), np.eye(len(gram)) / math.sqrt(total)


def _covariance(sizes: np.ndarray, blocks: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Of the measurements (k, k), from the parts' products (5, k, k)."""
    shared = np.tensordot(np.concatenate([[_LEVEL_SIZE], sizes[:-1]]) ** 2, blocks, axes=1)
    return shared + np.diag(sizes[-1] ** 2 / trust + 1e-9)


def _most_likely_sizes(prior: np.ndarray, blocks: np.ndarray, y: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """The sizes (5,) that maximise marginal likelihood times log-normal priors around `prior`."""
    start = np.log(prior)
    parts = np.concatenate([blocks[1:], np.diag(1 / trust)[None]])

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        factor = np.linalg.cholesky(_covariance(np.exp(logs), blocks, trust))
        inverse = cho_solve((factor, True), np.eye(len(y)))
        solved, pulled = inverse @ y, (logs - start) / _WIDTHS
        unlikely = 0.5 * y @ solved + np.log(np.diag(factor)).sum() + 0.5 * pulled @ pulled
        # d/d log size = size² tr((K⁻¹ - K⁻¹y yᵀK⁻¹) part): Rasmussen and Williams, equation 5.9
        slope = np.tensordot(parts, inverse - np.outer(solved, solved), axes=2) * np.exp(2 * logs)
        return float(unlikely), slope + pulled / _WIDTHS

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(a - 5, a + 5) for a in start])
    return np.exp(found.x)


def _trust(covariance: np.ndarray, y: np.ndarray, noise: float, trust: np.ndarray) -> np.ndarray:
    """Weights (k,) of the measurements under Student's t, each judged by what the others predict for it."""
    inverse = np.linalg.inv(covariance)
    variance = 1 / np.diag(inverse)
    surprise = (inverse @ y * variance) ** 2 / np.maximum(variance + noise**2 * (1 - 1 / trust), noise**2)
    return (_DEGREES + 1) / (_DEGREES + surprise)
