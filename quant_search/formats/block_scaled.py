"""Block-scaled numbers: few bits each, with a narrow scale for every block of neighbours.

Source: OCP Microscaling Formats (MX) 1.0 and arXiv:2310.10537, algorithm 1 (mxfp8, mxfp6, mxfp4, mxint8); Pretraining
Large Language Models with NVFP4, arXiv:2509.25149, appendix A (nvfp4); block floating point after MSFP (Rouhani et al.,
NeurIPS 2020): integer mantissas that share a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quant_search.formats.granularity import Granularity, extremes, per_group
from quant_search.formats.integer import Integer
from quant_search.formats.minifloat import Minifloat, power_below
from quant_search.formats.number import Format, Scales, as_float32, finite, number_of, usable

TENSOR_SCALE_BITS = 32
_KNOWN = {
    "e4m3x32-e8m0": "mxfp8",
    "e5m2x32-e8m0": "mxfp8-e5m2",
    "e2m3x32-e8m0": "mxfp6",
    "e3m2x32-e8m0": "mxfp6-e3m2",
    "e2m1x32-e8m0": "mxfp4",
    "int8x32-e8m0": "mxint8",
    "e2m1x16-e4m3": "nvfp4",
}


@dataclass(frozen=True)
class PowerOfTwo:
    """Scales that are powers of two between 2^-(2^(bits-1)-1) and its inverse: e8m0 for eight bits.

    Raises:
        ValueError: fewer than 2 bits, or more than 8, which float32 cannot hold.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"scales that are powers of two have 2 to 8 bits, got {self.bits}")

    @property
    def name(self) -> str:
        """`e8m0`."""
        return f"e{self.bits}m0"

    @property
    def largest_exponent(self) -> int:
        """That of the largest scale; the smallest has its negative."""
        return int(2 ** (self.bits - 1) - 1)


@dataclass(frozen=True)
class BlockScaled(Format):
    """Elements with a scale for every `size` neighbours along an axis; the last block of an axis may be shorter.

    With a power of two as `scale` it is 2^(floor(log2 max |values|) - emax), and what exceeds the largest element is
    cut to it.  With a minifloat as `scale` the whole tensor has a float32 scale g besides, max |values| / (largest
    element x largest scale), and the block's is max |values| / (largest element x g), rounded to the minifloat: at
    least to the smallest above 0, since 0 would lose the block.  A block of zeros has scale 1.

    Raises:
        ValueError: a size below 1, or an element with a zero point, without a sign or without a scale.
    """

    element: Integer | Minifloat
    size: int
    scale: PowerOfTwo | Minifloat = PowerOfTwo()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a block has at least 1 value, got {self.size}")
        plain = Integer(self.element.bits) if isinstance(self.element, Integer) else self.element
        if isinstance(self.scale, Minifloat) and not self.scale.scaled:
            raise ValueError(f"the scale of a block is a number of few bits, got {self.scale.name}")
        if plain != self.element or (isinstance(plain, Minifloat) and not plain.scaled):
            raise ValueError(f"elements of a block are symmetric, signed and scaled, got {self.element.name}")

    @property
    def bits(self) -> int:
        """Those of an element."""
        return self.element.bits

    @property
    def name(self) -> str:
        """`mxfp4`, `bfp6`; where there is no such word `e2m1x64-e8m0`: element, block size, scale."""
        if isinstance(self.element, Integer) and self.size == 16 and self.scale == PowerOfTwo():
            return f"bfp{self.element.bits}"
        full = f"{self.element.name}x{self.size}-{self.scale.name}"
        return _KNOWN.get(full, full)

    @property
    def dtype(self) -> np.dtype:
        """That of the elements."""
        return self.element.dtype

    @property
    def largest_exponent(self) -> int:
        """emax: of the largest element."""
        return self.element.bits - 2 if isinstance(self.element, Integer) else self.element.largest_exponent

    @property
    def largest(self) -> float:
        """The largest element."""
        return self.element.highest if isinstance(self.element, Integer) else self.element.largest

    def accepts(self, granularity: Granularity) -> bool:
        """Whether these are groups of the block's size."""
        return granularity.size == self.size

    def checked(self, granularity: Granularity | None) -> Granularity:
        """Blocks along the last axis unless another one is given.

        Raises:
            ValueError: other than groups of the block's size.
        """
        if granularity is None:
            return per_group(-1, self.size)
        if not self.accepts(granularity):
            raise ValueError(
                f"{self.name} has a scale for each {self.size} values along an axis: give group:AXIS:{self.size}, "
                f"got {str(granularity)!r}"
            )
        return granularity

    def scales(self, values: np.ndarray, granularity: Granularity | None = None) -> Scales:
        """As `Format.scales`; with two levels of scales their product, rounded to float32.

        Raises:
            ValueError: values that are not finite or above 2^127, or a granularity that is not the block's.
        """
        low, high = finite(*extremes(as_float32(values), self.checked(granularity)))
        return self.covering(low, high)

    def covering(self, low: np.ndarray, high: np.ndarray) -> Scales:
        """As `Format.covering`, for the ranges of all blocks of one tensor."""
        extent = np.maximum(np.asarray(high, np.float32), -np.asarray(low, np.float32))
        if isinstance(self.scale, PowerOfTwo):
            scale = self._power(extent, self.scale.largest_exponent)
        else:
            narrow, tensor = self.two_levels(extent)
            scale = narrow * tensor
        return Scales(scale, np.zeros(scale.shape, self.dtype))

    def _power(self, extent: np.ndarray, ends: int) -> np.ndarray:
        power = power_below(extent) * np.float32(2.0**-self.largest_exponent)
        return np.where(extent == 0, np.float32(1), np.clip(power, np.float32(2.0**-ends), np.float32(2.0**ends)))

    def two_levels(self, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks' scales, numbers of the minifloat `scale`, and the tensor's, for max |values| of each block.

        Raises:
            TypeError: scales are powers of two, which need no second level.
        """
        if isinstance(self.scale, PowerOfTwo):
            raise TypeError(f"{self.name} has one level of scales, powers of two")
        tensor = usable(np.max(extent, initial=0).astype(np.float64) / (self.largest * self.scale.largest))
        wanted = (extent.astype(np.float64) / (self.largest * tensor.astype(np.float64))).astype(np.float32)
        narrow = np.maximum(self.scale.nearest(wanted), np.float32(self.scale.smallest))
        return np.where(extent == 0, np.float32(1), narrow), tensor

    def encode(self, values: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """As the element does."""
        return self.element.encode(values, scale, zero)

    def decode(self, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """As the element does."""
        return self.element.decode(codes, scale, zero)

    def storage_bits(self, shape: tuple[int, ...], granularity: Granularity | None = None) -> int:
        """As `Format.storage_bits`: a narrow scale for each block, and the tensor's where there are two levels."""
        blocks = number_of(self.checked(granularity).scale_shape(shape))
        tensor = 0 if isinstance(self.scale, PowerOfTwo) else TENSOR_SCALE_BITS
        return number_of(shape) * self.bits + blocks * self.scale.bits + tensor
