"""Weights as integers of chosen widths: rounded to nearest with scales of least error, or learned and handed in.

Codes of up to four bits are stored two to a byte (ONNX INT4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from latency.device import environment
from quant_search.formats.granularity import PER_TENSOR, Granularity, extremes, per_channel, split
from quant_search.formats.integer import Integer
from quant_search.formats.number import Scales, finite
from quant_search.layers import layers_of, values_of

SCALES = ("mse", "max")
SHRUNK = np.linspace(1, 0.1, 46)  # of the scale that covers all; two-bit codes of bell-shaped weights want about 0.3


@dataclass(frozen=True, eq=False)
class WeightCodes:
    """The weight of one layer in integers.

    Args:
        values: codes int8 in the shape of the weight.
        scale: (out channels,) float32, or () for the whole weight.
        format: symmetric and signed; says which codes there are and how many bits each takes.

    Raises:
        ValueError: codes that the format does not have, scales that are not positive, or an affine format.
    """

    values: np.ndarray
    scale: np.ndarray
    format: Integer = field(default_factory=lambda: Integer(8))

    def __post_init__(self) -> None:
        check_weight_format(self.format)
        if self.values.dtype != np.int8 or self.values.size == 0:
            raise ValueError(f"weight codes must be int8, got {self.values.size} of {self.values.dtype}")
        least, most = int(self.values.min()), int(self.values.max())
        if least < self.format.lowest or most > self.format.highest:
            ends = f"{self.format.lowest}..{self.format.highest}"
            raise ValueError(f"codes of {self.format} lie in {ends}, got {least}..{most}")
        if not (np.isfinite(self.scale) & (self.scale > 0)).all():
            raise ValueError("scales of weight codes must be positive and finite")

    @property
    def packed(self) -> bool:
        """Whether two codes go into a byte."""
        return self.format.bits <= 4

    def equals(self, other: WeightCodes) -> bool:
        """Whether both stand for the same weight in the same codes."""
        same = np.array_equal(self.values, other.values) and np.array_equal(self.scale, other.scale)
        return self is other or (same and self.format == other.format)

    def weight(self, axis: int) -> np.ndarray:
        """What the codes stand for, float32; `axis` is that of the output channels."""
        granularity = per_channel(axis) if self.scale.ndim else PER_TENSOR
        return self.format.values(self.values, Scales(self.scale, np.zeros(self.scale.shape, np.int8)), granularity)


def check_weight_format(number: Integer) -> None:
    """Refuses formats that int8 kernels cannot multiply with.

    Raises:
        ValueError: other than 2 to 8 bits, symmetric and signed.
    """
    if not (number.symmetric and number.signed and number.bits <= 8):
        raise ValueError(f"weights are symmetric signed integers of 2 to 8 bits (int8, int4), got {number}")


def weight_bits() -> int:
    """Bits of weights that are exact on this machine: 7 on x86 without VNNI, whose products of bytes saturate.

    There two products of a byte each are added in 16 bits (`vpmaddubsw`), which eight-bit weights overflow.
    """
    here = environment()
    vnni = {"avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8"}
    return 7 if here.machine in ("x86_64", "AMD64") and vnni.isdisjoint(here.isa) else 8


def weight_format(bits: int) -> Integer:
    """The format of weights of so many bits on this machine; see `weight_bits`.

    Raises:
        ValueError: other than 2 to 8 bits.
    """
    number = Integer(bits, reduced=bits == 8 and weight_bits() == 7)
    check_weight_format(number)
    return number


def scales_of_least_error(weight: np.ndarray, number: Integer, granularity: Granularity) -> np.ndarray:
    """Scales with the least sum of squared rounding errors among those of 0.1 to 1 of the range; shape `scale_shape`.

    Raises:
        ValueError: weights that are not finite.
    """
    covering = number.covering(*finite(*extremes(weight, granularity))).scale
    blocks, layout = split(weight, granularity)
    zero = np.zeros((), number.dtype)
    best, least = covering.copy(), np.full(covering.shape, np.inf)
    for share in SHRUNK:
        scale = (covering * share).astype(np.float32)
        shaped = scale.reshape(layout.broadcast)
        error = number.decode(number.encode(blocks, shaped, zero), shaped, zero) - blocks
        found = np.square(error, out=error).sum(layout.shared, dtype=np.float64).reshape(covering.shape)
        best, least = np.where(found < least, scale, best), np.minimum(found, least)
    return best


def rounded(
    model: onnx.ModelProto, bits: Mapping[str, int], scales: str = "mse", channels: bool = True
) -> dict[str, WeightCodes]:
    """Layer name to its weight rounded to nearest in so many bits; names without a constant weight are left out.

    Args:
        bits: node name to 2..8.
        scales: `mse` for those of least squared error, `max` for those that cover every value.
        channels: a scale for each output channel; one for the whole weight otherwise.

    Raises:
        ValueError: another number of bits or kind of scales, or weights that are not finite.
    """
    if scales not in SCALES:
        raise ValueError(f"unknown scales {scales!r}: there are {', '.join(SCALES)}")
    formats = {name: weight_format(count) for name, count in bits.items()}
    values, found = values_of(model), dict[str, WeightCodes]()
    made: dict[tuple[str, Integer, int], WeightCodes] = {}  # layers may share a weight
    for layer in layers_of(model, bits):
        number, weight = formats[layer.name], values[layer.weight]
        key = (layer.weight, number, layer.out_axis)
        if key in made:
            found[layer.name] = made[key]
            continue
        granularity = per_channel(layer.out_axis) if channels else PER_TENSOR
        by_range = number.scales(weight, granularity).scale
        scale = by_range if scales == "max" else scales_of_least_error(weight, number, granularity)
        codes = number.codes(weight, Scales(scale, np.zeros(scale.shape, np.int8)), granularity)
        found[layer.name] = made[key] = WeightCodes(codes, scale, number)
    return found


def packed_tensor(codes: np.ndarray, name: str) -> TensorProto:
    """Codes int8 of -8..7 as an ONNX INT4 tensor: two to a byte, the first in the lower half."""
    flat = codes.reshape(-1).astype(np.uint8) & 0xF
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return TensorProto(
        name=name, data_type=TensorProto.INT4, dims=codes.shape, raw_data=(flat[::2] | flat[1::2] << 4).tobytes()
    )
