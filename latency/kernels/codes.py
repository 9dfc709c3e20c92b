"""Programs of a few layers from codes to codes, for those who run kernels alone.

A program begins with float32 images and ends with float32 outputs: with a scale of 1 and a zero point of 0 at both
ends, these are the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from latency.kernels.contract import (
    AveragePool,
    Convolution,
    Dequantize,
    InvertedResidual,
    Program,
    Quantize,
    Step,
    Table,
    WindowAverage,
    WindowMaximum,
)
from latency.kernels.lowered import Shape, lowered

Layer: TypeAlias = Convolution | InvertedResidual | AveragePool | WindowMaximum | WindowAverage | Table


def codes_program(layers: Sequence[Layer], shape: Shape) -> tuple[Program, Shape]:
    """The program of layers, each of which reads what the one before makes, and the shape (h, w, c) of the last codes.

    Args:
        shape: (h, w, c) of the first codes; the program takes them as images (c, h, w).

    Raises:
        ValueError: no layer, another operation, or layers that do not fit the shape or one another.
    """
    for layer in layers:
        if not isinstance(layer, Layer):
            raise ValueError(f"a {type(layer).__name__} is no layer from codes to codes; write a whole Program with it")
    if not layers:
        raise ValueError("no layers were given; give at least one")
    one, last = np.float32(1), len(layers) + 1
    steps = [Step("codes", Quantize(one, 0), (0,), 1)]
    steps += [Step(f"layer {number}", layer, (number,), number + 1) for number, layer in enumerate(layers, 1)]
    steps.append(Step("values", Dequantize(one, 0), (last,), last + 1))
    height, width, channels = shape
    program = Program((channels, height, width), steps)
    return program, lowered(program)[1][last]
