"""Integers times a scale: symmetric around zero, or affine with a zero point (arXiv:1712.05877, eq. 1).

The conventions are those of ONNX Runtime's quantizer, so that an int8 file and its reference agree in every code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quant_search.formats.granularity import Granularity
from quant_search.formats.number import TINY, Format, Scales, number_of, usable

SCALE_BITS = 32


@dataclass(frozen=True)
class Integer(Format):
    """Codes of `bits` bits (2 to 8, 16 or 32) that mean (code - zero) x scale.

    Symmetric: zero = 0 and scale = max |values| / (2^(bits-1) - 1), or / (2^bits - 1) without a sign.
    Affine: scale = (high - low) / (2^bits - 1) and zero = round(-low / scale) above the smallest code.

    Args:
        reduced: eight-bit codes of which seven bits are used, -64..64 or 0..127: what is exact on x86 without VNNI.

    Raises:
        ValueError: another number of bits, or a reduced form of other than eight.
    """

    bits: int
    symmetric: bool = True
    signed: bool = True
    reduced: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (*range(2, 9), 16, 32):
            raise ValueError(f"an integer format has 2 to 8, 16 or 32 bits, got {self.bits}")
        if self.reduced and self.bits != 8:
            raise ValueError(f"reduced codes use seven of eight bits, got {self.bits} bits")

    @property
    def name(self) -> str:
        """`int8`, `uint8`; what differs from symmetric `int` and affine `uint` is said."""
        kind = "" if self.symmetric == self.signed else "-symmetric" if self.symmetric else "-affine"
        return f"{'' if self.signed else 'u'}int{self.bits}{kind}{'-reduced' * self.reduced}"

    @property
    def dtype(self) -> np.dtype:
        """int8 or uint8 up to eight bits, wider ones above."""
        return np.dtype(f"{'int' if self.signed else 'uint'}{max(8, self.bits)}")

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -(64 if self.reduced else 2 ** (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest code."""
        return self.steps if self.symmetric else self.lowest + self.steps

    @property
    def steps(self) -> int:
        """Steps from zero to the end of a symmetric range, or from end to end of an affine one."""
        if self.symmetric and self.signed:
            return 64 if self.reduced else 2 ** (self.bits - 1) - 1
        return 127 if self.reduced else 2**self.bits - 1

    @property
    def exact(self) -> np.dtype:
        """The float type in which codes are rounded: float32 cannot tell those of 32 bits apart."""
        return np.dtype(np.float64 if self.bits == 32 else np.float32)

    def covering(self, low: np.ndarray, high: np.ndarray) -> Scales:
        """As `Format.covering`; a range too narrow for a scale in float32 has scale 1 and zero 0."""
        low, high = (np.asarray(end, np.float32) for end in (np.minimum(low, 0), np.maximum(high, 0)))
        if self.symmetric:
            extent = np.maximum(high, -low) if self.signed else high
            scale = usable(extent.astype(np.float64) / self.steps)
            return Scales(scale, np.zeros(scale.shape, self.dtype))
        wide = (high.astype(np.float64) - low) / self.steps
        empty = wide < TINY
        zero = np.where(empty, 0, np.round(-low / np.where(empty, 1.0, wide)) + self.lowest)
        return Scales(usable(wide), zero.astype(self.dtype))

    def encode(self, values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """round(values / scale) + zero, cut to the codes there are."""
        steps = np.asarray(np.divide(values, scale, dtype=self.exact))
        np.round(steps, out=steps)
        steps += zero
        return np.clip(steps, self.lowest, self.highest, out=steps).astype(self.dtype)

    def decode(self, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """(codes - zero) x scale."""
        return np.subtract(codes, zero, dtype=self.exact).astype(np.float32) * scale

    def storage_bits(self, shape: tuple[int, ...], granularity: Granularity | None = None) -> int:
        """As `Format.storage_bits`: a float32 scale for each part, and where it is affine a zero point."""
        parts = number_of(self.checked(granularity).scale_shape(shape))
        return number_of(shape) * self.bits + parts * (SCALE_BITS + (0 if self.symmetric else self.bits))
