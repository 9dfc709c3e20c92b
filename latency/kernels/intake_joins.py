"""Nodes of a QDQ graph that join tensors, or a tensor and a constant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latency.kernels.contract import Add, Multiply, Operation, Rounding, fma
from latency.kernels.intake_functions import elementwise
from latency.kernels.intake_layers import Convolving
from latency.kernels.intake_node import Node
from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import Constant, Joined, Sums, Unsupported, Value, Values, codes_of, fixed
from latency.kernels.intake_windows import Window

_ONE = np.ones(1, np.float32)


def add(node: Node, steps: Steps) -> Value:
    """Add or Sub: of a constant, of what the same codes tell, of two tensors, or of a layer's sums and a tensor."""
    a, b = node.input(0), node.input(1)
    sign = -1.0 if node.kind == "Sub" else 1.0
    if isinstance(b, Constant) or isinstance(a, Constant):
        if isinstance(a, Constant) and sign < 0:
            return elementwise(node, steps)
        value, constant = (a, b) if isinstance(b, Constant) else (b, a)
        if _by_code(value, constant):
            return elementwise(node, steps)
        return _affine(node, steps, value, _ONE, sign * _by_channel(constant, value))
    if isinstance(a, Values) and isinstance(b, Values) and a.tensor == b.tensor:
        return elementwise(node, steps)
    if sign < 0:
        raise Unsupported("subtracts one tensor from another")
    if isinstance(b, Sums):
        a, b = b, a
    _same_shape(a, b)
    codes = codes_of(b)
    other = steps.tensor(node.name, codes)
    if isinstance(a, Sums) and isinstance(a.make, Convolving) and not a.cut and a.residual is None:
        bias = a.bias - codes.zero * np.float64(codes.scale)
        return replace(a, inputs=(*a.inputs, other), bias=bias, residual=codes.scale, weight=None)
    first = codes_of(a)

    def make(rounding: Rounding, step: np.float32) -> Operation:
        scale_a, scale_b = first.scale / step, np.asarray(codes.scale / step).reshape(1)
        zero_b = scale_b * np.float32(codes.zero)
        # The rounding of the bias is ONNX Runtime's.
        bias = np.float32(rounding.zero) - fma(scale_a, np.float32(first.zero), zero_b)
        return Add(scale_a, replace(rounding, scale=scale_b, bias=bias, zero=0))

    return replace(fixed(make, (steps.tensor(node.name, first), other), codes.shape), flat=codes.flat)


def multiply(node: Node, steps: Steps) -> Value:
    """Mul: by a constant, of what the same codes tell, or of a tensor and one code for each of its channels."""
    a, b = node.input(0), node.input(1)
    if isinstance(b, Constant) or isinstance(a, Constant):
        value, constant = (a, b) if isinstance(b, Constant) else (b, a)
        if _by_code(value, constant):
            return elementwise(node, steps)
        return _affine(node, steps, value, _by_channel(constant, value).astype(np.float32), np.zeros(1))
    if isinstance(a, Values) and isinstance(b, Values) and a.tensor == b.tensor:
        return elementwise(node, steps)
    wide, gate = codes_of(a), codes_of(b)
    if wide.shape[1:] == (1, 1):
        wide, gate = gate, wide
    if gate.shape != (wide.shape[0], 1, 1) or wide.flat or gate.flat:
        raise Unsupported(f"multiplies {wide.shape} by {gate.shape}, expected a factor for each channel")
    inputs = steps.tensor(node.name, wide), steps.tensor(node.name, gate)
    scale = np.asarray(wide.scale * gate.scale).reshape(1)

    def make(rounding: Rounding, _step: np.float32) -> Operation:
        inside = replace(rounding, bias=np.array([rounding.zero], np.float32), zero=0)
        return Multiply(wide.zero, gate.zero, inside)

    return replace(fixed(make, inputs, wide.shape), scale=scale)


def _same_shape(a: Value, b: Value) -> None:
    shapes = [getattr(value, "shape", None) for value in (a, b)]
    if shapes[0] != shapes[1] or getattr(a, "flat", None) != getattr(b, "flat", None):
        raise Unsupported(f"adds {shapes[0]} and {shapes[1]}")


def _by_code(value: Value, constant: Value) -> bool:
    return isinstance(value, Values) and isinstance(constant, Constant) and constant.values.size == 1


def _by_channel(constant: Value, value: Value) -> np.ndarray:
    """A constant as (c,) or (1,) in float64."""
    shape, flat = getattr(value, "shape", (0, 0, 0)), getattr(value, "flat", False)
    if isinstance(constant, Constant):
        found = constant.values
        channels = shape[0] if not flat or shape[1:] == (1, 1) else 0
        if found.size == 1:
            return found.reshape(1).astype(np.float64)
        aligned = (1,) * (4 - found.ndim) + found.shape if not flat else (1,) * (2 - found.ndim) + found.shape
        if aligned in ((1, channels, 1, 1), (1, channels)):
            return found.reshape(-1).astype(np.float64)
    raise Unsupported(f"a constant of shape {getattr(constant, 'values', np.zeros(0)).shape} for {shape}")


def batch_norm(node: Node, steps: Steps) -> Value:
    """BatchNormalization: a factor and an addend for each channel."""
    found = [node.constant(i, "statistics") for i in range(1, 5)]
    gamma, beta, mean, variance = (np.zeros(1) if x is None else x.astype(np.float64) for x in found)
    factor = gamma / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    return _affine(node, steps, node.input(0), factor.astype(np.float32), beta - mean * factor)


def _affine(node: Node, steps: Steps, value: Value, factor: np.ndarray, addend: np.ndarray) -> Value:
    """factor · values + addend, both (c,) or (1,): of codes, as a depthwise convolution with ones."""
    if isinstance(value, Sums):
        return replace(value.times(factor, addend), weight=value.weight)
    codes = codes_of(value)
    ones = np.ones((codes.shape[0], 1, 1, 1), np.int8)
    window = Window((1, 1), 1, (0, 0, 0, 0), (codes.shape[1], codes.shape[2]))
    make = Convolving(ones, window, codes.zero, codes.shape[0] > 1)
    tensor, offset = steps.tensor(node.name, codes), np.array([-codes.zero])
    plain = Sums(make, (tensor,), codes.scale.reshape(1), offset, np.zeros(1), codes.shape, codes.flat)
    return plain.times(factor, addend)


def concatenate(node: Node, _steps: Steps) -> Value:
    """Concat of channels."""
    parts = tuple(codes_of(node.input(i)) for i in range(len(node.inputs)))
    flat, (_, h, w) = parts[0].flat, parts[0].shape
    same = all(part.shape[1:] == (h, w) and part.flat == flat for part in parts)
    if node.attribute("axis", 1) not in (1, -1 if flat else -3) or not same or (flat and (h, w) != (1, 1)):
        raise Unsupported("joins other than channels")
    return Joined(parts, (sum(part.shape[0] for part in parts), h, w), flat)
