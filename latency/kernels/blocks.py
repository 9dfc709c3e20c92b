"""Which steps of a program native code runs at once.

A depthwise convolution with a kernel of 3, 5 or 7 is a block: with the 1x1 convolution before, where nothing else reads
its codes, and, in an inverted residual, the one behind.  Other inverted residuals are taken apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from latency.kernels.contract import Convolution, InvertedResidual, Step

_KERNELS, _STRIDES = (3, 5, 7), (1, 2)


@dataclass(frozen=True, eq=False)
class Block:
    """A depthwise layer with 1x1 layers before and behind; what is added is the step's second input."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution | None = None


@dataclass(frozen=True, eq=False)
class Joined:
    """A step of which the operation is the program's or a `Block`."""

    name: str
    operation: Any
    inputs: tuple[int, ...]
    output: int


def is_1x1(layer: Convolution) -> bool:
    """Whether a layer multiplies pixels alone, and all of them."""
    return not layer.depthwise and layer.weight.shape[2:] == (1, 1) and layer.stride == 1 and not any(layer.padding)


def joined(steps: Sequence[Step]) -> list[Joined]:
    """The steps of a program, with its blocks; what is new between steps has numbers above all others."""
    apart = list(_apart(steps))
    readers = Counter(i for step in apart for i in step.inputs)
    makers = {step.output: step for step in apart}
    blocks: dict[int, Joined | None] = {}
    for step in apart:
        if not isinstance(step.operation, Convolution) or not _fits(step.operation) or _adds(step):
            continue
        before = makers.get(step.inputs[0])
        if before is not None and readers[before.output] == 1 and _expands(before):
            block = Block(before.operation, step.operation)
            blocks[before.output] = None
            blocks[step.output] = Joined(step.name, block, before.inputs[:1], step.output)
        else:
            blocks[step.output] = Joined(step.name, Block(None, step.operation), step.inputs[:1], step.output)
    found = (blocks.get(step.output, step) for step in apart)
    return [step for step in found if step is not None]


def _apart(steps: Sequence[Step]) -> Iterator[Joined]:
    free = max((i for step in steps for i in (*step.inputs, step.output)), default=0) + 1
    for step in steps:
        block = step.operation
        if not isinstance(block, InvertedResidual):
            yield Joined(step.name, block, step.inputs, step.output)
            continue
        added = step.inputs if block.project.rounding.residual is not None else ()
        if _fits(block.depthwise) and is_1x1(block.project) and (block.expand is None or is_1x1(block.expand)):
            parts = Block(block.expand, block.depthwise, block.project)
            yield Joined(step.name, parts, step.inputs + added, step.output)
            continue
        inputs = step.inputs
        for part, layer in (("expansion", block.expand), ("depthwise", block.depthwise)):
            if layer is not None:
                yield Joined(f"{step.name}, {part}", layer, inputs, free)
                inputs, free = (free,), free + 1
        yield Joined(f"{step.name}, projection", block.project, inputs + added, step.output)


def _fits(layer: Convolution) -> bool:
    rows, columns = layer.weight.shape[2:]
    return layer.depthwise and rows == columns and rows in _KERNELS and layer.stride in _STRIDES


def _adds(step: Joined) -> bool:
    return len(step.inputs) > 1 and step.operation.rounding.residual is not None


def _expands(step: Joined) -> bool:
    return isinstance(step.operation, Convolution) and is_1x1(step.operation) and not _adds(step)
