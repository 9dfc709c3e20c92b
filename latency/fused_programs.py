"""Tiny programs that differ in a few inner loops, from whose times prices follow; and programs of a block repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    Operation,
    Program,
    Quantize,
    Resize,
    Rounding,
    Step,
    Table,
    WindowAverage,
    WindowMaximum,
)

_ONE = np.ones(1, np.float32)
_QUANTIZE = Quantize(np.float32(0.02), 128)
_MEAN = AveragePool(Rounding(_ONE / 1000, 0 * _ONE))
_TABLE = np.arange(256, dtype=np.uint8)[::-1].copy()
_BATCH_OF_LINKS = 3  # links with weights of their own, after which they repeat

# Height, inputs, outputs and kernel size of convolutions; outputs of half a vector, and inputs that are not a multiple
# of four, are among them.
_POINTWISE = (
    (1, 16, 16),
    (1, 64, 48),
    (5, 16, 48),
    (12, 8, 16),
    (12, 16, 48),
    (12, 64, 48),
    (12, 240, 48),
    (12, 128, 16),
)
_POINTWISE_ODD = ((12, 64, 24), (12, 48, 32), (12, 15, 48), (12, 31, 17), (28, 24, 144))
_DENSE = ((16, 3, 32, 3), (14, 16, 16, 3), (14, 32, 48, 3))
# Height, inputs, expanded channels, outputs, kernel size and stride of blocks.
_BLOCKS = (
    (4, 32, 96, 32, 3, 1),
    (7, 64, 384, 64, 3, 1),
    (7, 64, 384, 64, 7, 1),
    (8, 16, 16, 16, 3, 1),
    (9, 48, 144, 48, 5, 2),
    (13, 20, 50, 30, 5, 1),
    (14, 24, 24, 48, 7, 2),
    (14, 32, 96, 32, 3, 2),
    (14, 40, 40, 40, 5, 1),
    (14, 48, 192, 48, 5, 1),
    (17, 11, 33, 20, 3, 1),
    (28, 14, 42, 14, 3, 1),
    (28, 8, 48, 16, 3, 1),
    (28, 16, 64, 24, 7, 1),
    (29, 24, 72, 24, 3, 2),
    (30, 32, 32, 16, 3, 1),
    (32, 16, 96, 16, 5, 2),
    (28, 96, 384, 96, 3, 1),
    (40, 64, 256, 64, 5, 1),
    (56, 24, 144, 24, 3, 1),
    (60, 100, 160, 96, 7, 2),
)
_LARGE_BLOCKS = ((96, 96, 240, 16, 3, 1), (112, 64, 160, 32, 3, 1))  # that leave the second cache


@dataclass(frozen=True, eq=False)
class Pair:
    """Two programs, of which the long one does what the short one does and more."""

    short: Program
    long: Program


def repeated(operations: Sequence[Operation], links: int, image: tuple[int, int, int], reads: int = 1) -> Pair:
    """Programs with one and with 1 + `links` of the operations, in turn, each of which reads an image of codes.

    Args:
        image: (c, h, w).
        reads: how many tensors an operation reads; the first is the image, and so are all others.
    """

    def program(count: int) -> Program:
        steps = [Step("quantize", _QUANTIZE, (0,), 1)]
        for i in range(count):
            steps.append(Step(f"link {i}", operations[i % len(operations)], (1,) * reads, i + 2))
        return _ended(image, steps)

    return Pair(program(1), program(1 + links))


def _ended(image: tuple[int, int, int], steps: Sequence[Step]) -> Program:
    """A program of these steps, the outputs of which are the means of its codes."""
    free = max(step.output for step in steps) + 1
    ends = [Step("mean", _MEAN, (1,), free), Step("end", Dequantize(np.float32(1), 0), (free,), free + 1)]
    return Program(image, [*steps, *ends])


def pairs(seed: int = 0) -> Iterator[Pair]:
    """All pairs that prices are found from."""
    make = Layers(np.random.default_rng(seed))
    for height, inputs, outputs in _POINTWISE:
        yield repeated([make.convolution(inputs, outputs)], 32 if height > 5 else 128, (inputs, height, height))
    yield repeated([make.convolution(64, 48, table=_TABLE)], 32, (64, 12, 12))
    for height, inputs, outputs, kernel in _DENSE:
        yield repeated([make.convolution(inputs, outputs, kernel)], 16, (inputs, height, height))
    for height, inputs, expanded, outputs, kernel, stride in (*_BLOCKS, *_LARGE_BLOCKS):
        links = _links(height, inputs, expanded, outputs)
        blocks = [make.block(inputs, expanded, outputs, kernel, stride) for _ in range(min(links, _BATCH_OF_LINKS))]
        yield repeated(blocks, links, (inputs, height, height))
    yield repeated([make.convolution(48, 48, 3, stride=3, depthwise=True)], 16, (48, 14, 14))
    yield repeated([make.convolution(32, 32, 9, depthwise=True)], 4, (32, 10, 10))
    rounding, values = Rounding(_ONE, _ONE), WindowAverage((3, 3), np.float32(1), Rounding(_ONE, 0 * _ONE), 1, (1,) * 4)
    yield repeated([_MEAN], 64, (96, 14, 14))
    yield repeated([WindowMaximum((3, 3), 1, (1,) * 4)], 16, (48, 14, 14))
    yield repeated([values], 16, (48, 14, 14))
    yield repeated([Add(np.float32(1), rounding)], 32, (48, 14, 14), reads=2)
    yield repeated([Table(_TABLE)], 64, (48, 14, 14))
    yield repeated([Concatenate()], 32, (48, 14, 14), reads=2)
    yield _multiplied(rounding)
    for channels, resized in ((3, False), (16, False), (6, False), (3, True)):
        yield _quantized((channels, 32, 32), resized)
    yield _dequantized()


def _links(height: int, inputs: int, expanded: int, outputs: int) -> int:
    """More of small blocks, so that the clock sees them."""
    return max(1, min(24, 3_000_000 // (height * height * expanded * (inputs + outputs))))


def _multiplied(rounding: Rounding) -> Pair:
    """Products of an image with its means."""

    def program(count: int) -> Program:
        steps = [Step("quantize", _QUANTIZE, (0,), 1), Step("means", _MEAN, (1,), 2)]
        steps += [Step(f"link {i}", Multiply(0, 0, rounding), (1, 2), i + 3) for i in range(count)]
        return _ended((48, 14, 14), steps)

    return Pair(program(1), program(33))


def _quantized(image: tuple[int, int, int], resized: bool) -> Pair:
    def program(count: int) -> Program:
        steps = []
        for i in range(count):
            if resized:
                steps.append(Step(f"resize {i}", Resize(40, 40), (0,), 100 + i))
            steps.append(Step(f"link {i}", _QUANTIZE, (100 + i if resized else 0,), 1 + i))
        return _ended(image, steps)

    return Pair(program(1), program(33))


def _dequantized() -> Pair:
    image = (64, 16, 16)
    start, end = Step("quantize", _QUANTIZE, (0,), 1), Dequantize(np.float32(1), 0)
    return Pair(
        _ended(image, [start]), Program(image, [start, Step("mean", _MEAN, (1,), 2), Step("end", end, (1,), 3)])
    )


class Layers:
    """Layers with random weights and scales of a plausible size; speed does not depend on them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def convolution(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        linear: bool = False,
        residual: bool = False,
        table: np.ndarray | None = None,
    ) -> Convolution:
        """A convolution; `linear`: its codes have a zero point in the middle, as those of a projection."""
        depth = 1 if depthwise else inputs
        weight = self._rng.integers(-127, 128, (outputs, depth, kernel, kernel)).astype(np.int8)
        scale = np.full(outputs, 1 / (20 * kernel * depth**0.5), np.float32)
        bias = self._rng.standard_normal(outputs).astype(np.float32)
        zero, added = 128 if linear else 0, np.float32(0.5) if residual else None
        rounding = Rounding(scale, bias, table=table, residual=added, offset=np.zeros(outputs, np.int32), zero=zero)
        return Convolution(weight, rounding, stride, (kernel // 2,) * 4, 0 if depthwise else 128, depthwise)

    def block(
        self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, residual: bool = False
    ) -> InvertedResidual:
        """An inverted residual, without expansion where `expanded` equals `inputs`."""
        return InvertedResidual(
            self.convolution(inputs, expanded) if expanded != inputs else None,
            self.convolution(expanded, expanded, kernel, stride, depthwise=True),
            self.convolution(expanded, outputs, linear=True, residual=residual),
        )

    def logits(self, inputs: int, outputs: int) -> Logits:
        """A linear layer."""
        weight = self._rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
        return Logits(weight, np.full(outputs, 1e-3, np.float32), np.zeros(outputs, np.float32))
