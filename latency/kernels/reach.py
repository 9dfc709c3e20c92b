"""How large the values of a step can be before they become codes, whatever its input."""

from __future__ import annotations

from math import prod

import numpy as np

from latency.kernels.blocks import Block
from latency.kernels.contract import Add, AveragePool, Convolution, Multiply, Rounding, WindowAverage

_LARGEST_CODE = 255


def reach(operation: object, shape: tuple[int, int, int]) -> float:
    """The largest magnitude of values of a step that reads codes of a shape (h, w, c); 0 where it rounds nothing."""
    match operation:
        case Block():
            layers = (operation.expand, operation.depthwise, operation.project)
            return float(np.max([reach(layer, shape) for layer in layers if layer is not None]))
        case Convolution():
            sums = np.abs(operation.weight.astype(np.float64)).sum((1, 2, 3)) * _LARGEST_CODE
            return _reach(operation.rounding, sums)
        case AveragePool():
            return _reach(operation.rounding, np.float64(prod(shape[:2]) * _LARGEST_CODE))
        case Multiply():
            return _reach(operation.rounding, np.float64(_LARGEST_CODE**2))
        case Add():
            return _reach(operation.rounding, np.float64(_LARGEST_CODE)) + _LARGEST_CODE * abs(float(operation.scale_a))
        case WindowAverage():
            steps = _LARGEST_CODE * float(operation.scale) / operation.rounding.scale.astype(np.float64)
            return float(np.max(np.abs(steps) + np.abs(operation.rounding.bias)))
        case _:
            return 0.0


def _reach(rounding: Rounding, sums: np.ndarray | np.float64) -> float:
    offset = 0 if rounding.offset is None else np.abs(rounding.offset.astype(np.float64))
    residual = 0.0 if rounding.residual is None else abs(float(rounding.residual))
    scale, bias = (np.abs(values.astype(np.float64)) for values in (rounding.scale, rounding.bias))
    return float(np.max((sums + offset) * scale + bias)) + _LARGEST_CODE * residual
