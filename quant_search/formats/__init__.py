"""Number formats: integers, floats of few bits and block-scaled numbers, as frozen values with a NumPy reference."""

from quant_search.formats.block_scaled import BlockScaled, PowerOfTwo
from quant_search.formats.catalog import FORMATS
from quant_search.formats.granularity import PER_TENSOR, Granularity, parse_granularity, per_channel, per_group
from quant_search.formats.integer import Integer
from quant_search.formats.minifloat import Minifloat
from quant_search.formats.naming import parse_format
from quant_search.formats.number import Format, Scales

__all__ = [
    "FORMATS",
    "PER_TENSOR",
    "BlockScaled",
    "Format",
    "Granularity",
    "Integer",
    "Minifloat",
    "PowerOfTwo",
    "Scales",
    "parse_format",
    "parse_granularity",
    "per_channel",
    "per_group",
]
