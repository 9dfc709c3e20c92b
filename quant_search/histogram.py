"""Histograms of streams whose range is not known before: bins double in width as it grows, and nothing is resampled.

Widths are powers of two and edges are multiples of them, so that two neighbours merge into a wider bin exactly: the
histogram of all values is the same in whatever parts and order they came.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

BINS = 2048  # at most, and more than half of it where values spread; TensorRT's number
_CHUNK = 2**16  # values at a time, which stay in the processor's caches
_LEAST_EXPONENT = -126  # of widths, so that they and their inverses are float32 numbers


@dataclass(frozen=True, eq=False)
class Histogram:
    """Bin i holds the values in [(first + i) w, (first + i + 1) w) with w = 2^exponent.

    Args:
        counts: (n,) int64, n at most `BINS`; zeros are among them.
        zeros: values that are exactly 0, which every format holds exactly.
        low: the smallest value.
        high: the largest value.
    """

    exponent: int
    first: int
    counts: np.ndarray
    zeros: int
    low: float
    high: float

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """The number of values."""
        return int(self.counts.sum())

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """(n + 1,) float64."""
        return (self.first + np.arange(len(self.counts) + 1)) * self.width

    @functools.cached_property
    def other_counts(self) -> np.ndarray:
        """(n,) counts of values that are not exactly 0."""
        counts = self.counts.copy()
        if self.zeros:
            counts[-self.first] -= self.zeros
        return counts

    def __add__(self, other: Histogram) -> Histogram:
        """That of both streams together, exactly."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        exponent, first, bins = _bins(low, high)
        counts = self._counts_in(exponent, first, bins) + other._counts_in(exponent, first, bins)
        return Histogram(exponent, first, counts, self.zeros + other.zeros, low, high)

    def coarser(self, doublings: int) -> Histogram:
        """The same values in bins that are 2^doublings times as wide."""
        first, last = (place >> doublings for place in (self.first, self.first + len(self.counts) - 1))
        counts = self._counts_in(self.exponent + doublings, first, last - first + 1)
        return replace(self, exponent=self.exponent + doublings, first=first, counts=counts)

    def _counts_in(self, exponent: int, first: int, bins: int) -> np.ndarray:
        places = self.first + np.arange(len(self.counts)) >> min(63, exponent - self.exponent)
        return np.bincount(places - first, self.counts, bins).astype(np.int64)


def histogram(values: np.ndarray) -> Histogram:
    """The histogram of `values` float32 of any shape.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    values = np.ravel(np.asarray(values, np.float32))
    if not values.size:
        raise ValueError("a histogram needs values, got none")
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"a histogram needs finite values, got {high if math.isfinite(low) else low}")
    exponent, first, bins = _bins(low, high)
    counts = np.zeros(bins, np.int64)
    # In wide bins a negative number may underflow to 0, which is another bin.
    exact = np.float64 if low < 0 and exponent > 0 else np.float32
    for start in range(0, len(values), _CHUNK):
        places = np.multiply(values[start : start + _CHUNK], exact(2.0**-exponent), dtype=exact)
        np.floor(places, out=places)
        places -= exact(first)  # exact: integers, the difference of which is small
        counts += np.bincount(places.astype(np.intp), minlength=bins)
    return Histogram(exponent, first, counts, values.size - int(np.count_nonzero(values)), low, high)


def _bins(low: float, high: float) -> tuple[int, int, int]:
    """Exponent of the width, first bin and number of bins for values from `low` to `high`: the narrowest that do."""
    spread = high - low
    exponent = math.frexp(spread / BINS)[1] - 1 if spread else _LEAST_EXPONENT
    # Below 2^-23 of the largest value float32 has no more values to tell apart, and bins too large numbers.
    largest = math.frexp(max(-low, high))[1] if low or high else _LEAST_EXPONENT
    exponent = max(exponent, largest - 24, _LEAST_EXPONENT)
    while True:  # thrice at most: the spread may lie across one bin more than fit
        first, last = (math.floor(math.ldexp(end, -exponent)) for end in (low, high))
        if last - first < BINS:
            return exponent, first, last - first + 1
        exponent += 1
