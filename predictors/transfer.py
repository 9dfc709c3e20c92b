"""Latency on a new device from other devices and at most some fifty measurements on it.

A Gaussian process in log latency whose covariance is learnt from the source devices (`predictors/transfer_prior.py`).
The sizes of its parts and of the noise maximise marginal likelihood times priors.  Noise is Student's t, so that a
measurement that went wrong hardly counts (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
sections 2.2, 5.4 and 9.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from predictors.protocol import Prediction
from predictors.transfer_prior import LEVEL, LEVEL_SIZE, TransferPrior

_WIDTHS = np.array([0.7, 0.7, 0.7, 0.7, 1.0])  # of the priors of the logarithms of the sizes: four parts and the noise
_DEGREES = 4.0  # of freedom of the noise
_ROUNDS = 4  # of finding outliers
_CANDIDATES, _POOL = 800, 2000  # among so many is chosen, over so many the variance is averaged


@dataclass(frozen=True, eq=False)
class TransferPredictor:
    """A fitted model of latency on the new device.

    Args:
        weights: prior variances of the terms.
        measured: terms of the k measured architectures (k, terms).
        factor: Cholesky factor of their covariance, noise included (k, k).
        coefficients: inverse covariance times centred log latencies (k,).
        level: median log latency in seconds of what was measured.
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


def choose_samples(prior: TransferPrior, population: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Indices (count,) of architectures of a population (n, d) to measure on the new device, the most telling first.

    Each is the one of 800 random candidates (or of `count`, if that is more) that lowers the mean variance of the
    predictions most (greedy A-optimal design).  The level of the latencies is left out: it orders nothing.

    Raises:
        ValueError: fewer architectures than are to be chosen, or a count below 1.
    """
    if not 1 <= count <= len(population):
        raise ValueError(f"expected a count of 1 to {len(population)} architectures to choose, got {count}")
    order = np.random.default_rng(seed).permutation(len(population))
    terms = prior.terms(population[order[: max(_POOL, count)]]) * np.sqrt(prior.weights(prior.sizes[:-1]))
    candidates = terms[: max(_CANDIDATES, count)]
    ranked = prior.kind != LEVEL
    reach = candidates[:, ranked] @ terms[:, ranked].T
    # Given what is chosen so far: covariances between candidates, and sums over predictions of those with two of them.
    own, told = candidates @ candidates.T, reach @ reach.T
    chosen: list[int] = []
    for _ in range(count):
        variance = np.diag(own) + prior.sizes[-1] ** 2
        gain = np.diag(told) / variance
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        share, column = own[best] / variance[best], told[best].copy()
        told -= np.outer(share, column)
        told -= np.outer(column - column[best] * share, share)
        own -= np.outer(own[:, best], share)
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


def _covariance(sizes: np.ndarray, blocks: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Of the measurements (k, k), from the parts' products (5, k, k)."""
    shared = np.tensordot(np.concatenate([[LEVEL_SIZE], sizes[:-1]]) ** 2, blocks, axes=1)
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
