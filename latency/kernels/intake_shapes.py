"""Nodes of a QDQ graph that move values without changing them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from latency.kernels.contract import Resize
from latency.kernels.intake_node import BATCH, Node
from latency.kernels.intake_steps import Steps, pick
from latency.kernels.intake_values import Codes, Constant, Pixels, Unsupported, Value, Values


def identity(node: Node, _steps: Steps) -> Value:
    """What gives on its input."""
    return node.input(0)


def view(node: Node, _steps: Steps) -> Value:
    """Flatten, Reshape, Squeeze and Unsqueeze between (b, c, h, w) and (b, c · h · w)."""
    value = node.input(0)
    if isinstance(value, (Constant, Pixels)):
        raise Unsupported("changes the shape of images")
    shape, rank = value.shape, 2 if value.flat else 4
    if node.kind == "Flatten":
        to = [BATCH, -1] if node.attribute("axis", 1) == 1 else []
    elif node.kind == "Reshape":
        given = node.constant(1, "shape")
        to = [] if given is None else [int(n) for n in given.reshape(-1)]
    else:
        to = _squeezed(node, shape, rank)
    of = [BATCH, math.prod(shape)] if value.flat else [BATCH, *shape]
    to = [of[i] if n == 0 and i < len(of) and not node.attribute("allowzero", 0) else n for i, n in enumerate(to)]
    if to and to[0] in (node.batch, -1) and -1 not in to[1:]:
        to[0] = BATCH
    if to[:1] == [BATCH] and to.count(-1) == 1:
        to[to.index(-1)] = math.prod(shape) // max(1, math.prod(n for n in to[1:] if n != -1))
    if to == [BATCH, math.prod(shape)]:
        return replace(value, flat=True)
    if to == [BATCH, *shape]:
        return replace(value, flat=False)
    raise Unsupported(f"a change of shape from {shape} other than to (b, features) and back")


def _squeezed(node: Node, shape: tuple[int, ...], rank: int) -> list[int]:
    given = node.constant(1, "axes")
    axes = node.attribute("axes", None) if given is None else given.reshape(-1)
    if axes is not None and node.kind == "Squeeze" and rank == 4 and shape[1:] == (1, 1):
        return [BATCH, shape[0]] if sorted(int(a) % 4 for a in axes) == [2, 3] else []
    if axes is not None and node.kind == "Unsqueeze" and rank == 2 and shape[1:] == (1, 1):
        return [BATCH, *shape] if sorted(int(a) % 4 for a in axes) == [2, 3] else []
    return []


def gather(node: Node, steps: Steps) -> Value:
    """Gather of channels, as a shuffle has it."""
    value, order = node.input(0), node.constant(1, "index")
    if not isinstance(value, (Codes, Values)) or order is None or order.ndim != 1 or node.attribute("axis", 0) != 1:
        raise Unsupported("picks other than channels")
    c, h, w = value.shape
    if value.flat and (h, w) != (1, 1):
        raise Unsupported("picks other than channels")
    operation = pick(np.where(order < 0, order + c, order).astype(np.int64), c)
    tensor = steps.add(node.name, operation, (value.tensor,), (h, w, len(order)))
    if isinstance(value, Codes):
        return replace(value, tensor=tensor, shape=(len(order), h, w))
    codes = None if value.codes is None else replace(value.codes, tensor=tensor, shape=(len(order), h, w))
    return replace(value, tensor=tensor, shape=(len(order), h, w), codes=codes)


def resize(node: Node, steps: Steps) -> Value:
    """Resize of images before they are rounded."""
    value = node.input(0)
    if not isinstance(value, Pixels):
        raise Unsupported("resizes other than the network's input")
    c, h, w = value.shape
    mode = node.attribute("mode", b"nearest"), node.attribute("coordinate_transformation_mode", b"half_pixel")
    if mode != (b"linear", b"half_pixel") or node.attribute("antialias", 0):
        raise Unsupported(f"mode {mode[0].decode()}, {mode[1].decode()}: expected linear, half_pixel, no antialias")
    sizes, scales = node.constant(3, "sizes"), node.constant(2, "scales")
    if sizes is None and scales is not None and scales.size == 4:
        sizes = np.floor(np.array([BATCH, c, h, w]) * scales)
    if sizes is None or len(sizes) != 4 or int(sizes[0]) not in (BATCH, node.batch) or int(sizes[1]) != c:
        raise Unsupported("sizes other than (b, c, height, width)")
    shape = c, int(sizes[2]), int(sizes[3])
    return Pixels(steps.add(node.name, Resize(*shape[1:]), (value.tensor,), shape), shape)


def shape_of(node: Node, _steps: Steps) -> Value:
    """Shape, in which `BATCH` stands for the number of images."""
    value = node.input(0)
    shape = getattr(value, "shape", None)
    if shape is None:
        raise Unsupported("the shape of what has none")
    sizes = [BATCH, math.prod(shape)] if getattr(value, "flat", False) else [BATCH, *shape]
    return Constant(np.array(sizes[node.attribute("start", 0) : node.attribute("end", len(sizes))], np.int64))
