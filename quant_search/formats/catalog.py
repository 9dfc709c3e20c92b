"""Number formats by name."""

from __future__ import annotations

from quant_search.formats.block_scaled import BlockScaled
from quant_search.formats.integer import Integer
from quant_search.formats.minifloat import Minifloat
from quant_search.formats.number import Format

FORMATS: dict[str, Format] = {
    "int2": Integer(2),
    "int3": Integer(3),
    "int4": Integer(4),
    "int5": Integer(5),
    "int6": Integer(6),
    "int7": Integer(7),
    "int8": Integer(8),
    "int8-reduced": Integer(8, reduced=True),
    "int8-affine": Integer(8, symmetric=False),
    "int16": Integer(16),
    "int32": Integer(32),
    "uint2": Integer(2, symmetric=False, signed=False),
    "uint4": Integer(4, symmetric=False, signed=False),
    "uint8": Integer(8, symmetric=False, signed=False),
    "uint8-reduced": Integer(8, symmetric=False, signed=False, reduced=True),
    "uint8-symmetric": Integer(8, symmetric=True, signed=False),
    "uint16": Integer(16, symmetric=False, signed=False),
    "e4m3": Minifloat(4, 3, "nan"),
    "e5m2": Minifloat(5, 2, "ieee"),
    "e3m2": Minifloat(3, 2, "finite"),
    "e2m3": Minifloat(2, 3, "finite"),
    "e2m1": Minifloat(2, 1, "finite"),
    "fp16": Minifloat(5, 10, "ieee", scaled=False),
    "bf16": Minifloat(8, 7, "ieee", scaled=False),
    "fp32": Minifloat(8, 23, "ieee", scaled=False),
    "mxfp8": BlockScaled(Minifloat(4, 3, "nan"), 32),
    "mxfp8-e5m2": BlockScaled(Minifloat(5, 2, "ieee"), 32),
    "mxfp6": BlockScaled(Minifloat(2, 3, "finite"), 32),
    "mxfp6-e3m2": BlockScaled(Minifloat(3, 2, "finite"), 32),
    "mxfp4": BlockScaled(Minifloat(2, 1, "finite"), 32),
    "mxint8": BlockScaled(Integer(8), 32),
    "nvfp4": BlockScaled(Minifloat(2, 1, "finite"), 16, Minifloat(4, 3, "nan")),
    "bfp8": BlockScaled(Integer(8), 16),
    "bfp6": BlockScaled(Integer(6), 16),
    "bfp4": BlockScaled(Integer(4), 16),
}
