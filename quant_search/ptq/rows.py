"""One layer as a product of matrices: sampled rows of its input, and the outputs that belong to them.

A convolution multiplies, at every position, the window that it sees; a few thousand windows drawn from all images tell
what rounding its weight does, at a fraction of the work of whole maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quant_search.layers import Layer


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs and outputs of a layer at sampled positions.

    Args:
        x: (rows, groups, inputs of a group x kernel size) float32.
        y: (rows, out channels) float32.
    """

    x: np.ndarray
    y: np.ndarray


def sampled(
    layer: Layer, inputs: Iterable[np.ndarray], outputs: Iterable[np.ndarray], each: int, rng: np.random.Generator
) -> Rows:
    """Rows at `each` positions of every image, drawn anew for each.

    Args:
        inputs, outputs: batches of images, the same in both: maps (b, c, ...) of a Conv, (b, ..., c) of a product.
    """
    parts = [_rows(layer, x, y, each, rng) for x, y in zip(inputs, outputs, strict=True)]
    return Rows(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))


def _rows(
    layer: Layer, x: np.ndarray, y: np.ndarray, each: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if layer.op_type != "Conv":
        x, y = (np.moveaxis(part.reshape(len(part), -1, part.shape[-1]), -1, 1) for part in (x, y))
    sizes = y.shape[2:]
    count = min(each, math.prod(sizes))
    at = np.stack([rng.choice(math.prod(sizes), count, replace=False) for _ in range(len(x))])
    places = np.unravel_index(at.reshape(-1), sizes)
    image = np.repeat(np.arange(len(x)), count)
    windows = _windows(layer, x) if layer.op_type == "Conv" else x
    found = [np.moveaxis(part, 1, 1 + len(places))[(image, *places)] for part in (windows, y)]
    return found[0].reshape(len(image), layer.groups, -1), found[1]


def _windows(layer: Layer, x: np.ndarray) -> np.ndarray:
    """A view (b, c, *out sizes, *kernel) of what the layer sees of maps `x` (b, c, ...) at every position."""
    axes = len(layer.strides)
    begins, ends = layer.pads[:axes], layer.pads[axes:]
    x = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    kernel = layer.shape[2:]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, layer.dilations, strict=True)]
    sizes = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, layer.strides, strict=True)]
    steps = x.strides[2:]
    moves = [step * s for step, s in zip(steps, layer.strides, strict=True)]
    taps = [step * d for step, d in zip(steps, layer.dilations, strict=True)]
    return np.lib.stride_tricks.as_strided(
        x, (*x.shape[:2], *sizes, *kernel), (*x.strides[:2], *moves, *taps), writeable=False
    )


def as_matrix(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """A weight (groups, out / groups, inputs of a group x kernel size), with which `Rows.x` is multiplied."""
    return np.moveaxis(weight, layer.out_axis, 0).reshape(layer.groups, layer.out_channels // layer.groups, -1)


def as_weight(layer: Layer, matrix: np.ndarray) -> np.ndarray:
    """The inverse of `as_matrix`."""
    rest = [n for axis, n in enumerate(layer.shape) if axis != layer.out_axis]
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(layer.out_channels, *rest), 0, layer.out_axis))
