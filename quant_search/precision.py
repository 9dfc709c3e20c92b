"""Precisions by name, and a network with each group of its nodes in one of them as an ONNX file in QDQ form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.formats import Granularity, Integer
from quant_search.marks import mark
from quant_search.onnx_qdq import quantize

_BITS = range(2, 9)  # of weights
_NAME = re.compile(r"w(\d+)(?:a(\d+))?")


@dataclass(frozen=True)
class Precision:
    """Bits of a group's weights and activations; None is float32.

    Weights are symmetric integers with a scale for each output channel, activations affine integers with one scale.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None


def parse_precision(name: str) -> Precision:
    """The precision called `fp32`, `int8`, `w4a8` (weights of 2 to 8 bits) or `w4` (activations in fp32).

    Raises:
        ValueError: another name, or bits that no file has: activations are of 8 bits.
    """
    if name in ("fp32", "int8"):
        return Precision() if name == "fp32" else Precision(8, 8)
    match = _NAME.fullmatch(name)
    bits = [int(part) for part in match.groups() if part] if match else []
    if not bits or bits[0] not in _BITS or bits[1:] not in ([], [8]):
        raise ValueError(
            f"unknown precision {name!r}: there are fp32, int8, w2a8 to w8a8, and w2 to w8 for weights alone"
        )
    return Precision(bits[0], bits[1] if bits[1:] else None)


def weights_of(model: onnx.ModelProto, nodes: Sequence[str]) -> dict[str, int | None]:
    """The weights that the named nodes read in int8, to the axis of their channels, None for one scale of all."""
    return {name: constant.axis for name, constant in mark(model, nodes).constants.items() if constant.weight}


def nodes_in_int8(groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> list[str]:
    """The nodes of the groups whose activations are quantized by the precision chosen for them.

    Raises:
        ValueError: an unknown precision.
    """
    named = [group for group, option in chosen.items() if parse_precision(option).activation_bits]
    return [name for group in named for name in groups[group]]


def rounded(values: np.ndarray, axis: int | None, bits: int) -> np.ndarray:
    """Weights float32 rounded to symmetric integers with a scale for each index along `axis`, in their own units."""
    return Integer(bits).round_trip(values, Granularity(axis))


def in_precisions(
    model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str], ranges: TensorsData
) -> onnx.ModelProto:
    """A copy of `model` in which groups of nodes compute in the precision chosen for them, all others in fp32.

    Args:
        ranges: of the activations that groups with 8-bit activations read and write.

    Raises:
        ValueError: an unknown precision, or an activation without a range.
    """
    precisions = {group: parse_precision(name) for group, name in chosen.items()}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    values = {tensor.name: tensor for tensor in result.graph.initializer}
    for group, precision in precisions.items():
        # Eight bits are left to the writer, where activations are quantized too.
        if precision.weight_bits and precision != Precision(8, 8):
            for name, axis in weights_of(model, groups[group]).items():
                less = rounded(numpy_helper.to_array(values[name]), axis, precision.weight_bits)
                values[name].CopyFrom(numpy_helper.from_array(less, name))
    return quantize(result, nodes_in_int8(groups, chosen), ranges)
