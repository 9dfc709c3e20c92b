"""Block-scaled formats against the formulas of their specifications, written out block by block."""

import ml_dtypes
import numpy as np
import pytest

from quant_search.formats import BlockScaled, Integer, PowerOfTwo, parse_format, per_channel, per_group

MX = {
    "mxfp8": (ml_dtypes.float8_e4m3fn, 8, 448),
    "mxfp8-e5m2": (ml_dtypes.float8_e5m2, 15, 57344),
    "mxfp6": (ml_dtypes.float6_e2m3fn, 2, 7.5),
    "mxfp6-e3m2": (ml_dtypes.float6_e3m2fn, 4, 28),
    "mxfp4": (ml_dtypes.float4_e2m1fn, 2, 6),
}


def values(seed=0, shape=(12, 96)):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp(3 * rng.standard_normal((shape[0], 1)))).astype(np.float32)


@pytest.mark.parametrize("name", MX)
def test_mx_is_algorithm_1_of_the_paper(name):
    kind, emax, largest = MX[name]
    x = values()
    blocks = x.reshape(12, 3, 32)
    scale = 2.0 ** (np.floor(np.log2(np.abs(blocks).max(axis=2, keepdims=True))) - emax)
    expected = np.clip(blocks / scale, -largest, largest).astype(kind).astype(np.float32) * scale
    np.testing.assert_array_equal(parse_format(name).round_trip(x), expected.reshape(x.shape))
    stored = scale.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)  # the scales fit into their eight bits
    np.testing.assert_array_equal(parse_format(name).scales(x).scale, stored[..., 0])


@pytest.mark.parametrize(("name", "bits", "size"), [("mxint8", 8, 32), ("bfp6", 6, 16), ("bfp4", 4, 16)])
def test_block_floating_point_shares_the_exponent_of_the_largest(name, bits, size):
    x = values()
    blocks = x.reshape(12, -1, size)
    step = 2.0 ** (np.floor(np.log2(np.abs(blocks).max(axis=2, keepdims=True))) - (bits - 2))
    mantissas = np.clip(np.round(blocks / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    np.testing.assert_array_equal(parse_format(name).round_trip(x), (mantissas * step).reshape(x.shape))


def test_nvfp4_has_two_levels_of_scales():
    x, number = values(), parse_format("nvfp4")
    blocks = x.reshape(12, 6, 16)
    tensor = np.float32(np.abs(x).max() / (6 * 448))
    narrow = (np.abs(blocks).max(axis=2) / 6 / tensor).astype(ml_dtypes.float8_e4m3fn)
    narrow = np.maximum(narrow.astype(np.float32), np.float32(2.0**-9))
    scale = narrow * tensor
    elements = np.clip(blocks / scale[..., None], -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(number.scales(x).scale, scale)
    np.testing.assert_array_equal(number.round_trip(x), (elements * scale[..., None]).reshape(x.shape))
    ours = number.two_levels(np.abs(blocks).max(axis=2))
    np.testing.assert_array_equal(ours[0], narrow)
    assert ours[1] == tensor


def test_a_block_much_smaller_than_the_largest_keeps_something():
    x = np.zeros((3, 16), np.float32)
    x[0, 0], x[1] = 1.0, 1e-6  # 1e-6 / 6 is below half the smallest scale of a tensor whose largest value is 1
    rounded = parse_format("nvfp4").round_trip(x)
    assert (np.abs(rounded[1] - 1e-6) < 5e-7).all() and rounded[0, 0] == 1 and not rounded[2].any()


def test_blocks_lie_along_the_axis_given():
    x = values(shape=(64, 10))
    number = parse_format("mxfp4")
    along = number.round_trip(x, per_group(0, 32))
    np.testing.assert_array_equal(along, number.round_trip(x.T.copy()).T)
    assert number.scales(x, per_group(0, 32)).scale.shape == (2, 10)
    assert number.scales(x).scale.shape == (64, 1)  # ten values in a block that is not full


def test_scales_stay_within_their_bits():
    tiny, huge = np.full(32, 1e-44, np.float32), np.full(32, 2.0**127, np.float32)
    assert parse_format("mxfp8").scales(tiny).scale.item() == 2.0**-127
    assert parse_format("mxfp8").scales(huge).scale.item() == 2.0**119
    narrow = BlockScaled(Integer(4), 8, PowerOfTwo(3))
    assert narrow.scales(huge[:8]).scale.item() == 8 and narrow.scales(tiny[:8]).scale.item() == 0.125


def test_bits_per_value_count_the_scales():
    shape = (64, 128)
    per_value = {
        n: parse_format(n).storage_bits(shape) / (64 * 128) for n in ("mxfp8", "mxfp6", "mxfp4", "nvfp4", "bfp4")
    }
    assert per_value == {"mxfp8": 8.25, "mxfp6": 6.25, "mxfp4": 4.25, "nvfp4": 4.5 + 32 / (64 * 128), "bfp4": 4.5}


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"mxfp4 has a scale for each 32 values .* give group:AXIS:32, got 'channel:0'"
    ):
        parse_format("mxfp4").round_trip(values(), per_channel())
    with pytest.raises(ValueError, match="a block has at least 1 value, got 0"):
        BlockScaled(Integer(8), 0)
    for element in (
        Integer(8, symmetric=False),
        Integer(8, signed=False),
        Integer(8, reduced=True),
        parse_format("fp16"),
    ):
        with pytest.raises(ValueError, match=f"symmetric, signed and scaled, got {element.name}"):
            BlockScaled(element, 32)
    with pytest.raises(ValueError, match="a number of few bits, got fp16"):
        BlockScaled(Integer(8), 32, parse_format("fp16"))
    with pytest.raises(ValueError, match="2 to 8 bits, got 9"):
        PowerOfTwo(9)
    with pytest.raises(TypeError, match="mxfp4 has one level of scales"):
        parse_format("mxfp4").two_levels(np.ones(1))
    with pytest.raises(ValueError, match="must be finite"):
        parse_format("nvfp4").scales(np.full(16, np.nan))
