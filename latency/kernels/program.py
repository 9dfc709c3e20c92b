"""Quantized networks as files that native code reads; `native/program.hpp` says what stands where."""

from __future__ import annotations

import struct
from math import prod

import numpy as np

from latency.kernels import packing
from latency.kernels.contract import Program
from latency.kernels.lowered import Layer, Record, Shape, lowered
from latency.kernels.plan import ALIGNMENT, Lifetime, planned

_MAGIC, _VERSION = b"HWNASNET", 1
_HEADER, _TENSOR, _STEP_HEAD, _LAYER = 16, 4, 20, 24  # numbers of 4 bytes
_OUTPUTS = 7  # where in the header the number of outputs stands
_MOST_BYTES = 2**31 - 1


def encoded(program: Program, gap_bytes: int = 0) -> bytes:
    """The file of a program; `gap_bytes` of memory stay free behind each tensor.

    Raises:
        ValueError: native code cannot run a step, or has no room for the program.
    """
    records, shapes = lowered(program)
    tensors = sorted({0, *(i for record in records for i in record.tensors)})
    offsets, memory = _planned(records, shapes, tensors[1:], gap_bytes)
    constants = _Constants(4 * (_HEADER + _TENSOR * len(tensors) + (_STEP_HEAD + 3 * _LAYER) * len(records)))
    numbers = {tensor: number for number, tensor in enumerate(tensors)}
    places = (struct.pack("<4i", *shapes[i], offset) for i, offset in zip(tensors, [0, *offsets], strict=True))
    tables = b"".join([*places, *(_step(record, numbers, constants) for record in records)])
    size = constants.end
    if max(size, memory) > _MOST_BYTES:
        raise ValueError(f"the program has {size} bytes and needs {memory}; native code has room for {_MOST_BYTES}")
    head = struct.pack("<6i", _VERSION, size, len(tensors), len(records), memory, _outputs(records[-1], shapes))
    return (_MAGIC + head).ljust(4 * _HEADER, b"\0") + tables + constants.bytes()


def shapes_of(data: bytes | memoryview) -> tuple[tuple[int, int, int], int]:
    """The shape (c, h, w) of an image and the number of outputs of a program's file, which is not checked."""
    height, width, channels = struct.unpack_from("<3i", data, 4 * _HEADER)
    (outputs,) = struct.unpack_from("<i", data, 4 * _OUTPUTS)
    return (channels, height, width), outputs


def _planned(records: list[Record], shapes: dict[int, Shape], tensors: list[int], gap: int) -> tuple[list[int], int]:
    needed: dict[int, list[int]] = {i: [] for i in tensors}
    for step, record in enumerate(records):
        for i in record.tensors:
            if i in needed:
                needed[i].append(step)
    return planned([Lifetime(prod(shapes[i]), min(needed[i]), max(needed[i])) for i in tensors], gap)


def _outputs(last: Record, shapes: dict[int, Shape]) -> int:
    return prod(shapes[last.a]) if last.project is None else last.project.channels


class _Constants:
    """Arrays behind the tables of a file, which end at `begin`; equal ones stand there once."""

    def __init__(self, begin: int) -> None:
        self.end = begin
        self._parts: list[bytes] = []
        self._offsets: dict[bytes, int] = {}

    def offset(self, array: np.ndarray | None) -> int:
        """Where an array stands in the file; 0 for none."""
        if array is None:
            return 0
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        if data not in self._offsets:
            offset = packing.rounded_up(self.end, ALIGNMENT)
            self._parts += [bytes(offset - self.end), data]
            self._offsets[data], self.end = offset, offset + len(data)
        return self._offsets[data]

    def bytes(self) -> bytes:
        """All of them, from `begin` on."""
        return b"".join(self._parts)


def _step(record: Record, numbers: dict[int, int], constants: _Constants) -> bytes:
    tensors = (-1 if i is None else numbers[i] for i in (record.a, record.b, record.output, record.between))
    head = struct.pack("<7if", record.kind, *tensors, record.zero_a, record.zero_b, record.scale_a)
    places: list[np.ndarray | None] = []
    for each in (record.columns, record.rows):
        places += [None] * 3 if each is None else [each.before, each.of_before, each.of_behind]
    head += struct.pack("<9i", *map(constants.offset, places), record.channel, record.counted, record.far)
    layers = (_layer(layer, constants) for layer in (record.expand, record.depthwise, record.project))
    return head.ljust(4 * _STEP_HEAD, b"\0") + b"".join(layers)


def _layer(layer: Layer | None, constants: _Constants) -> bytes:
    if layer is None:
        return bytes(4 * _LAYER)
    rounding = layer.rounding
    place = (layer.channels, layer.inputs, *layer.kernel, layer.stride, *layer.padding, layer.zero)
    residual = 0.0 if rounding.residual is None else float(rounding.residual)
    offset = np.zeros(1, np.int32) if rounding.offset is None else rounding.offset
    arrays = (
        packing.by_channel(offset, layer.channels),
        packing.by_channel(rounding.scale, layer.channels),
        packing.by_channel(rounding.bias, layer.channels),
        rounding.table,
        layer.weight,
        layer.places,
    )
    numbers = struct.pack("<14if", 1, *place, rounding.low, rounding.high, rounding.zero, residual)
    return (numbers + struct.pack("<6i", *map(constants.offset, arrays))).ljust(4 * _LAYER, b"\0")
