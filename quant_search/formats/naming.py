"""Names of number formats: what is written in policies, on the command line and in reports, read back into values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from quant_search.formats.block_scaled import BlockScaled, PowerOfTwo
from quant_search.formats.catalog import FORMATS
from quant_search.formats.integer import Integer
from quant_search.formats.minifloat import Minifloat, usual_top
from quant_search.formats.number import Format

_INTEGER = re.compile(r"(u?)int(\d+)(-symmetric|-affine)?(-reduced)?")
_MINIFLOAT = re.compile(r"e(\d+)m(\d+)(?:-(ieee|nan|finite))?(-unscaled)?")
_BLOCKS = re.compile(r"(.+)x(\d+)-([^x]+)")
_BLOCK_FLOATING_POINT = re.compile(r"bfp(\d+)")
_POWER = re.compile(r"e(\d+)m0")


def parse_format(name: str) -> Format:
    """The format called `name`: a name of `FORMATS`, or of any other value, as `Format.name` writes it.

    `int4`, `uint8-symmetric`, `e3m4`, `e4m3-ieee`, `bfp5`, `int4x64-e8m0` (element, block size, scale).

    Raises:
        ValueError: an unknown name, or a format that there cannot be.
    """
    if (known := FORMATS.get(name)) is not None:
        return known
    if (single := _element(name)) is not None:
        return single
    if (block := _BLOCK_FLOATING_POINT.fullmatch(name)) is not None:
        return BlockScaled(Integer(int(block[1])), 16)
    if (parts := _BLOCKS.fullmatch(name)) is not None:
        element, scale = _element(parts[1]), _scale(parts[3])
        if element is not None and scale is not None:
            return BlockScaled(element, int(parts[2]), scale)
    raise ValueError(f"unknown number format {name!r}{suggestion(name, FORMATS)}; there are {', '.join(FORMATS)}")


def suggestion(got: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _element(name: str) -> Integer | Minifloat | None:
    if found := _INTEGER.fullmatch(name):
        signed = not found[1]
        symmetric = signed if found[3] is None else found[3] == "-symmetric"
        return Integer(int(found[2]), symmetric, signed, found[4] is not None)
    if found := _MINIFLOAT.fullmatch(name):
        exponent, mantissa = int(found[1]), int(found[2])
        return Minifloat(exponent, mantissa, found[3] or usual_top(exponent, mantissa), found[4] is None)
    return None


def _scale(name: str) -> PowerOfTwo | Minifloat | None:
    if found := _POWER.fullmatch(name):
        return PowerOfTwo(int(found[1]))
    scale = _element(name)
    return scale if isinstance(scale, Minifloat) else None
