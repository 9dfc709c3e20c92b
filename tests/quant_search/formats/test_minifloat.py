"""Minifloats against ml_dtypes, NumPy's float16, and the numbers in the OCP specifications."""

import ml_dtypes
import numpy as np
import pytest

from quant_search.formats import Minifloat, parse_format, per_channel
from quant_search.formats.minifloat import power_below

THEIRS = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m4-ieee": ml_dtypes.float8_e3m4,
    "e4m3-ieee": ml_dtypes.float8_e4m3,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e5m10": np.float16,
    "e8m7": ml_dtypes.bfloat16,
}


def unscaled(name):
    number = parse_format(f"{name}-unscaled")
    return number, number.scales(np.zeros(1, np.float32))


def codes_of(number):
    return np.arange(2**number.bits).astype(number.dtype)


@pytest.mark.parametrize("name", THEIRS)
def test_every_code_means_what_it_means_elsewhere(name):
    number, _ = unscaled(name)
    codes = codes_of(number)
    np.testing.assert_array_equal(number.numbers(codes), codes.view(THEIRS[name]).astype(np.float32))
    limits = ml_dtypes.finfo(THEIRS[name])
    assert (number.largest, number.smallest) == (float(limits.max), float(limits.smallest_subnormal))


@pytest.mark.parametrize("name", THEIRS)
def test_values_are_rounded_as_elsewhere(name):
    number, one = unscaled(name)
    numbers = number.numbers(codes_of(number))
    numbers = np.unique(numbers[np.isfinite(numbers)]).astype(np.float64)
    ties = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, 2**32, 2**16, dtype=np.uint32).view(np.float32)
    near = (rng.standard_normal(2**16) * min(number.largest, 1e30) / 3).astype(np.float32)
    sides = [np.nextafter(ties, np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.concatenate([numbers.astype(np.float32), ties, *sides, near, anywhere[np.isfinite(anywhere)], [-0.0]])
    values = np.clip(values, -number.largest, number.largest).astype(np.float32)  # theirs do not saturate
    theirs = values.astype(THEIRS[name])
    codes = number.codes(values, one)
    np.testing.assert_array_equal(codes, theirs.view(number.dtype))
    np.testing.assert_array_equal(number.values(codes, one), theirs.astype(np.float32))


def test_numbers_of_the_specifications():
    largest = {"e4m3": 448, "e5m2": 57344, "e3m2": 28, "e2m3": 7.5, "e2m1": 6, "fp16": 65504}
    smallest = {"e4m3": 2**-9, "e5m2": 2**-16, "e3m2": 0.0625, "e2m3": 0.125, "e2m1": 0.5}
    assert {name: parse_format(name).largest for name in largest} == largest
    assert {name: parse_format(name).smallest for name in smallest} == smallest


def test_what_is_too_large_saturates():
    number, one = unscaled("e4m3")
    values = np.array([449, 464, 480, 1e30, np.inf, -np.inf], np.float32)
    assert number.values(number.codes(values, one), one).tolist() == [448] * 5 + [-448]


def test_fp32_is_exact_down_to_the_smallest_number():
    number = parse_format("fp32")
    values = np.array([1e-45, -1.4e-42, np.pi, 1.7e38, -0.0], np.float32)
    assert number.round_trip(values).tobytes() == values.tobytes()
    np.testing.assert_array_equal(number.codes(values, number.scales(values)), values.view(np.uint32))


def test_the_largest_value_gets_the_largest_number():
    number = parse_format("e4m3")
    values = np.array([[1, -2, 3], [0, 0, 0]], np.float32)
    scales = number.scales(values, per_channel())
    np.testing.assert_array_equal(scales.scale, np.float32([3 / 448, 1]))
    assert number.numbers(number.codes(values, scales, per_channel()))[0, 2] == 448


def test_powers_below():
    values = np.array([0, 1e-40, 2.0**-126, 0.99, 1, 3.9, 2.0**127], np.float32)
    assert power_below(values).tolist() == [0, 0, 2.0**-126, 0.5, 1, 2, 2.0**127]


def test_formats_without_scales_store_none():
    assert parse_format("fp16").storage_bits((3, 5)) == 15 * 16
    assert parse_format("e4m3").storage_bits((3, 5), per_channel()) == 15 * 8 + 3 * 32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((9, 2), "1 to 8 exponent and 0 to 23 mantissa bits, got 9 and 2"),
        ((0, 2), "got 0 and 2"),
        ((4, 24), "got 4 and 24"),
        ((4, 3, "inf"), "holds ieee, nan, finite, got 'inf'"),
        ((1, 2, "ieee"), "e1m2 has no room for ieee"),
        ((4, 0, "nan"), "e4m0 has no room for nan"),
        ((8, 3, "finite"), "exceeds float32"),
    ],
)
def test_formats_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Minifloat(*arguments)
