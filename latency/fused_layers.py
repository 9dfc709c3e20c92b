"""What a block takes on fused kernels in closed form, from the shapes of its layers: no file is made of it.

Layers stand for the steps that they usually become: an expansion, a depthwise convolution and a projection for one, as
does each other layer.  Of what else is computed there are numbers of elements alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt, sqrt

import numpy as np

from latency.blocks import TracedBlock
from latency.count import Layer as Counted
from latency.fused_roofline import FusedPrices, steps_s
from latency.kernels.contract import Rounding
from latency.kernels.lowered import Kind, Layer, Record, Shape
from latency.kernels.packing import LANES

_UNROUNDED = Rounding(np.zeros(1, np.float32), np.zeros(1, np.float32))
_BEFORE, _AFTER, _BETWEEN = 1, 2, 3  # numbers of tensors
_LEAST_S = 1e-8


def traced_s(block: TracedBlock, prices: FusedPrices) -> float:
    """The estimated seconds of a block for one image; positive.

    Its maps are as wide for their height all through.
    """
    shape = block.input_shape
    aspect = shape[1] / shape[2] if len(shape) == 3 else 1.0
    looked_up = block.counts.hswish_elements / LANES * prices.seconds["table"]
    summed = sum(layer.other_elements for layer in block.layers) / LANES * prices.seconds["pooled"]
    steps = sum(_step_s(step, aspect, prices) for step in _steps(block.layers))
    return max(looked_up + summed + steps, _LEAST_S)


def _steps(layers: Sequence[Counted]) -> Iterator[tuple[Counted, ...]]:
    """Layers that are run together: up to one before and one after a depthwise convolution."""
    run: list[Counted] = []
    for layer in (layer for layer in layers if layer.kind != "none"):
        if run and not _joined(run[-1], layer):
            yield tuple(run)
            run = []
        run.append(layer)
    if run:
        yield tuple(run)


def _joined(layer: Counted, following: Counted) -> bool:
    """Whether a layer follows another in one step."""
    meet = layer.channels[1] == following.channels[0] and layer.sizes[1] == following.sizes[0]
    return meet and {layer.kind, following.kind} == {"pointwise", "depthwise"}


def _step_s(step: tuple[Counted, ...], aspect: float, prices: FusedPrices) -> float:
    first, last = step[0], step[-1]
    shapes: dict[int, Shape] = {
        _BEFORE: (*_sides(first.sizes[0], aspect), first.channels[0]),
        _AFTER: (*_sides(last.sizes[1], aspect), last.channels[1]),
    }
    if first.kind == "linear":
        kind = Kind.LOGITS
    elif len(step) > 1 or first.kind == "depthwise":
        kind = Kind.BLOCK
    else:
        kind = Kind.POINTWISE if first.kind == "pointwise" else Kind.DENSE
    if kind != Kind.BLOCK:
        record = Record("layers", kind, _BEFORE, None, _AFTER, project=_layer(first))
        return steps_s([record], shapes, prices)[0]
    at = next(i for i, layer in enumerate(step) if layer.kind == "depthwise")
    depthwise = step[at]
    shapes[_BETWEEN] = (*_sides(depthwise.sizes[1], aspect), depthwise.channels[1])
    record = Record(
        "layers",
        kind,
        _BEFORE,
        None,
        _AFTER,
        _BETWEEN,
        expand=_layer(step[0]) if at else None,
        depthwise=_layer(depthwise),
        project=_layer(last) if at < len(step) - 1 else None,
    )
    return steps_s([record], shapes, prices)[0]


def _layer(counted: Counted) -> Layer:
    side = isqrt(counted.taps)
    kernel = (side, counted.taps // side)
    stride = max(1, round(sqrt(counted.sizes[0] / counted.sizes[1])))
    return Layer(counted.channels[1], _UNROUNDED, counted.channels[0], kernel, stride, (side // 2,) * 4)


def _sides(size: int, aspect: float) -> tuple[int, int]:
    """Height and width of a map of so many elements."""
    height = max(1, round(sqrt(size * aspect)))
    return height, max(1, round(size / height))
