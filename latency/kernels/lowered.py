"""A program's operations as the steps that native code has, with packed weights and the shapes of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod

import numpy as np

from latency.kernels import packing
from latency.kernels.blocks import Block, Joined, is_1x1, joined
from latency.kernels.contract import (
    Add,
    AveragePool,
    Concatenate,
    Convolution,
    Dequantize,
    Logits,
    Multiply,
    Program,
    Quantize,
    Resize,
    Rounding,
    Table,
    WindowAverage,
    WindowMaximum,
    neighbours,
)
from latency.kernels.reach import reach

Shape = tuple[int, int, int]  # height, width, channels

_IMAGE = 0  # the number of the network's input
_NEAR = 2.0**30


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
    MAXIMUM = 9
    AVERAGE = 10
    COPY = 11
    LOGITS = 12
    DEQUANTIZE = 13


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
class Places:
    """What rows or columns of a resized image are made of.

    Args:
        before: int32, the row or column before; that behind is the next, where there is one.
        of_before, of_behind: float32, the weights of both.
    """

    before: np.ndarray
    of_before: np.ndarray
    of_behind: np.ndarray


@dataclass(frozen=True, eq=False)
class Record:
    """A step as native code runs it: what it reads and makes, and its numbers.

    Args:
        b: what is added or multiplied.
        between: codes of a block's depthwise layer.
        columns, rows: where those of a resized image lie in the image.
        channel: the first of those that codes are copied to.
        counted: whether padding counts in a window's mean.
        far: whether values may be too large for int32 before they are cut.
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
    columns: Places | None = None
    rows: Places | None = None
    channel: int = 0
    counted: bool = False
    far: bool = False
    expand: Layer | None = None
    depthwise: Layer | None = None
    project: Layer | None = None

    @property
    def tensors(self) -> tuple[int, ...]:
        """The numbers of all tensors that it needs."""
        return tuple(i for i in (self.a, self.b, self.output, self.between) if i is not None)


def lowered(program: Program) -> tuple[list[Record], dict[int, Shape]]:
    """The steps of native code in their order, and the shape of every tensor.

    Raises:
        ValueError: native code cannot run a step.
    """
    channels, height, width = program.input_shape
    shapes: dict[int, Shape] = {_IMAGE: (height, width, channels)}
    steps = _without_resizing(joined(program.steps))
    if not steps or not isinstance(steps[-1].operation, Logits | Dequantize):
        raise ValueError("the program's last step makes no float32 outputs; end it with Logits or Dequantize")
    records: list[Record] = []
    free = max(i for step in steps for i in (*step.inputs, step.output)) + 1
    for step in steps:
        missing = [i for i in step.inputs if i not in shapes]
        if missing:
            raise ValueError(
                f"step {step.name!r} reads tensor {missing[0]}, which none before it makes; order the steps"
            )
        if isinstance(step.operation, Quantize | _Resized) != (step.inputs[0] == _IMAGE):
            raise ValueError(f"step {step.name!r} reads {step.inputs}; Quantize reads the image, and all others codes")
        inputs = [shapes[i] for i in step.inputs]
        made, shapes[step.output] = _records(step, inputs)
        for record in made:
            record = replace(record, far=not reach(step.operation, inputs[0]) < _NEAR)  # nor where it is no number
            if isinstance(step.operation, Block) and step.operation.project is not None:
                shapes[free] = _convolved(step.operation.depthwise, shapes[record.a])
                record, free = replace(record, between=free), free + 1
            records.append(record)
    return records, shapes


@dataclass(frozen=True, eq=False)
class _Resized:
    """Codes of an image that is resized before."""

    height: int
    width: int
    quantize: Quantize


def _without_resizing(steps: Sequence[Joined]) -> list[Joined]:
    """Steps of which those that quantize a resized image resize it too."""
    resized = {step.output: step for step in steps if isinstance(step.operation, Resize)}
    found: list[Joined] = []
    for step in steps:
        before = resized.get(step.inputs[0])
        if before is not None:
            if not isinstance(step.operation, Quantize) or before.inputs != (_IMAGE,):
                raise ValueError(f"step {before.name!r} resizes what is not the image, or not before Quantize")
            both = _Resized(before.operation.height, before.operation.width, step.operation)
            found.append(Joined(step.name, both, (_IMAGE,), step.output))
        elif step.output not in resized:
            found.append(step)
    return found


def _records(step: Joined, inputs: list[Shape]) -> tuple[list[Record], Shape]:
    """A step's records, and the shape of its output."""
    operation, shape = step.operation, inputs[0]
    if isinstance(operation, Block | Convolution):
        record, shape = _layers(step, operation, inputs)
        return [record], shape
    if isinstance(operation, Concatenate):
        return _copies(step, inputs)
    return [_record(step, operation, inputs)], _shape(operation, shape)


def _shape(operation: object, shape: Shape) -> Shape:
    channels = shape[2]
    match operation:
        case AveragePool():
            return 1, 1, channels
        case _Resized():
            return operation.height, operation.width, channels
        case WindowMaximum() | WindowAverage():
            return (*_windows(operation.size, operation.stride, operation.padding, shape), channels)
        case _:
            return shape


def _record(step: Joined, operation: object, inputs: list[Shape]) -> Record:
    """The record of a step without a kernel."""
    name, a, output, shape = step.name, step.inputs[0], step.output, inputs[0]
    channels = shape[2]
    match operation:
        case Quantize():
            return _quantize(name, output, operation)
        case _Resized():
            rows, columns = _places(operation.height, shape[0]), _places(operation.width, shape[1])
            return replace(_quantize(name, output, operation.quantize), rows=rows, columns=columns)
        case Table():
            return Record(name, Kind.TABLE, a, None, output, project=_layer(channels, _rounding(operation.table)))
        case AveragePool():
            return Record(name, Kind.POOL, a, None, output, project=_layer(channels, operation.rounding))
        case WindowMaximum():
            window = Layer(channels, _rounding(), channels, operation.size, operation.stride, operation.padding)
            return Record(name, Kind.MAXIMUM, a, None, output, project=window)
        case WindowAverage():
            place = operation.size, operation.stride, operation.padding, operation.zero
            window = Layer(channels, operation.rounding, channels, *place)
            scale, counted = float(operation.scale), operation.counted
            return Record(name, Kind.AVERAGE, a, None, output, scale_a=scale, counted=counted, project=window)
        case Add():
            _expect(step, inputs, shape)
            scale, layer = float(operation.scale_a), _layer(channels, operation.rounding)
            return Record(name, Kind.ADD, a, step.inputs[1], output, scale_a=scale, project=layer)
        case Multiply():
            _expect(step, inputs, (1, 1, channels))
            zeros, layer = (operation.zero_a, operation.zero_b), _layer(channels, operation.rounding)
            return Record(name, Kind.MULTIPLY, a, step.inputs[1], output, None, *zeros, project=layer)
        case Logits():
            if operation.weight.shape[1] != prod(shape):
                raise ValueError(f"step {name!r} has weights of {operation.weight.shape[1]} inputs, got codes {shape}")
            weight = packing.dense(operation.weight[:, :, None, None])
            rounding = Rounding(operation.scale, operation.bias)
            layer = Layer(len(operation.weight), rounding, operation.weight.shape[1], weight=weight)
            return Record(name, Kind.LOGITS, a, project=layer)
        case Dequantize():
            return Record(name, Kind.DEQUANTIZE, a, zero_a=operation.zero, scale_a=float(operation.scale))
        case _:
            raise ValueError(f"step {name!r} is a {type(operation).__name__}, which native code does not have")


def _rounding(table: np.ndarray | None = None) -> Rounding:
    """Of what does not round."""
    return Rounding(np.zeros(1, np.float32), np.zeros(1, np.float32), table=table)


def _layer(channels: int, rounding: Rounding) -> Layer:
    return Layer(channels, rounding, channels)


def _quantize(name: str, output: int, operation: Quantize) -> Record:
    return Record(name, Kind.QUANTIZE, _IMAGE, None, output, zero_a=operation.zero, scale_a=float(operation.scale))


def _places(size: int, image_size: int) -> Places:
    before, _, of_before, of_behind = neighbours(image_size, size)
    return Places(before.astype(np.int32), of_before, of_behind)


def _expect(step: Joined, inputs: list[Shape], second: Shape) -> None:
    if inputs[1:] != [second]:
        raise ValueError(f"step {step.name!r} has inputs {inputs}, expected {second} as the second of two")


def _copies(step: Joined, inputs: list[Shape]) -> tuple[list[Record], Shape]:
    if any(shape[:2] != inputs[0][:2] for shape in inputs):
        raise ValueError(f"step {step.name!r} joins {inputs}; give it codes of one height and width")
    begins = np.cumsum([0, *(shape[2] for shape in inputs)])
    copies = [
        Record(step.name, Kind.COPY, a, None, step.output, channel=int(begin))
        for a, begin in zip(step.inputs, begins[:-1], strict=True)
    ]
    return copies, (*inputs[0][:2], int(begins[-1]))


def _layers(step: Joined, operation: Convolution | Block, inputs: list[Shape]) -> tuple[Record, Shape]:
    """A convolution or a block, and the shape of its output."""
    block = operation if isinstance(operation, Block) else Block(None, operation, None)
    layers = [layer for layer in (block.expand, block.depthwise, block.project) if layer is not None]
    shape = inputs[0]
    for layer in layers:
        expected = layer.weight.shape[0 if layer.depthwise else 1]
        if expected != shape[2] or (layer.depthwise and layer.weight.shape[1] != 1):
            raise ValueError(f"step {step.name!r} has weights {layer.weight.shape} for {shape[2]} channels")
        shape = _convolved(layer, shape)
        if min(shape) < 1:
            raise ValueError(f"step {step.name!r} has a kernel larger than its padded input, which is {inputs[0]}")
    a, b = step.inputs[0], None
    if len(step.inputs) > 1 and layers[-1].rounding.residual is not None:
        _expect(step, inputs, shape)
        b = step.inputs[1]
    if block is operation:
        expand = None if block.expand is None else _packed(block.expand, in_block=True)
        project = None if block.project is None else _packed(block.project, in_block=True)
        depthwise = _packed(block.depthwise, in_block=True)
        record = Record(step.name, Kind.BLOCK, a, b, step.output, expand=expand, depthwise=depthwise, project=project)
        return record, shape
    kind = Kind.DEPTHWISE if layers[0].depthwise else Kind.POINTWISE if is_1x1(layers[0]) else Kind.DENSE
    return Record(step.name, kind, a, b, step.output, project=_packed(layers[0], in_block=False)), shape


def _windows(size: tuple[int, ...], stride: int, padding: tuple[int, int, int, int], shape: Shape) -> tuple[int, int]:
    top, left, bottom, right = padding
    return (
        (shape[0] + top + bottom - size[0]) // stride + 1,
        (shape[1] + left + right - size[1]) // stride + 1,
    )


def _convolved(layer: Convolution, shape: Shape) -> Shape:
    return (*_windows(layer.weight.shape[2:], layer.stride, layer.padding, shape), len(layer.weight))


def _packed(layer: Convolution, in_block: bool) -> Layer:
    outputs, inputs, rows, columns = layer.weight.shape
    places = None
    if layer.depthwise:
        weight, inputs = (packing.shifted if in_block else packing.single)(layer.weight), outputs
    elif (found := packing.sparse(layer.weight)) is not None:
        weight, places = found
    else:
        weight = packing.dense(layer.weight)
    place = (rows, columns), layer.stride, layer.padding, layer.zero
    return Layer(outputs, layer.rounding, inputs, *place, weight, places)
