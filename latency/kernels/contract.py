"""The numeric contract of quantized networks, and its reference in NumPy.

Activations are codes: uint8, (b, h, w, c), with a scale and a zero point each.  A layer adds up products of codes and
int8 weights in int32 and makes codes of the sums:

    y = clip(rne(fma(float32(sum + offset_c), scale_c, bias_c)) + zero, low, high)

`scale_c` and `bias_c` are float32 for each channel c, `offset_c` int32.  The zero points of inputs and of the output,
and the layer's own bias, lie in `bias_c`; or in `offset_c` and `zero`, with which codes are those of ONNX Runtime.
`fma` rounds once, `rne` to the nearest integer, halves to the even one.  ReLU and ReLU6 are `low` and `high`, every
other activation a table of 256 codes behind.  A residual r (codes) adds `fma(r, scale_r, ·)` before `rne`; its zero
point lies in `bias_c`.  Sums, with their offset, are below 2^31 in magnitude; they may pass 2^24, so their conversion
to float32 rounds (to nearest even), and does so before the product.

Padding is with the code of zero, which is the zero point of the input.  Native code equals this reference bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np


def fma(a: np.ndarray | np.float32, b: np.ndarray | np.float32, c: np.ndarray) -> np.ndarray:
    """a · b + c of float32 arrays, rounded once to float32.

    Products of float32 are exact in float64; their sum is rounded to odd there, from which rounding to float32 is
    right (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    product, addend = np.float64(a) * np.float64(b), np.float64(c)
    total = np.asarray(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)  # Knuth's two-sum: exact
    bits = total.view(np.int64)
    away = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where((error != 0) & (bits & 1 == 0), bits + away, bits)
    return odd.view(np.float64).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Rounding:
    """How sums become codes.

    Args:
        scale, bias: float32 (c,), or (1,) for all channels.
        low, high: the least and the largest code.
        table: uint8 (256,), the code that stands for each of these; none for the codes themselves.
        residual: the scale of the codes that are added before rounding; None where nothing is.
        offset: int32 (c,), or (1,) for all channels, added to sums; none for nothing.
        zero: added to what was rounded, before it is cut to `low` … `high`.
    """

    scale: np.ndarray
    bias: np.ndarray
    low: int = 0
    high: int = 255
    table: np.ndarray | None = None
    residual: np.float32 | None = None
    offset: np.ndarray | None = None
    zero: int = 0

    def codes(self, sums: np.ndarray, added: np.ndarray | None = None) -> np.ndarray:
        """Codes uint8 (..., c) of sums int32 (..., c) and, for a residual, of the codes `added` (..., c)."""
        whole = sums if self.offset is None else sums + self.offset
        value = fma(whole.astype(np.float32), self.scale, self.bias)
        if self.residual is not None and added is not None:
            value = fma(added.astype(np.float32), self.residual, value)
        return self.cut(value)

    def cut(self, value: np.ndarray) -> np.ndarray:
        """Codes uint8 of values in steps of the output."""
        found = np.clip(np.rint(value) + np.float32(self.zero), self.low, self.high).astype(np.uint8)
        return found if self.table is None else self.table[found]


@dataclass(frozen=True, eq=False)
class Quantize:
    """float32 images (b, c, h, w) to codes (b, h, w, c): clip(rne(x / scale) + zero, 0, 255)."""

    scale: np.float32
    zero: int

    def run(self, x: np.ndarray) -> np.ndarray:
        """Codes uint8 (b, h, w, c) of images (b, c, h, w)."""
        steps = np.rint(x.astype(np.float32) / self.scale) + np.float32(self.zero)
        return np.ascontiguousarray(np.clip(steps, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


@dataclass(frozen=True, eq=False)
class Resize:
    """float32 images (b, c, h, w) to (b, c, height, width), linearly between the centres of pixels.

    Each output is x00 · (w · t) + x01 · (e · t) + x10 · (w · d) + x11 · (e · d), from left to right, each operation
    rounded to float32: 0 and 1 stand for the pixel above or left and that below or right, w and e for the weights of
    `neighbours` along the width, t and d for those along the height.  So ONNX Runtime computes.
    """

    height: int
    width: int

    def run(self, x: np.ndarray) -> np.ndarray:
        """Images (b, c, height, width)."""
        x = x.astype(np.float32)
        top, bottom, t, d = neighbours(x.shape[2], self.height)
        left, right, w, e = neighbours(x.shape[3], self.width)
        t, d = t[:, None], d[:, None]
        above, below = x[:, :, top], x[:, :, bottom]
        total = above[..., left] * (w * t) + above[..., right] * (e * t)
        return np.asarray(total + below[..., left] * (w * d) + below[..., right] * (e * d))


def neighbours(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pixels before and behind each of `new` ones among `size`, (new,), and the float32 weights of both.

    Pixel i lies at (i + 1/2) / (new / size) - 1/2, cut to 0 … size - 1, each operation rounded to float32.
    """
    half, last = np.float32(0.5), np.float32(size - 1)
    place = (np.arange(new, dtype=np.float32) + half) / (np.float32(new) / np.float32(size)) - half
    place = np.clip(place, np.float32(0), last)
    before = place.astype(np.int64)
    behind = np.minimum(before + 1, size - 1)
    of_behind = np.where(before == behind, half, place - before.astype(np.float32))
    of_before = np.where(before == behind, half, behind.astype(np.float32) - place)
    return before, behind, of_before, of_behind


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution, of all channels by all, or depthwise.

    Args:
        weight: int8 (out, in, k_h, k_w), or (c, 1, k_h, k_w) of a depthwise one.
        padding: top, left, bottom, right.
        zero: the code of zero in the input.
    """

    weight: np.ndarray
    rounding: Rounding
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    zero: int = 0
    depthwise: bool = False

    def run(self, x: np.ndarray, added: np.ndarray | None = None) -> np.ndarray:
        """Codes (b, h', w', out) of codes (b, h, w, in)."""
        return self.rounding.codes(self.sums(x), added)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """int32 (b, h', w', out)."""
        top, left, bottom, right = self.padding
        wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=self.zero).astype(np.int32)
        height, width = self.weight.shape[2:]
        rows, columns = ((n - k) // self.stride + 1 for n, k in zip(wide.shape[1:3], (height, width), strict=True))
        total = np.zeros((len(x), rows, columns, len(self.weight)), np.int32)
        for i in range(height):
            for j in range(width):
                taken = wide[:, i : i + self.stride * (rows - 1) + 1, j : j + self.stride * (columns - 1) + 1]
                tap = taken[:, :: self.stride, :: self.stride]
                weight = self.weight[:, :, i, j].astype(np.int32)
                total += tap * weight[:, 0] if self.depthwise else tap @ weight.T
        return total


@dataclass(frozen=True, eq=False)
class InvertedResidual:
    """Expansion (1x1), depthwise and projection (1x1) at once; its input is added where the projection has a residual.

    Args:
        expand: None where the depthwise convolution reads the input.
    """

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution

    def run(self, x: np.ndarray) -> np.ndarray:
        """Codes (b, h', w', out) of codes (b, h, w, in)."""
        wide = x if self.expand is None else self.expand.run(x)
        added = x if self.project.rounding.residual is not None else None
        return self.project.run(self.depthwise.run(wide), added)


@dataclass(frozen=True, eq=False)
class AveragePool:
    """The mean over all pixels: sums (b, 1, 1, c) of codes, rounded; 1 / (h · w) lies in the scale."""

    rounding: Rounding

    def run(self, x: np.ndarray) -> np.ndarray:
        """Codes (b, 1, 1, c) of codes (b, h, w, c)."""
        return self.rounding.codes(x.astype(np.int32).sum((1, 2), keepdims=True, dtype=np.int32))


def _windows(
    x: np.ndarray, size: tuple[int, int], stride: int, padding: tuple[int, int, int, int], pad: int
) -> np.ndarray:
    """The windows (b, h', w', c, k_h, k_w) of codes or values (b, h, w, c), padded."""
    top, left, bottom, right = padding
    wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad)
    return np.lib.stride_tricks.sliding_window_view(wide, size, (1, 2))[:, ::stride, ::stride]


@dataclass(frozen=True, eq=False)
class WindowMaximum:
    """The largest code of each window; every window holds a pixel.

    Args:
        size: height and width of windows.
        padding: top, left, bottom, right.
    """

    size: tuple[int, int]
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Codes (b, h', w', c) of codes (b, h, w, c)."""
        return np.asarray(_windows(x, self.size, self.stride, self.padding, 0).max((-2, -1)))


@dataclass(frozen=True, eq=False)
class WindowAverage:
    """The mean of each window, in float32, for the order of the sum decides where two codes are as near:

        clip(rne(sum of (code - zero) · scale, row by row, / pixels / rounding.scale + rounding.bias), low, high)

    Each operation rounds to float32.

    Args:
        size, padding: as of `WindowMaximum`.
        scale: of the input's codes.
        rounding: its scale is that of the output's codes, its bias their zero point, both (1,); no offset.
        zero: the code of zero in the input.
        counted: whether pixels of the padding count as such.
    """

    size: tuple[int, int]
    scale: np.float32
    rounding: Rounding
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    zero: int = 0
    counted: bool = False

    def run(self, x: np.ndarray) -> np.ndarray:
        """Codes (b, h', w', c) of codes (b, h, w, c)."""
        inside = np.ones((1, *x.shape[1:3], 1), np.float32)
        pixels = _windows(inside, self.size, self.stride, self.padding, int(self.counted)).sum((-2, -1))
        values = (x.astype(np.int32) - self.zero).astype(np.float32) * self.scale
        taken = _windows(values, self.size, self.stride, self.padding, 0)
        total = np.zeros(taken.shape[:-2], np.float32)
        for i in range(self.size[0]):
            for j in range(self.size[1]):
                total += taken[..., i, j]
        return self.rounding.cut(total / pixels / self.rounding.scale + self.rounding.bias)


@dataclass(frozen=True, eq=False)
class Concatenate:
    """Codes of the same scale and zero point, (b, h, w, c) each, one behind the other in their channels."""

    def run(self, *x: np.ndarray) -> np.ndarray:
        """Codes (b, h, w, sum of c)."""
        return np.concatenate(x, -1)


@dataclass(frozen=True, eq=False)
class Add:
    """The sum of what codes a and b (b, h, w, c) stand for: clip(rne(fma(a, scale_a, fma(b, scale_b, bias)))).

    Args:
        rounding: its scale is scale_b, (1,) as its bias; no offset, and zero points lie in the bias.
    """

    scale_a: np.float32
    rounding: Rounding

    def run(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Codes (b, h, w, c) of codes of the same shape."""
        value = fma(b.astype(np.float32), self.rounding.scale, self.rounding.bias)
        return self.rounding.cut(fma(a.astype(np.float32), self.scale_a, value))


@dataclass(frozen=True, eq=False)
class Multiply:
    """Codes a (b, h, w, c) times codes b (b, 1, 1, c), by products of (a - zero_a) and (b - zero_b):

        clip(rne(product · scale + bias), low, high)

    Here, as in ONNX Runtime, the product with the scale rounds to float32 before the bias is added: no `fma`.

    Args:
        rounding: scale and bias are (1,); no offset, and the zero point lies in the bias.
    """

    zero_a: int
    zero_b: int
    rounding: Rounding

    def run(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Codes (b, h, w, c)."""
        product = (a.astype(np.int32) - self.zero_a) * (b.astype(np.int32) - self.zero_b)
        return self.rounding.cut(product.astype(np.float32) * self.rounding.scale + self.rounding.bias)


@dataclass(frozen=True, eq=False)
class Table:
    """Each code (b, h, w, c) through a table uint8 (256,)."""

    table: np.ndarray

    def run(self, x: np.ndarray) -> np.ndarray:
        """Codes (b, h, w, c)."""
        return np.asarray(self.table[x])


@dataclass(frozen=True, eq=False)
class Logits:
    """A linear layer to float32 (b, out): fma(float32(sum), scale, bias) of codes (b, h, w, c).

    Args:
        weight: int8 (out, h · w · c); pixels are mostly one.
        scale, bias: float32 (out,).
    """

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    def run(self, x: np.ndarray) -> np.ndarray:
        """float32 (b, out)."""
        sums = x.reshape(len(x), -1).astype(np.int32) @ self.weight.T.astype(np.int32)
        return fma(sums.astype(np.float32), self.scale, self.bias)


@dataclass(frozen=True, eq=False)
class Dequantize:
    """Codes (b, 1, 1, c) to float32 (b, c): (code - zero) · scale."""

    scale: np.float32
    zero: int

    def run(self, x: np.ndarray) -> np.ndarray:
        """float32 (b, c)."""
        steps = x.reshape(len(x), -1).astype(np.int32) - self.zero
        return steps.astype(np.float32) * self.scale


Operation: TypeAlias = (
    Resize
    | Quantize
    | Convolution
    | InvertedResidual
    | AveragePool
    | WindowMaximum
    | WindowAverage
    | Concatenate
    | Add
    | Multiply
    | Table
    | Logits
    | Dequantize
)


@dataclass(frozen=True, eq=False)
class Step:
    """An operation of a program.

    Args:
        inputs: numbers of tensors, of which 0 is the network's input.
        output: the number of what it makes.
    """

    name: str
    operation: Operation
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True, eq=False)
class Program:
    """A quantized network as steps in their order; the output of the last is that of the network.

    Args:
        input_shape: of one image, (c, h, w).
    """

    input_shape: tuple[int, int, int]
    steps: Sequence[Step]
    shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # of tensors, without the batch

    def run(self, x: np.ndarray) -> np.ndarray:
        """float32 (b, classes) of images (b, c, h, w) float32, by the reference."""
        made: dict[int, np.ndarray] = {0: x}
        for step in self.steps:
            made[step.output] = step.operation.run(*(made[i] for i in step.inputs))
        return made[self.steps[-1].output]
