"""A network with each group of its nodes in the precision chosen for it, as an ONNX model in QDQ form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.layers import Layer, layers, layers_of, with_values
from quant_search.onnx_qdq import quantize
from quant_search.precision import FP32, INT8, parse_precision
from quant_search.ranges import activation_ranges
from quant_search.weight_codes import WeightCodes, rounded
from quant_search.weight_only import stored


def nodes_in_int8(groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> list[str]:
    """The nodes of the groups whose activations are quantized by the precision chosen for them.

    Raises:
        ValueError: an unknown precision.
    """
    named = [group for group, option in chosen.items() if parse_precision(option).activation_bits]
    return [name for group in named for name in groups[group]]


def in_int8(model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], images: np.ndarray) -> onnx.ModelProto:
    """The network with all of its groups in int8.

    Args:
        images: (n, c, h, w) float32 that ranges are taken from.

    Raises:
        ValueError: as of `in_precisions`.
    """
    chosen = dict.fromkeys(groups, "int8")
    return in_precisions(model, groups, chosen, activation_ranges(model, images, nodes=nodes_in_int8(groups, chosen)))


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
        pack: store weights as they are counted: those of weights alone as codes, and codes of up to four bits as INT4,
            two to a byte.  Kernels, outputs and time stay the same.

    Raises:
        ValueError: an unknown precision, several for nodes that share a weight, or as `quantize`.
    """
    _check_shared(model, groups, chosen)
    codes = codes_of(model, groups, chosen) if codes is None else codes
    rest = [group for group, option in chosen.items() if parse_precision(option).activation_bits is None]
    alone = {name: codes[name] for group in rest for name in groups[group] if name in codes}
    if alone and pack:
        model = stored(model, alone)
    elif alone:
        found = layers_of(model, alone)
        model = with_values(model, {layer.weight: codes[layer.name].weight(layer.out_axis) for layer in found})
    return quantize(model, nodes_in_int8(groups, chosen), ranges, codes, pack)


def _check_shared(model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> None:
    """Refuses several precisions for nodes that share a weight, which a file holds once.

    In eight bits or in fp32 it may be read by both: it is the same but for the least of roundings.
    """
    option = {name: precision for group, precision in chosen.items() for name in groups[group]}
    if {parse_precision(precision) for precision in option.values()} <= {FP32, INT8}:
        return
    first: dict[str, Layer] = {}
    for layer in layers(model):
        other = first.setdefault(layer.weight, layer)
        names = option.get(other.name, "fp32"), option.get(layer.name, "fp32")
        kinds = {parse_precision(name) for name in names}
        if len(kinds) > 1 and kinds != {FP32, INT8}:
            raise ValueError(
                f"nodes {other.name!r} and {layer.name!r} share the weight {layer.weight!r}, got {names[0]} and "
                f"{names[1]}: give both the same precision"
            )
