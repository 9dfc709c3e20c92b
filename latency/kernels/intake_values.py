"""What the tensors of a QDQ graph stand for while it is taken in.

Between a DequantizeLinear and the next QuantizeLinear nothing is computed: what stands there becomes one operation of
the contract, with one rounding at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from latency.kernels.contract import Operation, Rounding

CODES = np.arange(256, dtype=np.uint8)
CODES.setflags(write=False)


class Unsupported(Exception):
    """Why a node has no counterpart in the contract."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A constant as it is stored: `steps` (code - zero point) of `scale`, float32 (n,) along `axis` or (1,)."""

    steps: np.ndarray
    scale: np.ndarray
    axis: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input."""

    values: np.ndarray
    stored: Stored | None = None


@dataclass(frozen=True, eq=False)
class Pixels:
    """float32 images (b, *shape), before anything is rounded."""

    tensor: int
    shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of a tensor of the program, each through a table that is not applied yet.

    Args:
        shape: (c, h, w).
        flat: whether the graph sees (b, c · h · w).
    """

    tensor: int
    table: np.ndarray
    scale: np.float32
    zero: int
    shape: tuple[int, int, int]
    flat: bool = False


@dataclass(frozen=True, eq=False)
class Values:
    """A float32 for each code of a tensor of the program.

    Args:
        values: float32 (256,).
        codes: those that the values are (code - zero) · scale of; None after an activation function.
    """

    tensor: int
    values: np.ndarray
    shape: tuple[int, int, int]
    flat: bool = False
    codes: Codes | None = None


@dataclass(frozen=True, eq=False)
class Sums:
    """What an operation adds up, before its rounding: (sum + offset) · scale + bias, and (a code) · residual.

    Args:
        make: the operation of a rounding to steps of the given size.
        inputs: tensors of the program.
        scale: float32 (c,) or (1,); offset: int64 and bias: float64 of such shapes.
        low, high: the values are cut to.
        weight: int8 (out, h · w · c) where the operation is a linear layer over all pixels.
        residual: the scale of codes, the last of `inputs`, that are added.
        linear: whether scale and bias may still change.
    """

    make: Callable[[Rounding, np.float32], Operation]
    inputs: tuple[int, ...]
    scale: np.ndarray
    offset: np.ndarray
    bias: np.ndarray
    shape: tuple[int, int, int]
    flat: bool = False
    low: float = -np.inf
    high: float = np.inf
    weight: np.ndarray | None = None
    residual: np.float32 | None = None
    linear: bool = True

    @property
    def cut(self) -> bool:
        """Whether an activation function came behind."""
        return self.low > -np.inf or self.high < np.inf

    def between(self, low: float, high: float) -> Sums:
        """Cut to values from `low` to `high`."""
        ends = np.clip([self.low, self.high], low, high)
        return replace(self, low=float(ends[0]), high=float(ends[1]))

    def times(self, factor: np.ndarray, addend: np.ndarray) -> Sums:
        """factor · values + addend, both (c,) or (1,).

        Raises:
            Unsupported: what was added or cut before.
        """
        if self.cut or self.residual is not None or not self.linear:
            raise Unsupported("changes values that were not rounded to codes by a QuantizeLinear")
        wide = np.broadcast_to(self.offset, np.broadcast_shapes(self.offset.shape, factor.shape))
        scale = (self.scale * factor).astype(np.float32)
        return replace(self, scale=scale, offset=wide, bias=self.bias * factor + addend)

    def rounding(self, step: np.float32, zero: int) -> Rounding:
        """To codes of steps of a size, around the code of zero."""
        scale = (self.scale / step).astype(np.float32)
        bias = (self.bias / np.float64(step)).astype(np.float32)
        ends = np.clip(np.rint(np.array([self.low, self.high]) / np.float64(step)) + zero, 0, 255)
        residual = None if self.residual is None else np.float32(self.residual / step)
        offset = self.offset.astype(np.int32) if self.offset.any() else None
        return Rounding(scale, bias, int(ends[0]), int(ends[1]), None, residual, offset, zero)


@dataclass(frozen=True, eq=False)
class Joined:
    """Codes that are concatenated along their channels."""

    parts: tuple[Codes, ...]
    shape: tuple[int, int, int]
    flat: bool = False


Value: TypeAlias = Constant | Pixels | Codes | Values | Sums | Joined


def codes_of(value: Value) -> Codes:
    """The codes that a node reads through a DequantizeLinear.

    Raises:
        Unsupported: there are none.
    """
    if isinstance(value, Values) and value.codes is not None:
        return replace(value.codes, shape=value.shape, flat=value.flat)
    if isinstance(value, Pixels):
        raise Unsupported("computes in fp32: its input is not quantized")
    if isinstance(value, Constant):
        raise Unsupported("reads a constant where a quantized tensor was expected")
    raise Unsupported("reads values that were not rounded to codes by a QuantizeLinear")


def dequantized(codes: Codes) -> Values:
    """What codes stand for."""
    values = (codes.table.astype(np.int32) - codes.zero).astype(np.float32) * codes.scale
    return Values(codes.tensor, values, codes.shape, codes.flat, codes)


def fixed(
    make: Callable[[Rounding, np.float32], Operation], inputs: tuple[int, ...], shape: tuple[int, int, int]
) -> Sums:
    """The sums of an operation that finds scale and bias of its rounding by itself."""
    one, none = np.ones(1, np.float32), np.zeros(1)
    return Sums(make, inputs, one, none.astype(np.int64), none, shape, linear=False)
