"""Activation functions of a QDQ graph: ends of a rounding, or a value for each of 256 codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latency.kernels.intake_node import Node
from latency.kernels.intake_steps import Steps
from latency.kernels.intake_values import Constant, Joined, Sums, Unsupported, Value, Values


def cut(node: Node, steps: Steps) -> Value:
    """Relu or Clip: the ends of a rounding that follows, or values of codes."""
    value = node.input(0)
    if not isinstance(value, Sums):
        return elementwise(node, steps)
    if node.kind == "Relu":
        return value.between(0.0, np.inf)
    low, high = (_end(node, i, name) for i, name in ((1, "min"), (2, "max")))
    return value.between(-np.inf if low is None else low, np.inf if high is None else high)


def _end(node: Node, i: int, name: str) -> float | None:
    found = node.constant(i, name)
    return node.attribute(name, None) if found is None else float(found.reshape(-1)[0])


def elementwise(node: Node, _steps: Steps) -> Value:
    """A function of single values, of which each comes from one code: 256 of them."""
    values = [value for value in node.inputs if isinstance(value, Values)]
    if any(isinstance(value, (Sums, Joined)) for value in node.inputs):
        raise Unsupported("reads values that were not rounded to codes by a QuantizeLinear")
    if not values or len({value.tensor for value in values}) > 1:
        raise Unsupported("joins values of several tensors")
    if any(isinstance(value, Constant) and value.values.size != 1 for value in node.inputs):
        raise Unsupported("a constant of several values")
    arrays = [None if value is None else _array(value) for value in node.inputs]
    return replace(values[0], values=node.evaluate(arrays).astype(np.float32), codes=None)


def _array(value: Value) -> np.ndarray:
    if isinstance(value, Values):
        return value.values
    if isinstance(value, Constant):
        return value.values.reshape(())
    raise Unsupported("computes in fp32: its input is not quantized")
