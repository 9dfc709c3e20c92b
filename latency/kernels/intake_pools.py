"""Pools of a QDQ graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latency.kernels.contract import AveragePool, Operation, Rounding, WindowAverage, WindowMaximum
from latency.kernels.intake_node import Node
from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import CODES, Codes, Sums, Unsupported, Value, codes_of, dequantized, fixed
from latency.kernels.intake_windows import Window


def window_pool(node: Node, steps: Steps) -> Value:
    """MaxPool or AveragePool."""
    value = node.input(0)
    codes = value if isinstance(value, Codes) else codes_of(value)
    size, strides = node.attribute("kernel_shape", []), node.attribute("strides", [1, 1])
    if len(size) != 2 or strides[0] != strides[1] or set(node.attribute("dilations", [1])) != {1} or codes.flat:
        raise Unsupported("unequal strides, a dilation, or other than two axes")
    if len(node.proto.output) > 1:
        raise Unsupported("its places are read")
    window = Window.of(node, codes.shape[1:], size, int(strides[0]))
    shape = codes.shape[0], *window.places
    tensor = steps.tensor(node.name, codes)
    k_h, k_w = size
    if node.kind == "MaxPool":
        operation = WindowMaximum((k_h, k_w), window.stride, window.padding)
        made = steps.add(node.name, operation, (tensor,), (*window.places, codes.shape[0]))
        taken = Codes(made, CODES, codes.scale, codes.zero, shape)
        return taken if isinstance(value, Codes) else dequantized(taken)
    if isinstance(value, Codes):
        raise Unsupported("averages codes")
    padded = any(window.padding)
    if not padded and window.size == codes.shape[1:]:
        return _over_all_pixels(codes, tensor)
    if padded and node.attribute("count_include_pad", 0) and window.padding != tuple(node.attribute("pads", [])):
        raise Unsupported("windows beyond the padding, which count as inside")

    def make(rounding: Rounding, step: np.float32) -> Operation:
        scaled = replace(rounding, scale=np.array([step]), bias=np.array([rounding.zero], np.float32), zero=0)
        counted = padded and bool(node.attribute("count_include_pad", 0))
        return WindowAverage((k_h, k_w), codes.scale, scaled, window.stride, window.padding, codes.zero, counted)

    return fixed(make, (tensor,), shape)


def global_pool(node: Node, steps: Steps) -> Value:
    """GlobalAveragePool, or ReduceMean over pixels."""
    codes = codes_of(node.input(0))
    flat = False
    if node.kind == "ReduceMean":
        axes = node.constant(1, "axes")
        axes = np.asarray(node.attribute("axes", []) if axes is None else axes)
        if sorted(int(a) % 4 for a in axes) != [2, 3] or codes.flat:
            raise Unsupported("a mean over other axes than height and width")
        flat = not node.attribute("keepdims", 1)
    if codes.flat:
        raise Unsupported("a pool of other than images")
    return replace(_over_all_pixels(codes, steps.tensor(node.name, codes)), flat=flat)


def _over_all_pixels(codes: Codes, tensor: int) -> Sums:
    c, h, w = codes.shape
    scale, offset = np.array([codes.scale / np.float32(h * w)]), np.array([-codes.zero * h * w])
    return Sums(lambda rounding, _: AveragePool(rounding), (tensor,), scale, offset, np.zeros(1), (c, 1, 1))
