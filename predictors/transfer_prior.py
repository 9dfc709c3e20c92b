"""What source devices tell of latency on a new device: a Gaussian process's covariance between architectures.

    log latency = level + mean of the sources + their deviations from it + alike options + single options

Each part is a linear map of the sources' standardised log latencies or of features, with normal weights.  Deviations
vary as they do from source to source (a factor model of the device-by-architecture table, with a new device's
loadings drawn like the known ones').  "Alike" is smooth in what an option costs on the sources: options that cost
alike there cost alike on the new device.  Single options are what no source shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Columns = Callable[[np.ndarray], np.ndarray]
"""From a population (n, d) to one row of numbers each: (n, p) features, or (n, s) seconds on s source devices."""

LEVEL, _MEAN, _DEVIATION, _ALIKE, _OPTION = range(5)
LEVEL_SIZE = 3.0  # after subtracting the middle of the measurements; in standard deviations, like all sizes
_NOISE_SIZE = 0.3
_OPTION_SIZE = 0.4  # with one source; the more sources, the less is left for what no source shows
_CLIP = 5.0  # robust deviations, beyond which a source's log latency is an outlier
_ALIKE_LENGTH = 0.3  # of the root mean square cost of an option


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
        return np.concatenate([[LEVEL_SIZE], sizes])[self.kind] ** 2


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
    parts = [(LEVEL, 1), (_MEAN, 1), (_DEVIATION, of_sources.shape[1] - 1)]
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
