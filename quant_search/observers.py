"""Ranges of activations from their histograms: what is cut, so that the rest gets smaller steps.

Each is a function of a histogram and of the format that the range is for, and gives (low, high), inside of the smallest
and largest value seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quant_search.formats.integer import Integer
from quant_search.formats.number import Format
from quant_search.histogram import Histogram

Range = tuple[float, float]
Observer = Callable[[Histogram, Format], Range]

_LEAST_SHARE = 1e-3


def min_max(seen: Histogram, number: Format) -> Range:
    """The smallest and largest value: nothing is cut."""
    return seen.low, seen.high


@dataclass(frozen=True)
class Percentile:
    """The range that holds `percent` of the values, half of the rest on either side (arXiv:2004.09602, section 4).

    Raises:
        ValueError: a share that is not above 0 and at most 100.
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"a percentile lies above 0 and at most at 100, got {self.percent}")

    def __call__(self, seen: Histogram, number: Format) -> Range:
        """As `Observer`, by interpolation inside of bins."""
        places, counts = seen.edges, seen.other_counts
        if seen.zeros:  # all at one place: a bin without width
            places, counts = (np.insert(part, -seen.first, new) for part, new in ((places, 0.0), (counts, seen.zeros)))
        below = np.concatenate([[0.0], np.cumsum(counts)])
        tail = (1 - self.percent / 100) / 2 * below[-1]
        from_below = int(np.searchsorted(below, tail, side="right")) - 1
        from_above = int(np.searchsorted(below, below[-1] - tail, side="left")) - 1
        low = _between(places, below, from_below, tail)
        return _inside(seen, low, _between(places, below, from_above, below[-1] - tail))


@dataclass(frozen=True)
class MeanSquare:
    """The range of least mean squared rounding and cutting error, by the format's own rounding of the middles of bins.

    Searches shares of both ends over a grid of `points` x `points`, from the whole to a thousandth and none of it, and
    again between the neighbours of the best one, `rounds` times in all.
    """

    points: int = 16
    rounds: int = 4

    def __call__(self, seen: Histogram, number: Format) -> Range:
        """As `Observer`."""
        middles, weights = _middles(seen)
        ends = np.array([min(seen.low, 0.0), max(seen.high, 0.0)])
        if _around_zero(number):
            ends = np.abs(ends).max() * np.array([-1.0, 1.0])
        best, least = np.ones(2), np.inf
        axes = [np.append(np.geomspace(1, _LEAST_SHARE, self.points), 0.0)] * 2
        for _ in range(self.rounds):
            shares = _grid(axes, ends, number)
            errors = _errors(middles, weights, (shares * ends).astype(np.float32), number)
            if errors.min() < least:
                best, least = shares[errors.argmin()], float(errors.min())
            axes = [self._between_neighbours(axis, share) for axis, share in zip(axes, best, strict=True)]
        return _inside(seen, *(best * ends))

    def _between_neighbours(self, axis: np.ndarray, share: float) -> np.ndarray:
        i = int(np.abs(axis - share).argmin())
        return np.linspace(axis[max(0, i - 1)], axis[min(len(axis) - 1, i + 1)], self.points)


def _grid(axes: Sequence[np.ndarray], ends: np.ndarray, number: Format) -> np.ndarray:
    """Shares (n, 2) of both ends, widest first: among equal errors nothing is cut."""
    if _around_zero(number):
        shares = np.stack([axes[1], axes[1]], axis=1)
    else:
        used = [axis if end else np.ones(1) for axis, end in zip(axes, ends, strict=True)]
        shares = np.stack([np.ravel(part) for part in np.meshgrid(*used, indexing="ij")], axis=1)
    # A scale that is to cover nothing has no meaning.
    return shares[(shares * ends).any(axis=1) | ~ends.any()]


@dataclass(frozen=True)
class Entropy:
    """The range cut to [-t, t] of least divergence (Migacz, 8-bit Inference with TensorRT, GTC 2017).

    It is that of Kullback and Leibler, between the values with those that are cut counted at the ends, and what codes
    leave of them: the values inside, spread evenly over the bins that share a code.  Candidates for t are `points`
    multiples of a bin's width, from one bin for each code on.  Exact zeros stay out, as they are exact in every format.
    Bins are widened until `filling` values are in one on average: where these are wider than steps nothing is cut.
    """

    points: int = 128
    filling: int = 16

    def __call__(self, seen: Histogram, number: Format) -> Range:
        """As `Observer`."""
        most = (seen.total - seen.zeros) / self.filling
        seen = seen.coarser(max(0, math.ceil(math.log2(len(seen.counts) / max(1.0, most)))))
        middles, weights = _middles(seen)
        bins = max(-seen.edges[0], seen.edges[-1]) / seen.width
        tried = np.unique(np.linspace(min(bins, _least_bins(seen, number)), bins, self.points).round()) * seen.width
        ranges = [_inside(seen, -t, t) for t in tried]
        divergences = [_divergence(middles, weights, t, ends, number) for t, ends in zip(tried, ranges, strict=True)]
        return ranges[int(np.argmin(divergences))]


def _least_bins(seen: Histogram, number: Format) -> float:
    """Bins from 0 to t for which [-t, t], cut to what was seen where zero may be anywhere, has one for each code."""
    if _around_zero(number):
        return 2.0 ** (number.bits - 1)
    shorter = max(0.0, min(-seen.low, seen.high)) / seen.width
    return max(2.0 ** (number.bits - 1), 2.0**number.bits - shorter)


def _around_zero(number: Format) -> bool:
    """Whether codes spread as far below zero as above."""
    return not isinstance(number, Integer) or (number.symmetric and number.signed)


def _between(places: np.ndarray, below: np.ndarray, i: int, rank: float) -> float:
    """Where between places i and i + 1 `rank` values are passed, of which `below[i]` are before."""
    share = (rank - below[i]) / (below[i + 1] - below[i])
    return float(places[i] + share * (places[i + 1] - places[i]))


def _inside(seen: Histogram, low: float, high: float) -> Range:
    return max(seen.low, float(low)), min(seen.high, float(high))


def _middles(seen: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Of bins with values other than 0, float32, and how many these are, float64."""
    some = np.flatnonzero(seen.other_counts)
    return ((seen.first + some + 0.5) * seen.width).astype(np.float32), seen.other_counts[some].astype(np.float64)


def _errors(middles: np.ndarray, weights: np.ndarray, ranges: np.ndarray, number: Format) -> np.ndarray:
    """Sums of squared errors for each of `ranges` (n, 2)."""
    scale, zero = (part[:, None] for part in number.covering(ranges[:, 0], ranges[:, 1]))
    rounded = number.decode(number.encode(middles, scale, zero), scale, zero)
    errors: np.ndarray = np.square(rounded.astype(np.float64) - middles) @ weights
    return errors


def _divergence(middles: np.ndarray, weights: np.ndarray, t: float, ends: Range, number: Format) -> float:
    """KL(P || Q): P the values with those beyond `t` at the ends, Q those inside, even over what shares a code."""
    inside = slice(*np.searchsorted(middles, (-t, t)))
    whole, kept = weights[inside].copy(), weights[inside]
    if not kept.size:
        return np.inf
    codes = number.encode(middles[inside], *number.covering(*np.array(ends, np.float32)))
    _, group = np.unique(codes, return_inverse=True)
    even = (np.bincount(group, kept) / np.bincount(group))[group]
    whole[0] += weights[: inside.start].sum()
    whole[-1] += weights[inside.stop :].sum()
    return float(np.sum(whole / whole.sum() * np.log(whole / whole.sum() / (even / even.sum()))))
