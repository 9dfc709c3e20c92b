"""Precisions by name, and a network with each group of its nodes in one of them as an ONNX file in QDQ form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.layers import layers_of, with_values
from quant_search.onnx_qdq import quantize
from quant_search.weight_codes import WeightCodes, rounded

_BITS = range(2, 9)  # of weights
_NAME = re.compile(r"w(\d+)(?:a(\d+))?")


@dataclass(frozen=True)
class Precision:
    """Bits of a group's weights and activations; None is float32.

    Weights are symmetric integers with a scale for each output channel, activations affine integers with one scale.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None


INT8 = Precision(8, 8)


def parse_precision(name: str) -> Precision:
    """The precision called `fp32`, `int8`, `w4a8` (weights of 2 to 8 bits) or `w4` (activations in fp32).

    Raises:
        ValueError: another name, or bits that no file has: activations are of 8 bits.
    """
    if name in ("fp32", "int8"):
        return Precision() if name == "fp32" else INT8
    match = _NAME.fullmatch(name)
    bits = [int(part) for part in match.groups() if part] if match else []
    if not bits or bits[0] not in _BITS or bits[1:] not in ([], [8]):
        raise ValueError(
            f"unknown precision {name!r}: there are fp32, int8, w2a8 to w8a8, and w2 to w8 for weights alone"
        )
    return Precision(bits[0], bits[1] if bits[1:] else None)


def kind_of(name: str) -> str:
    """The precision whose kernels a precision runs in: `int8` where activations are quantized, else `fp32`.

    Raises:
        ValueError: an unknown precision.
    """
    return "int8" if parse_precision(name).activation_bits else "fp32"


def nodes_in_int8(groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> list[str]:
    """The nodes of the groups whose activations are quantized by the precision chosen for them.

    Raises:
        ValueError: an unknown precision.
    """
    named = [group for group, option in chosen.items() if parse_precision(option).activation_bits]
    return [name for group in named for name in groups[group]]


def rounded_weights(model: onnx.ModelProto, nodes: Sequence[str], bits: int) -> dict[str, WeightCodes]:
    """Name of each layer among `nodes` to its weight in so many bits.

    Scales of eight bits cover every value, as the exporter's do; those of fewer have the least squared error.

    Raises:
        ValueError: as `weight_codes.rounded`.
    """
    return rounded(model, dict.fromkeys(nodes, bits), "max" if bits == 8 else "mse")


def codes_of(
    model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]
) -> dict[str, WeightCodes]:
    """Name of each layer whose precision is not the exporter's own int8 to its weight.

    Raises:
        ValueError: an unknown precision.
    """
    codes: dict[str, WeightCodes] = {}
    for group, option in chosen.items():
        bits = parse_precision(option).weight_bits
        if bits and parse_precision(option) != INT8:
            codes |= rounded_weights(model, groups[group], bits)
    return codes


def in_precisions(
    model: onnx.ModelProto,
    groups: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str],
    ranges: TensorsData,
    codes: Mapping[str, WeightCodes] | None = None,
    pack: bool = False,
) -> onnx.ModelProto:
    """A copy of `model` in which groups of nodes compute in the precision chosen for them, all others in fp32.

    Args:
        ranges: of the activations that groups with 8-bit activations read and write.
        codes: node name to the weight it computes with; as `codes_of` rounds it unless given.
        pack: as for `quantize`.

    Raises:
        ValueError: an unknown precision, or as `quantize`.
    """
    codes = codes_of(model, groups, chosen) if codes is None else codes
    alone = [group for group, option in chosen.items() if parse_precision(option).activation_bits is None]
    layers = layers_of(model, [name for group in alone for name in groups[group] if name in codes])
    model = with_values(model, {layer.weight: codes[layer.name].weight(layer.out_axis) for layer in layers})
    return quantize(model, nodes_in_int8(groups, chosen), ranges, codes, pack)
