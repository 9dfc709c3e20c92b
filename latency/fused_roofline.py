"""What programs of fused kernels take, in closed form: how often each inner loop runs, times its price.

    t = sum over steps, sum over terms of [occurrences of the term × seconds of one]

This estimates: it is on either side of what is measured.  The floor counts needed MACs alone, at the best rate that dot
products were seen to reach, and no measurement is below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from latency.fused_work import TERMS, TILES, work_of
from latency.kernels.contract import Program, Rounding
from latency.kernels.lowered import Kind, Layer, Record, Shape, lowered
from latency.kernels.packing import INPUTS, LANES

MACS_OF_DOT = LANES * INPUTS
_UNROUNDED = Rounding(np.zeros(1, np.float32), np.zeros(1, np.float32))


@dataclass(frozen=True)
class FusedPrices:
    """What native code's inner loops take on a processor, in one thread.

    Args:
        instruction_set: of `fused_work.TILES`.
        seconds: of one occurrence of each of `fused_work.TERMS`.
        least_dot_s: of a dot product of 16 channels and four inputs, at best.
        call_s: what a call costs besides its steps.
        cache_bytes: of the second cache; 0 where that is not known.

    Raises:
        ValueError: an instruction set that there are no kernels for, terms that lack a price, or what is no time.
    """

    instruction_set: str
    seconds: Mapping[str, float]
    least_dot_s: float
    call_s: float
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        if self.instruction_set not in TILES:
            raise ValueError(f"instruction set {self.instruction_set!r} is none of {', '.join(TILES)}")
        if self.seconds.keys() != TERMS.keys():
            odd = ", ".join(sorted(self.seconds.keys() ^ TERMS.keys()))
            raise ValueError(f"prices must be those of the terms of fused work; these are missing or too many: {odd}")
        for term, value in self.seconds.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"the price of {term!r} must be finite and not negative, got {value}")
        if not 0 <= self.call_s < math.inf:
            raise ValueError(f"a call must take finite time, got {self.call_s}")
        if not 0 < self.least_dot_s < math.inf:
            raise ValueError(f"a dot product must take finite time, got {self.least_dot_s}")


def program_s(program: Program, prices: FusedPrices) -> float:
    """The estimated seconds of a call with a program on one image in one thread.

    Raises:
        ValueError: native code cannot run a step.
    """
    records, shapes = lowered(program)
    return prices.call_s + sum(steps_s(records, shapes, prices))


def steps_s(records: Sequence[Record], shapes: Mapping[int, Shape], prices: FusedPrices) -> list[float]:
    """The estimated seconds of each step, from what `lowered` gives."""
    tiles = TILES[prices.instruction_set]
    works = (work_of(record, shapes, tiles, prices.cache_bytes) for record in records)
    return [sum(count * prices.seconds[term] for term, count in work.items()) for work in works]


def block_s(
    height: int,
    width: int,
    inputs: int,
    expanded: int,
    outputs: int,
    kernel: int,
    stride: int,
    prices: FusedPrices,
) -> float:
    """The estimated seconds of an inverted residual on codes (height, width, inputs); a residual costs next to nothing.

    It has no expansion where `expanded` equals `inputs`.
    """
    before = Layer(expanded, _UNROUNDED, inputs) if expanded != inputs else None
    padding = (kernel // 2,) * 4
    rows, columns = ((size + 2 * (kernel // 2) - kernel) // stride + 1 for size in (height, width))
    depthwise = Layer(expanded, _UNROUNDED, expanded, (kernel, kernel), stride, padding)
    record = Record(
        "block",
        Kind.BLOCK,
        1,
        None,
        2,
        3,
        expand=before,
        depthwise=depthwise,
        project=Layer(outputs, _UNROUNDED, expanded),
    )
    shapes = {1: (height, width, inputs), 2: (rows, columns, outputs), 3: (rows, columns, expanded)}
    return steps_s([record], shapes, prices)[0]


def linear_s(inputs: int, outputs: int, prices: FusedPrices) -> float:
    """The estimated seconds of a linear layer to float32 outputs."""
    record = Record("linear", Kind.LOGITS, 1, project=Layer(outputs, _UNROUNDED, inputs))
    return steps_s([record], {1: (1, 1, inputs)}, prices)[0]


def floor_s(program: Program, prices: FusedPrices) -> float:
    """The least seconds that a call with a program can take on one image in one thread.

    Raises:
        ValueError: native code cannot run a step.
    """
    return macs(program) / MACS_OF_DOT * prices.least_dot_s


def macs(program: Program) -> float:
    """The MACs of a program but those with padding and with blocks of zeros, which nobody has to compute.

    Raises:
        ValueError: native code cannot run a step.
    """
    records, shapes = lowered(program)
    return sum(_macs(record, shapes) for record in records)


def _macs(record: Record, shapes: Mapping[int, Shape]) -> float:
    total, seen = 0.0, shapes[record.a]
    if record.kind == Kind.LOGITS:
        return record.project.channels * record.project.inputs if record.project is not None else 0.0
    for layer in (record.expand, record.depthwise, record.project):
        if layer is None or layer.weight is None:
            continue
        depthwise = layer is record.depthwise or record.kind == Kind.DEPTHWISE
        made = _made(layer, seen)
        axes = zip(seen[:2], made[:2], layer.kernel, layer.padding[:2], strict=True)
        taps = prod(_taps(size, out, kernel, layer.stride, before) for size, out, kernel, before in axes)
        kept = 1.0 if layer.places is None else _kept(layer, layer.places)
        total += taps * layer.channels * (1 if depthwise else layer.inputs) * kept
        seen = made
    return total


def _made(layer: Layer, shape: Shape) -> Shape:
    top, left, bottom, right = layer.padding
    height, width = shape[0] + top + bottom, shape[1] + left + right
    return (height - layer.kernel[0]) // layer.stride + 1, (width - layer.kernel[1]) // layer.stride + 1, layer.channels


def _taps(size: int, out: int, kernel: int, stride: int, before: int) -> int:
    """How often a tap of an axis meets the input."""
    return sum(0 <= i * stride + tap - before < size for i in range(out) for tap in range(kernel))


def _kept(layer: Layer, places: np.ndarray) -> float:
    """The share of blocks of weights that are not zero."""
    vectors = -(-layer.channels // LANES)
    return float(places[vectors]) / (vectors * -(-layer.inputs // INPUTS))
