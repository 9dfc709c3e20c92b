"""A program's operations as the steps that native code has, with packed weights and the shapes of tensors.

A depthwise convolution with a kernel of 3, 5 or 7 is a block: with the 1x1 convolution before, where nothing else reads
its codes, and, in an inverted residual, the one behind.  Other inverted residuals are taken apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from latency.kernels import packing
from latency.kernels.contract import (
    Add,
    AveragePool,
    Convolution,
    Dequantize,
    InvertedResidual,
    Logits,
    Multiply,
    Operation,
    Program,
    Quantize,
    Rounding,
    Step,
    Table,
)

Shape = tuple[int, int, int]  # height, width, channels

_BLOCK_KERNELS, _BLOCK_STRIDES = (3, 5, 7), (1, 2)


class Kind(IntEnum):
    """What a step does, as native code numbers it."""

    QUANTIZE = 0
    POINTWISE = 1
    DENSE = 2
    DEPTHWISE = 3
    BLOCK = 4
    POOL = 5
    ADD = 6
    MULTIPLY = 7
    TABLE = 8
    LOGITS = 9
    DEQUANTIZE = 10


@dataclass(frozen=True, eq=False)
class Layer:
    """What native code knows of a layer.

    Args:
        weight: as it is packed.
        places: where packed blocks of block-sparse weights stand.
    """

    channels: int
    rounding: Rounding
    inputs: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    zero: int = 0
    weight: np.ndarray | None = None
    places: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Record:
    """A step as native code runs it: what it reads and makes, and its numbers.

    Args:
        b: what is added or multiplied.
        between: codes of a block's depthwise layer.
        project: the layer where there is one alone.
    """

    name: str
    kind: Kind
    a: int
    b: int | None = None
    output: int | None = None
    between: int | None = None
    zero_a: int = 0
    zero_b: int = 0
    scale_a: float = 0.0
    expand: Layer | None = None
    depthwise: Layer | None = None
    project: Layer | None = None

    @property
    def tensors(self) -> tuple[int, ...]:
        """The numbers of all tensors that it needs."""
        return tuple(i for i in (self.a, self.b, self.output, self.between) if i is not None)


@dataclass(frozen=True, eq=False)
class _Block:
    """A depthwise layer with 1x1 layers before and behind."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution | None = None


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of the program, with what native code does in it."""

    name: str
    operation: Operation | _Block
    inputs: tuple[int, ...]
    output: int


def lowered(program: Program) -> tuple[list[Record], dict[int, Shape]]:
    """The steps of native code in their order, and the shape of every tensor.

    Raises:
        ValueError: native code cannot run a step.
    """
    channels, height, width = program.input_shape
    shapes: dict[int, Shape] = {0: (height, width, channels)}
    steps = _joined(list(_apart(program.steps)))
    if not steps or not isinstance(steps[-1].operation, Logits | Dequantize):
        raise ValueError("the program's last step makes no float32 outputs; end it with Logits or Dequantize")
    records = []
    free = max(i for step in steps for i in (*step.inputs, step.output)) + 1
    for step in steps:
        record = _record(step, shapes)
        if isinstance(step.operation, _Block) and record.project is not None:
            shapes[free] = _convolved(step.operation.depthwise, shapes[record.a])
            record, free = replace(record, between=free), free + 1
        records.append(record)
    return records, shapes


def _apart(steps: Sequence[Step]) -> Iterator[_Step]:
    """Steps of which inverted residuals are blocks, or three steps each where native code has no such block."""
    free = max((i for step in steps for i in (*step.inputs, step.output)), default=0) + 1
    for step in steps:
        block = step.operation
        if not isinstance(block, InvertedResidual):
            yield _Step(step.name, block, step.inputs, step.output)
            continue
        added = step.inputs if block.project.rounding.residual is not None else ()
        if _fits(block.depthwise) and _is_1x1(block.project) and (block.expand is None or _is_1x1(block.expand)):
            yield _Step(
                step.name, _Block(block.expand, block.depthwise, block.project), step.inputs + added, step.output
            )
            continue
        inputs = step.inputs
        for part, layer in (("expansion", block.expand), ("depthwise", block.depthwise)):
            if layer is not None:
                yield _Step(f"{step.name}, {part}", layer, inputs, free)
                inputs, free = (free,), free + 1
        yield _Step(f"{step.name}, projection", block.project, inputs + added, step.output)


def _joined(steps: list[_Step]) -> list[_Step]:
    """Steps of which depthwise layers are blocks, with the 1x1 layer whose codes they alone read."""
    readers = Counter(i for step in steps for i in step.inputs)
    makers = {step.output: step for step in steps}
    joined = {}
    for step in steps:
        layer = step.operation
        if not isinstance(layer, Convolution) or not _fits(layer) or _adds(step):
            continue
        before = makers.get(step.inputs[0])
        expand = before.operation if before is not None and readers[before.output] == 1 else None
        if before is not None and isinstance(expand, Convolution) and _is_1x1(expand) and not _adds(before):
            joined[step.output] = _Step(step.name, _Block(expand, layer), before.inputs[:1], step.output)
            joined[before.output] = None
        else:
            joined[step.output] = _Step(step.name, _Block(None, layer), step.inputs[:1], step.output)
    found = (joined.get(step.output, step) for step in steps)
    return [step for step in found if step is not None]


def _adds(step: _Step) -> bool:
    layer = step.operation
    return isinstance(layer, Convolution) and len(step.inputs) > 1 and layer.rounding.residual is not None


def _is_1x1(layer: Convolution) -> bool:
    return not layer.depthwise and layer.weight.shape[2:] == (1, 1) and layer.stride == 1 and not any(layer.padding)


def _fits(layer: Convolution) -> bool:
    rows, columns = layer.weight.shape[2:]
    return layer.depthwise and rows == columns and rows in _BLOCK_KERNELS and layer.stride in _BLOCK_STRIDES


def _record(step: _Step, shapes: dict[int, Shape]) -> Record:
    """The record of a step, whose output's shape it adds to `shapes`."""
    missing = [i for i in step.inputs if i not in shapes]
    if missing:
        raise ValueError(
            f"step {step.name!r} reads tensor {missing[0]}, which no step before it makes; order the steps"
        )
    operation, a = step.operation, step.inputs[0]
    shape = shapes[a]
    if isinstance(operation, Quantize) != (a == 0):
        raise ValueError(
            f"step {step.name!r} reads {'codes' if a else 'the image'}; Quantize reads it, and nothing else"
        )
    if isinstance(operation, _Block | Convolution):
        record, shapes[step.output] = _layers(step, shapes)
        return record
    if isinstance(operation, Logits):
        if operation.weight.shape[1] != np.prod(shape):
            raise ValueError(f"step {step.name!r} has weights of {operation.weight.shape[1]} inputs, got {shape}")
        weight = operation.weight[:, :, None, None]
        rounding = Rounding(operation.scale, operation.bias)
        layer = Layer(len(weight), rounding, weight.shape[1], weight=packing.dense(weight))
        return Record(step.name, Kind.LOGITS, a, project=layer)
    if isinstance(operation, Dequantize):
        return Record(step.name, Kind.DEQUANTIZE, a, zero_a=operation.zero, scale_a=float(operation.scale))
    shapes[step.output] = (1, 1, shape[2]) if isinstance(operation, AveragePool) else shape
    return _simple(step, shape, [shapes[i] for i in step.inputs[1:]])


def _simple(step: _Step, shape: Shape, others: list[Shape]) -> Record:
    """A step without weights."""
    operation, a, output = step.operation, step.inputs[0], step.output
    if isinstance(operation, Quantize):
        return Record(step.name, Kind.QUANTIZE, a, None, output, zero_a=operation.zero, scale_a=float(operation.scale))
    if isinstance(operation, Table):
        nothing = np.zeros(1, np.float32)
        layer = Layer(shape[2], Rounding(nothing, nothing, table=operation.table))
        return Record(step.name, Kind.TABLE, a, None, output, project=layer)
    if isinstance(operation, AveragePool):
        return Record(step.name, Kind.POOL, a, None, output, project=Layer(shape[2], operation.rounding))
    if not isinstance(operation, Add | Multiply):
        raise ValueError(f"step {step.name!r} is a {type(operation).__name__}, which native code does not have")
    expected = shape if isinstance(operation, Add) else (1, 1, shape[2])
    if others != [expected]:
        raise ValueError(f"step {step.name!r} has inputs of {shape} and {others}, expected {expected} beside the first")
    layer = Layer(shape[2], operation.rounding)
    if isinstance(operation, Add):
        scale = float(operation.scale_a)
        return Record(step.name, Kind.ADD, a, step.inputs[1], output, scale_a=scale, project=layer)
    zeros = operation.zero_a, operation.zero_b
    return Record(step.name, Kind.MULTIPLY, a, step.inputs[1], output, None, *zeros, project=layer)


def _layers(step: _Step, shapes: dict[int, Shape]) -> tuple[Record, Shape]:
    """A convolution or a block, and the shape of its output."""
    operation, a = step.operation, step.inputs[0]
    if isinstance(operation, _Block):
        parts = [operation.expand, operation.depthwise, operation.project]
    else:
        parts = [operation]
    layers = [layer for layer in parts if layer is not None]
    shape = shapes[a]
    for layer in layers:
        inputs = layer.weight.shape[0 if layer.depthwise else 1]
        if inputs != shape[2] or (layer.depthwise and layer.weight.shape[1] != 1):
            raise ValueError(f"step {step.name!r} has weights {layer.weight.shape} for {shape[2]} channels")
        shape = _convolved(layer, shape)
        if min(shape) < 1:
            raise ValueError(f"step {step.name!r} has a kernel larger than its padded input, which is {shapes[a]}")
    b = step.inputs[1] if len(step.inputs) > 1 and layers[-1].rounding.residual is not None else None
    if b is not None and shapes[b] != shape:
        raise ValueError(f"step {step.name!r} adds codes {shapes[b]} to {shape}; give it codes of one shape")
    if isinstance(operation, _Block):
        expand, depthwise, project = (None if layer is None else _packed(layer, in_block=True) for layer in parts)
        return Record(step.name, Kind.BLOCK, a, b, step.output, None, 0, 0, 0.0, expand, depthwise, project), shape
    kind = Kind.DEPTHWISE if layers[0].depthwise else Kind.POINTWISE if _is_1x1(layers[0]) else Kind.DENSE
    return Record(step.name, kind, a, b, step.output, project=_packed(layers[0], in_block=False)), shape


def _convolved(layer: Convolution, shape: Shape) -> Shape:
    top, left, bottom, right = layer.padding
    rows, columns = layer.weight.shape[2:]
    height, width = shape[0] + top + bottom - rows, shape[1] + left + right - columns
    return height // layer.stride + 1, width // layer.stride + 1, len(layer.weight)


def _packed(layer: Convolution, in_block: bool) -> Layer:
    outputs, inputs, rows, columns = layer.weight.shape
    weight, places = packing.dense(layer.weight) if not layer.depthwise else None, None
    if layer.depthwise:
        weight, inputs = (packing.shifted if in_block else packing.single)(layer.weight), outputs
    elif _is_1x1(layer) and (found := packing.sparse(layer.weight[:, :, 0, 0])) is not None:
        weight, places = found
    place = (rows, columns), layer.stride, layer.padding, layer.zero
    return Layer(outputs, layer.rounding, inputs, *place, weight, places)
