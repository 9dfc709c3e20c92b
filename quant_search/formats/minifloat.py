"""Floating point of few bits: any split into exponent and mantissa, with subnormals, saturation and ties to even.

Source: OCP 8-bit Floating Point Specification 1.0 (e4m3 and e5m2), OCP Microscaling Formats 1.0 (fp6, fp4), IEEE 754.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quant_search.formats.granularity import Granularity
from quant_search.formats.number import Format, Scales, number_of, usable

SCALE_BITS = 32
TOPS = ("ieee", "nan", "finite")
_KNOWN = {"e5m10-unscaled": "fp16", "e8m7-unscaled": "bf16", "e8m23-unscaled": "fp32"}
_EXPONENT = np.int32(0x7F800000)  # of a float32


def usual_top(exponent: int, mantissa: int) -> str:
    """What the highest exponent holds unless a name says otherwise: as OCP has it, and IEEE 754 from e5 on."""
    return "nan" if (exponent, mantissa) == (4, 3) else "ieee" if exponent >= 5 else "finite"


def power_below(values: np.ndarray) -> np.ndarray:
    """The largest power of two up to each value (float32, at least 0); 0 for 0 and for subnormal values."""
    return (np.asarray(values, np.float32).view(np.int32) & _EXPONENT).view(np.float32)


@dataclass(frozen=True)
class Minifloat(Format):
    """A sign, `exponent` bits and `mantissa` bits, times a scale: max |values| / the largest number.

    Numbers beyond the largest become the largest, never infinite.

    Args:
        top: what the highest exponent holds: "ieee" infinities and NaN, "nan" numbers and one NaN, "finite" numbers.
        scaled: False for numbers as they are, without a scale.

    Raises:
        ValueError: a split that is not inside float32, or an unknown `top`.
    """

    exponent: int
    mantissa: int
    top: str = "ieee"
    scaled: bool = True

    def __post_init__(self) -> None:
        if self.top not in TOPS:
            raise ValueError(f"the highest exponent of a minifloat holds {', '.join(TOPS)}, got {self.top!r}")
        if not (1 <= self.exponent <= 8 and 0 <= self.mantissa <= 23):
            raise ValueError(
                f"a minifloat has 1 to 8 exponent and 0 to 23 mantissa bits, got {self.exponent} and {self.mantissa}"
            )
        if self.top != "finite" and (self.exponent < 2 or (self.top == "nan" and self.mantissa < 1)):
            raise ValueError(f"e{self.exponent}m{self.mantissa} has no room for {self.top}: take top='finite'")
        if self.exponent == 8 and self.top != "ieee":
            raise ValueError(f"e8m{self.mantissa} with top={self.top!r} exceeds float32: take top='ieee'")

    @property
    def bits(self) -> int:
        """Sign, exponent and mantissa."""
        return 1 + self.exponent + self.mantissa

    @property
    def name(self) -> str:
        """`e4m3`, `fp16`, `e4m3-ieee`: the split, and what is unusual about the highest exponent."""
        usual = self.top == usual_top(self.exponent, self.mantissa)
        top, scaled = "" if usual else f"-{self.top}", "" if self.scaled else "-unscaled"
        full = f"e{self.exponent}m{self.mantissa}{top}{scaled}"
        return _KNOWN.get(full, full)

    @property
    def dtype(self) -> np.dtype:
        """The narrowest unsigned integer that holds the bits."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16 if self.bits <= 16 else np.uint32)

    @property
    def least_exponent(self) -> int:
        """Of the smallest normal number, and of all subnormal ones."""
        return 2 - 2 ** (self.exponent - 1)

    @property
    def largest_exponent(self) -> int:
        """Of the largest number: emax in the OCP specifications."""
        return 2 ** (self.exponent - 1) - (1 if self.top == "ieee" else 0)

    @property
    def largest(self) -> float:
        """The largest number."""
        return (2 - 2.0 ** -(self.mantissa - (self.top == "nan"))) * 2.0**self.largest_exponent

    @property
    def smallest(self) -> float:
        """The smallest number above 0."""
        return 2.0 ** (self.least_exponent - self.mantissa)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """The numbers of the format nearest to `values` float32, ties to even; scale 1."""
        size = np.minimum(np.abs(values), np.float32(self.largest))
        step = np.maximum(power_below(size), np.float32(2.0**self.least_exponent)) * np.float32(2.0**-self.mantissa)
        return np.copysign(np.round(size / step) * step, values)

    def covering(self, low: np.ndarray, high: np.ndarray) -> Scales:
        """As `Format.covering`: the end farther from 0 becomes the largest number."""
        extent = np.maximum(np.asarray(high, np.float32), -np.asarray(low, np.float32)).astype(np.float64)
        scale = usable(extent / self.largest) if self.scaled else np.ones(extent.shape, np.float32)
        return Scales(scale, np.zeros(scale.shape, self.dtype))

    def encode(self, values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """The bits of the numbers nearest to values / scale, sign first."""
        number = self.nearest(values / scale)
        size = np.asarray(np.abs(number))
        bits, least = size.view(np.int32), self.least_exponent
        normal = ((bits >> 23) - (126 + least) << self.mantissa) + ((bits & 0x7FFFFF) >> (23 - self.mantissa))
        subnormal = size / np.float32(self.smallest)
        code = np.where(size < np.float32(2.0**least), subnormal, normal).astype(np.int64)
        return (code + (np.signbit(number).astype(np.int64) << (self.bits - 1))).astype(self.dtype)

    def decode(self, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """The numbers that bits stand for, times the scale."""
        return self.numbers(codes) * scale

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """The float32 numbers that bits stand for, infinities and NaN included; scale 1."""
        code = codes.astype(np.int64)
        field, rest = code >> self.mantissa & (1 << self.exponent) - 1, code & (1 << self.mantissa) - 1
        leading = np.minimum(field, 1) << self.mantissa  # subnormal numbers do not begin with 1
        power = np.maximum(field, 1) - 1 + self.least_exponent - self.mantissa
        size = np.ldexp((leading + rest).astype(np.float64), power)
        beyond = size > self.largest
        special = np.where((rest == 0) & (self.top == "ieee"), np.inf, np.nan)
        size = np.where(beyond, special, size)
        return np.copysign(size, -(code >> (self.bits - 1)) + 0.5).astype(np.float32)

    def storage_bits(self, shape: tuple[int, ...], granularity: Granularity | None = None) -> int:
        """As `Format.storage_bits`: a float32 scale for each part, if there are scales."""
        parts = number_of(self.checked(granularity).scale_shape(shape)) if self.scaled else 0
        return number_of(shape) * self.bits + parts * SCALE_BITS
