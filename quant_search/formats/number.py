"""What every number format can do: scales from values, codes from values, values from codes, bits in memory.

All arithmetic is in float32, in the order given, so that other implementations can repeat it bit for bit: a value is
divided by its scale (not multiplied by the reciprocal) and rounded to nearest, ties to even.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quant_search.formats.granularity import PER_TENSOR, Granularity, extremes, join, split

LARGEST = 2.0**127  # beyond it the largest code times a rounded-up scale may leave float32
TINY = float(np.finfo(np.float32).tiny)  # the least scale: smaller ones lose bits, and 0 would divide by 0


class Scales(NamedTuple):
    """Scales float32 and zero points (codes that mean 0) of equal shape, that of `Granularity.scale_shape`."""

    scale: np.ndarray
    zero: np.ndarray


class Format(ABC):
    """A number format: a frozen value with a name that `parse_format` reads."""

    if TYPE_CHECKING:  # at run time it would be taken for the default of a field of this name

        @property
        def bits(self) -> int:
            """Bits of one code, without its share of scales."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What `parse_format` reads."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """The NumPy type that holds codes, one to an element."""

    @abstractmethod
    def covering(self, low: np.ndarray, high: np.ndarray) -> Scales:
        """Scales that spread codes over ranges [low, high], arrays of one shape, each widened to hold 0."""

    @abstractmethod
    def encode(self, values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """Codes of `values`, cut to what the format holds; scale and zero of shapes that broadcast."""

    @abstractmethod
    def decode(self, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """The float32 values that codes stand for; scale and zero of shapes that broadcast."""

    @abstractmethod
    def storage_bits(self, shape: tuple[int, ...], granularity: Granularity | None = None) -> int:
        """Bits of a tensor of `shape` with all its scales and zero points."""

    def __str__(self) -> str:
        return self.name

    def accepts(self, granularity: Granularity) -> bool:
        """Whether scales can be shared so."""
        return True

    def checked(self, granularity: Granularity | None) -> Granularity:
        """The granularity to use: per tensor unless said otherwise.

        Raises:
            ValueError: the format does not have it.
        """
        return PER_TENSOR if granularity is None else granularity

    def scales(self, values: np.ndarray, granularity: Granularity | None = None) -> Scales:
        """Scales by the smallest and largest of the values (float32) that share one; parts without values have scale 1.

        Raises:
            ValueError: values that are not finite or above 2^127, or a granularity that does not fit.
        """
        return self.covering(*finite(*extremes(as_float32(values), self.checked(granularity))))

    def codes(self, values: np.ndarray, scales: Scales, granularity: Granularity | None = None) -> np.ndarray:
        """Codes of `values` float32, in their shape; what lies outside of the range is cut to its ends.

        Raises:
            ValueError: a granularity that does not fit the tensor.
        """
        blocks, layout = split(as_float32(values), self.checked(granularity))
        shaped = (np.reshape(part, layout.broadcast) for part in scales)
        with np.errstate(over="ignore"):  # infinity is cut as all that lies outside
            return join(self.encode(blocks, *shaped), layout, np.shape(values))

    def values(self, codes: np.ndarray, scales: Scales, granularity: Granularity | None = None) -> np.ndarray:
        """The float32 values that `codes` stand for, in their shape.

        Raises:
            ValueError: a granularity that does not fit the tensor.
        """
        blocks, layout = split(codes, self.checked(granularity))
        shaped = (np.reshape(part, layout.broadcast) for part in scales)
        return join(self.decode(blocks, *shaped), layout, codes.shape)

    def round_trip(
        self, values: np.ndarray, granularity: Granularity | None = None, scales: Scales | None = None
    ) -> np.ndarray:
        """`values` as codes and back, float32: what a network computes with; scales are the values' own unless given.

        Raises:
            ValueError: as `scales`.
        """
        scales = self.scales(values, granularity) if scales is None else scales
        return self.values(self.codes(values, scales, granularity), scales, granularity)


def as_float32(values: np.ndarray) -> np.ndarray:
    """`values` in float32, the type that all formats round from."""
    return np.asarray(values, np.float32)


def finite(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges as they are.

    Raises:
        ValueError: an end that is not a number or above 2^127.
    """
    for end in (low, high):
        if not (np.abs(end) <= LARGEST).all():
            worst = np.ravel(end)[np.argmax(~(np.abs(np.ravel(end)) <= LARGEST))]
            raise ValueError(f"values to be quantized must be finite and at most 2^127, got {worst}")
    return low, high


def usable(scale: np.ndarray) -> np.ndarray:
    """Scales float64 in float32, with 1 in place of those too small to divide by: their values become 0."""
    return np.where(scale < TINY, 1.0, scale).astype(np.float32)


def number_of(shape: tuple[int, ...]) -> int:
    """The number of values, or of scales, in an array of `shape`."""
    return math.prod(shape)
