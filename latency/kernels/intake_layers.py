"""Convolutions and linear layers of a QDQ graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latency.kernels.contract import Convolution, Operation, Rounding
from latency.kernels.intake_node import Node
from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import Codes, Constant, Sums, Unsupported, Value, codes_of
from latency.kernels.intake_windows import Window

_MOST = 2**31 - 1


def convolution(node: Node, steps: Steps) -> Value:
    """Conv, dense, depthwise or, with zeros between the groups, dense in groups."""
    codes = codes_of(node.input(0))
    steps_, scale = _weight(node, 0)
    (outputs, inner), size = steps_.shape[:2], steps_.shape[2:]
    channels, group, strides = codes.shape[0], node.attribute("group", 1), node.attribute("strides", [1, 1])
    if len(size) != 2 or codes.flat or inner * group != channels:
        raise Unsupported(f"a weight of shape {steps_.shape} in {group} groups over inputs {codes.shape}")
    if strides[0] != strides[1] or set(node.attribute("dilations", [1])) != {1}:
        raise Unsupported("unequal strides or a dilation")
    depthwise = group == channels == outputs and group > 1
    weight = steps_ if depthwise or group == 1 else _ungrouped(steps_, group)
    window = Window.of(node, codes.shape[1:], size, int(strides[0]))
    shape = (outputs, *window.places)
    return _layer(node, steps, codes, (weight, scale), window, shape, depthwise, flat=False)


def _ungrouped(weight: np.ndarray, group: int) -> np.ndarray:
    outputs, inner = weight.shape[:2]
    wide = np.zeros((outputs, inner * group, *weight.shape[2:]), weight.dtype)
    for g, rows in enumerate(np.split(np.arange(outputs), group)):
        wide[rows, g * inner : (g + 1) * inner] = weight[rows]
    return wide


def product(node: Node, steps: Steps) -> Value:
    """Gemm or MatMul of (b, in) and a constant: a convolution over all pixels."""
    codes = codes_of(node.input(0))
    gemm = node.kind == "Gemm"
    if not codes.flat or (gemm and node.attribute("transA", 0)):
        raise Unsupported("a product of other than (b, features) and a weight")
    out_axis = 0 if gemm and node.attribute("transB", 0) else 1
    weight, scale = _weight(node, out_axis)
    if weight.ndim != 2 or weight.shape[1 - out_axis] != math.prod(codes.shape):
        raise Unsupported(f"a weight of shape {weight.shape} for {math.prod(codes.shape)} features")
    weight = weight if out_axis == 0 else weight.T
    if gemm:
        scale = scale * np.float32(node.attribute("alpha", 1.0))
    window = Window(codes.shape[1:], 1, (0, 0, 0, 0), (1, 1))
    full = weight.reshape(len(weight), *codes.shape)
    return _layer(node, steps, codes, (full, scale), window, (len(weight), 1, 1), False, flat=True)


def _weight(node: Node, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps of a weight as int8, and their scale by output channel."""
    value = node.input(1)
    if not isinstance(value, Constant):
        raise Unsupported("multiplies two activations")
    if value.stored is None:
        raise Unsupported("computes in fp32: its weight is not quantized")
    stored = value.stored
    if len(stored.scale) > 1 and stored.axis != axis:
        raise Unsupported("its weight has scales along another axis than output channels")
    if stored.steps.min() < -128 or stored.steps.max() > 127:
        raise Unsupported("its weight has a zero point that leaves steps beyond int8")
    return stored.steps.astype(np.int8), stored.scale


def _layer(
    node: Node,
    steps: Steps,
    codes: Codes,
    weight: tuple[np.ndarray, np.ndarray],
    window: Window,
    shape: tuple[int, ...],
    depthwise: bool,
    flat: bool,
) -> Sums:
    """A convolution of codes, with the bias that may be its third input."""
    steps_, factor = weight
    scale = codes.scale * factor
    totals = steps_.reshape(len(steps_), -1).astype(np.int64)
    offset, bias = -codes.zero * totals.sum(1), np.zeros(len(steps_))
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is not None:
        more, bias = _bias(node, given, scale)
        offset = offset + more
    if (255 * np.abs(totals).sum(1) + np.abs(offset)).max() > _MOST:
        raise Unsupported("its sums may pass 2^31")
    make = Convolving(steps_, window, codes.zero, depthwise)
    whole = not depthwise and shape[1:] == (1, 1) and window.size == codes.shape[1:] and not any(window.padding)
    linear = steps_.transpose(0, 2, 3, 1).reshape(len(steps_), -1) if whole else None
    tensor = steps.tensor(node.name, codes)
    return Sums(make, (tensor,), scale, offset, bias, (shape[0], shape[1], shape[2]), flat, weight=linear)


def _bias(node: Node, given: Value, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bias as whole steps of the sums, where it is stored so, and what it is beside."""
    if not isinstance(given, Constant):
        raise Unsupported("its bias depends on the network's input")
    beta = node.attribute("beta", 1.0) if node.kind == "Gemm" else 1.0
    outputs = given.values.size
    if given.values.squeeze().ndim > 1 or (outputs > 1 and len(scale) > 1 and outputs != len(scale)):
        raise Unsupported(f"a bias of shape {given.values.shape}")
    if given.stored is not None and beta == 1 and np.allclose(given.stored.scale, scale, rtol=1e-5, atol=0):
        return given.stored.steps.reshape(-1).astype(np.int64), np.zeros(1)
    return np.zeros(1, np.int64), given.values.reshape(-1).astype(np.float64) * beta


@dataclass(frozen=True, eq=False)
class Convolving:
    """Makes convolutions of their roundings."""

    weight: np.ndarray
    window: Window
    zero: int
    depthwise: bool

    def __call__(self, rounding: Rounding, _step: np.float32) -> Operation:
        """The convolution with a rounding."""
        stride, padding = self.window.stride, self.window.padding
        return Convolution(self.weight, rounding, stride, padding, self.zero, self.depthwise)
