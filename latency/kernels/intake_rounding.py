"""QuantizeLinear and DequantizeLinear: where values are rounded to codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from latency.kernels.contract import Concatenate, Quantize
from latency.kernels.intake_node import Node
from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import (
    CODES,
    Codes,
    Constant,
    Joined,
    Pixels,
    Stored,
    Sums,
    Unsupported,
    Value,
    Values,
    dequantized,
)


def quantize(node: Node, steps: Steps) -> Value:
    """QuantizeLinear: what came before becomes a step."""
    value, (step, zero) = node.input(0), _scale_and_zero(node)
    if isinstance(value, Constant):
        low, high = _range(node)
        codes = np.clip(np.rint(value.values / step) + zero, low, high).astype(np.int32)
        return Constant(codes, Stored(codes, np.ones(1, np.float32), 0))
    zero = zero + 128 if _range(node)[0] < 0 else zero
    if isinstance(value, Pixels):
        c, h, w = value.shape
        tensor = steps.add(node.name, Quantize(step, zero), (value.tensor,), (h, w, c))
        return Codes(tensor, CODES, step, zero, value.shape)
    if isinstance(value, Values):
        return _table(value, step, zero)
    if isinstance(value, Sums):
        c, h, w = value.shape
        operation = value.make(value.rounding(step, zero), step)
        tensor = steps.add(node.name, operation, value.inputs, (h, w, c))
        return Codes(tensor, CODES, step, zero, value.shape, value.flat)
    if isinstance(value, Joined):
        c, h, w = value.shape
        parts = [steps.tensor(node.name, _table(dequantized(part), step, zero)) for part in value.parts]
        tensor = steps.add(node.name, Concatenate(), parts, (h, w, c))
        return Codes(tensor, CODES, step, zero, value.shape, value.flat)
    raise Unsupported("rounds codes")


def _table(value: Values, step: np.float32, zero: int) -> Codes:
    """The codes of values."""
    rounded = np.rint(value.values / step) + np.float32(zero)
    if not np.isfinite(value.values).all():
        raise Unsupported("rounds what is no number for some codes")
    table = np.clip(rounded, 0, 255).astype(np.uint8)
    return Codes(value.tensor, table, step, zero, value.shape, value.flat)


def dequantize(node: Node, _steps: Steps) -> Value:
    """DequantizeLinear of codes, or of a constant as it is stored."""
    value = node.input(0)
    if isinstance(value, Constant):
        return _stored(node, value.values)
    if not isinstance(value, Codes):
        raise Unsupported("its input was not made by a QuantizeLinear")
    step, zero = _scale_and_zero(node)
    zero = zero + 128 if _range(node)[0] < 0 else zero
    return dequantized(replace(value, scale=step, zero=zero))


def _scale_and_zero(node: Node) -> tuple[np.float32, int]:
    scale, zero = node.constant(1, "scale"), node.constant(2, "zero point")
    if scale is None or scale.size != 1:
        raise Unsupported("an activation with several scales")
    return np.float32(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0])


def _range(node: Node) -> tuple[int, int]:
    """The least and the largest code.

    Raises:
        Unsupported: codes of another type than uint8 and int8.
    """
    zero = node.constant(2, "zero point")
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    declared = node.attribute("output_dtype", 0)
    if zero is None and node.kind == "QuantizeLinear" and declared == TensorProto.INT8:
        kind = np.dtype(np.int8)
    if kind not in (np.uint8, np.int8):
        raise Unsupported(f"rounds to {kind}, expected uint8 or int8")
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


def _stored(node: Node, codes: np.ndarray) -> Constant:
    scale, zero = node.constant(1, "scale"), node.constant(2, "zero point")
    if scale is None or scale.ndim > 1 or node.attribute("block_size", 0):
        raise Unsupported("a constant with scales for blocks")
    scale = scale.reshape(-1).astype(np.float32)
    axis = int(node.attribute("axis", 1)) % max(codes.ndim, 1) if len(scale) > 1 else 0
    along = [-1 if i == axis and len(scale) > 1 else 1 for i in range(codes.ndim)]
    zeros = np.zeros(1, np.int32) if zero is None else np.asarray(zero).reshape(-1).astype(np.int32)
    found = codes.astype(np.int32) - (zeros.reshape(along) if len(zeros) > 1 else zeros[0])
    values = found.astype(np.float32) * (scale.reshape(along) if len(scale) > 1 else scale[0])
    return Constant(values, Stored(found, scale, axis))
