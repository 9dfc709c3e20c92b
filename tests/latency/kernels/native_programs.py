"""Random operations and programs of the contract, with the sizes that a test chooses."""

import numpy as np

from latency.kernels.contract import (
    Add,
    AveragePool,
    Concatenate,
    Convolution,
    Dequantize,
    InvertedResidual,
    Logits,
    Multiply,
    Program,
    Quantize,
    Resize,
    Rounding,
    Step,
    Table,
    WindowAverage,
    WindowMaximum,
)


def float32(value):
    return np.float32(value)


def some_weight(rng, *shape):
    return rng.integers(-128, 128, shape).astype(np.int8)


def some_table(rng):
    return rng.integers(0, 256, 256).astype(np.uint8)


def some_rounding(rng, channels, spread, residual=False, table=None):
    """Of sums that are as large as `spread`, for codes that are mostly neither the least nor the largest."""
    low, high = sorted(int(code) for code in rng.choice([0, 0, 0, 255, 255, 17, 201], 2, replace=False))
    if low == high:
        low, high = 0, 255
    return Rounding(
        (rng.uniform(0.3, 1, channels) * 100 / spread).astype(np.float32),
        rng.uniform(-20, 200, channels).astype(np.float32),
        low,
        high,
        some_table(rng) if (rng.random() < 0.3 if table is None else table) else None,
        float32(rng.uniform(-1, 1)) if residual else None,
        rng.integers(-1000, 1000, channels).astype(np.int32) if rng.random() < 0.5 else None,
        int(rng.integers(0, 256)) if rng.random() < 0.5 else 0,
    )


def some_convolution(rng, inputs, outputs, kernel=(1, 1), stride=1, padding=(0, 0, 0, 0), residual=False):
    spread = 128 * 73 * (inputs * kernel[0] * kernel[1]) ** 0.5
    rounding = some_rounding(rng, outputs, spread, residual)
    weight = some_weight(rng, outputs, inputs, *kernel)
    return Convolution(weight, rounding, stride, padding, int(rng.integers(0, 256)))


def some_depthwise(rng, channels, kernel, stride, padding, residual=False):
    rounding = some_rounding(rng, channels, 128 * 73 * (kernel[0] * kernel[1]) ** 0.5, residual)
    weight = some_weight(rng, channels, 1, *kernel)
    return Convolution(weight, rounding, stride, padding, int(rng.integers(0, 256)), depthwise=True)


def some_block(rng, inputs, wide, outputs, kernel, stride, padding, residual=False, expands=True):
    """An inverted residual; without an expansion it is as wide as its input."""
    wide = wide if expands else inputs
    return InvertedResidual(
        some_convolution(rng, inputs, wide) if expands else None,
        some_depthwise(rng, wide, (kernel, kernel), stride, padding),
        some_convolution(rng, wide, outputs, residual=residual),
    )


def program_of(shape, *operations):
    """One operation after another between codes of an image that are its values, and values that are its codes."""
    steps = [Step("codes", Quantize(float32(1), 0), (0,), 1)]
    for number, operation in enumerate(operations, 1):
        inputs = operation[1] if isinstance(operation, tuple) else (number,)
        made = operation[0] if isinstance(operation, tuple) else operation
        steps.append(Step(f"step {number}", made, inputs, number + 1))
    steps.append(Step("values", Dequantize(float32(1), 0), (len(steps),), len(steps) + 1))
    return Program(shape, steps)


def some_codes(rng, batch, shape):
    """Images (b, c, h, w) whose values are codes."""
    return rng.integers(0, 256, (batch, *shape)).astype(np.float32)


def some_network(rng, size=19, classes=37):
    """A small network with all operations, from a resized image to logits."""
    gate = some_rounding(rng, 20, 255 * 255, table=False)
    return Program(
        (3, 23, 26),
        [
            Step("resize", Resize(size, size + 1), (0,), 1),
            Step("codes", Quantize(float32(0.02), 128), (1,), 2),
            Step("stem", some_convolution(rng, 3, 17, (3, 3), 2, (0, 0, 1, 1)), (2,), 3),
            Step("block", some_block(rng, 17, 50, 17, 3, 1, (1, 1, 1, 1), residual=True), (3,), 4),
            Step("down", some_block(rng, 17, 35, 20, 5, 2, (2, 2, 2, 2)), (4,), 5),
            Step("wide", some_convolution(rng, 20, 20), (5,), 6),
            Step("deep", some_depthwise(rng, 20, (7, 7), 1, (3, 3, 3, 3)), (6,), 7),
            Step("pool", AveragePool(some_rounding(rng, 20, 255 * 25)), (7,), 8),
            Step("squeeze", some_convolution(rng, 20, 5), (8,), 9),
            Step("excite", some_convolution(rng, 5, 20), (9,), 10),
            Step("gate", Multiply(3, 7, gate), (7, 10), 11),
            Step("add", some_convolution(rng, 20, 20, residual=True), (11, 5), 12),
            Step("sum", Add(float32(0.5), Rounding(np.float32([0.25]), np.float32([3]), zero=5)), (12, 5), 13),
            Step("table", Table(some_table(rng)), (13,), 14),
            Step("largest", WindowMaximum((3, 2), 1, (1, 0, 1, 1)), (14,), 15),
            Step("mean", WindowAverage((3, 3), float32(0.1), _mean(0.11, 4), 1, (1, 1, 1, 1), 9), (14,), 16),
            Step("join", Concatenate(), (16, 13, 14), 17),
            Step("odd", some_depthwise(rng, 60, (2, 4), 1, (1, 2, 0, 1)), (17,), 18),
            Step("end", AveragePool(some_rounding(rng, 60, 255 * 25)), (18,), 19),
            Step("logits", _some_logits(rng, 60, classes), (19,), 20),
        ],
    )


def _mean(scale, zero):
    return Rounding(np.float32([scale]), np.float32([zero]))


def _some_logits(rng, inputs, classes):
    scale, bias = rng.uniform(-1, 1, (2, classes)).astype(np.float32)
    return Logits(some_weight(rng, classes, inputs), scale, bias)
