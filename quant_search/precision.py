"""Precisions by name: how many bits weights and activations have, and which kernels they run in."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"w([2-8])(a8)?")


@dataclass(frozen=True)
class Precision:
    """Bits of a group's weights and activations; None is float32.

    Weights are symmetric integers with a scale for each output channel, activations affine integers with one scale.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None


FP32, INT8 = Precision(), Precision(8, 8)


def parse_precision(name: str) -> Precision:
    """The precision called `fp32`, `int8`, `w4a8` (weights of 2 to 7 bits) or `w4` (of 2 to 8, activations in fp32).

    A precision has one name, so that equal policies are equal values.

    Raises:
        ValueError: another name, or bits that no file has: activations are of 8 bits.
    """
    if name in ("fp32", "int8"):
        return FP32 if name == "fp32" else INT8
    if name == "w8a8":
        raise ValueError("unknown precision 'w8a8': weights and activations of 8 bits are called int8, give that")
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"unknown precision {name!r}: there are fp32, int8, w2a8 to w7a8, and w2 to w8 for weights alone"
        )
    return Precision(int(match[1]), 8 if match[2] else None)


def stored_bytes(name: str) -> float:
    """Bytes of a weight in a file: codes of up to four bits lie two to a byte, others take one each.

    Raises:
        ValueError: an unknown precision.
    """
    bits = parse_precision(name).weight_bits
    return 4.0 if bits is None else 0.5 if bits <= 4 else 1.0


def bit_operations(name: str) -> int:
    """Of one MAC: the bits of its weight times those of its activation, 32 for float32.

    The compute cost of Abdolrashidi et al., arXiv:2105.03536, section 3.

    Raises:
        ValueError: an unknown precision.
    """
    found = parse_precision(name)
    return (found.weight_bits or 32) * (found.activation_bits or 32)


def is_precision(name: object) -> bool:
    """Whether there is a precision of this name."""
    try:
        return isinstance(name, str) and parse_precision(name) is not None
    except ValueError:
        return False


def kind_of(name: str) -> str:
    """The precision whose kernels a precision runs in: `int8` where activations are quantized, else `fp32`.

    Raises:
        ValueError: an unknown precision.
    """
    return "int8" if parse_precision(name).activation_bits else "fp32"
