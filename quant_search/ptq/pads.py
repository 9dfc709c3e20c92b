"""Pads of zeros become the pads of the convolution that reads them.

A Pad has no int8 kernel in ONNX Runtime on CPU: left where it is, it costs a conversion to float32 and one back.  Other
frameworks write one before each convolution of stride 2 whose padding is not the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quant_search.layers import attributes_of


def fold_pads(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with equal outputs without the Pads of zeros that convolutions alone read."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {t.name: t for t in graph.initializer}
    ends = {value.name for value in graph.output}
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        readers = [node for node in graph.node if pad.output[0] in node.input]
        sides = _sides(pad, constants)
        if sides is None or pad.output[0] in ends or not all(_takes(n, pad.output[0], len(sides)) for n in readers):
            continue
        for node in readers:
            _add(node, sides)
            node.input[0] = pad.input[0]
        graph.node.remove(pad)
    return result


def _sides(pad: NodeProto, constants: Mapping[str, TensorProto]) -> list[int] | None:
    """Zeros before each spatial axis and then behind each, as a Conv has them; None where that is not all it adds."""
    names = [*pad.input, "", ""]
    mode = attributes_of(pad).get("mode", b"constant")
    if mode not in (b"constant", "constant") or names[1] not in constants or any(names[3:]):
        return None
    if names[2] and (names[2] not in constants or numpy_helper.to_array(constants[names[2]]).any()):
        return None
    pads = numpy_helper.to_array(constants[names[1]]).astype(int)
    before, behind = np.split(pads, 2)
    if len(before) < 3 or before[:2].any() or behind[:2].any() or (pads < 0).any():
        return None
    return [*before[2:].tolist(), *behind[2:].tolist()]


def _takes(node: NodeProto, tensor: str, sides: int) -> bool:
    """Whether a node is a convolution of that tensor with pads of its own that are written out."""
    settings = attributes_of(node)
    plain = settings.get("auto_pad", b"NOTSET") in (b"NOTSET", "NOTSET")
    own = len(settings.get("pads", ())) in (0, sides)
    return node.op_type == "Conv" and list(node.input).count(tensor) == 1 and node.input[0] == tensor and plain and own


def _add(node: NodeProto, sides: list[int]) -> None:
    own = attributes_of(node).get("pads", [0] * len(sides))
    kept = [a for a in node.attribute if a.name != "pads"]
    total = [a + b for a, b in zip(own, sides, strict=True)]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", total)])
