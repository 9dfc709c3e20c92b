"""Which values of a tensor share a scale: all of them, those of a channel, or those of a group along an axis.

Groups are those of ONNX's blocked `QuantizeLinear` (opset 21): `size` neighbours along one axis share a scale, every
position on the other axes has its own, and where `size` does not divide the axis the last group is shorter.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """A tensor reshaped so that scales broadcast against it; shapes alone, so that it holds for any array library.

    Args:
        axis: the axis that is lengthened by `padding` zeros, which change no range.
        split: the shape after lengthening, with groups along an axis of their own.
        shared: the axes of `split` along which all values share a scale.
    """

    axis: int
    padding: int
    split: tuple[int, ...]
    shared: tuple[int, ...]

    @property
    def broadcast(self) -> tuple[int, ...]:
        """The shape of scales that broadcast against `split`."""
        return tuple(1 if i in self.shared else n for i, n in enumerate(self.split))


@dataclass(frozen=True)
class Granularity:
    """Per tensor (no axis), per channel (an axis) or per group (an axis and a size); axes may count from the end.

    Raises:
        ValueError: a size without an axis, or below 1.
    """

    axis: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and (self.axis is None or self.size < 1):
            raise ValueError(f"a group needs an axis and a size of at least 1, got axis {self.axis}, size {self.size}")

    def __str__(self) -> str:
        if self.axis is None:
            return "tensor"
        return f"channel:{self.axis}" if self.size is None else f"group:{self.axis}:{self.size}"

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of scales, as ONNX has it: (), (channels,), or `shape` with ceil(n / size) along the axis.

        Raises:
            ValueError: the tensor has no such axis.
        """
        if self.axis is None:
            return ()
        axis = self._axis_in(shape)
        if self.size is None:
            return (shape[axis],)
        return (*shape[:axis], math.ceil(shape[axis] / self.size), *shape[axis + 1 :])

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """How a tensor of `shape` is reshaped so that scales broadcast.

        Raises:
            ValueError: the tensor has no such axis.
        """
        everywhere = tuple(range(len(shape)))
        if self.axis is None:
            return Layout(0, 0, shape, everywhere)
        axis = self._axis_in(shape)
        if self.size is None:
            return Layout(axis, 0, shape, tuple(i for i in everywhere if i != axis))
        groups = math.ceil(shape[axis] / self.size)
        split = (*shape[:axis], groups, self.size, *shape[axis + 1 :])
        return Layout(axis, groups * self.size - shape[axis], split, (axis + 1,))

    def _axis_in(self, shape: tuple[int, ...]) -> int:
        axis = self.axis or 0
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"granularity {str(self)!r} needs axis {axis}, got a tensor of shape {shape}")
        return axis % len(shape)


PER_TENSOR = Granularity()


def per_channel(axis: int = 0) -> Granularity:
    """A scale for each index along `axis`."""
    return Granularity(axis)


def per_group(axis: int, size: int) -> Granularity:
    """A scale for each `size` neighbours along `axis`.

    Raises:
        ValueError: a size below 1.
    """
    return Granularity(axis, size)


def parse_granularity(name: str) -> Granularity:
    """The granularity written `tensor`, `channel:AXIS` or `group:AXIS:SIZE`.

    Raises:
        ValueError: anything else.
    """
    if name == "tensor":
        return PER_TENSOR
    if found := re.fullmatch(r"channel:(-?\d+)", name):
        return per_channel(int(found[1]))
    if found := re.fullmatch(r"group:(-?\d+):(\d+)", name):
        return per_group(int(found[1]), int(found[2]))
    raise ValueError(f"unknown granularity {name!r}: write tensor, channel:AXIS or group:AXIS:SIZE (group:1:32)")


def split(values: np.ndarray, granularity: Granularity) -> tuple[np.ndarray, Layout]:
    """`values` reshaped as `Granularity.layout` says, without a copy where nothing is lengthened."""
    layout = granularity.layout(values.shape)
    if layout.padding:
        ends = [(0, layout.padding if axis == layout.axis else 0) for axis in range(values.ndim)]
        values = np.pad(values, ends)
    return values.reshape(layout.split), layout


def join(blocks: np.ndarray, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `split`: an array of `shape`."""
    if not layout.padding:
        return blocks.reshape(shape)
    lengthened = blocks.reshape([n + layout.padding * (i == layout.axis) for i, n in enumerate(shape)])
    return lengthened[tuple(slice(n) for n in shape)]


def extremes(values: np.ndarray, granularity: Granularity) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest value of each part that shares a scale, widened to hold 0; of shape `scale_shape`."""
    blocks, layout = split(values, granularity)
    shape = granularity.scale_shape(values.shape)
    low, high = (end(layout.shared, initial=0) for end in (blocks.min, blocks.max))
    return np.reshape(low, shape), np.reshape(high, shape)
