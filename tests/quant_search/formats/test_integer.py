import numpy as np
import pytest

from quant_search.formats import Integer, Scales, per_channel

INT8, UINT8 = Integer(8), Integer(8, symmetric=False, signed=False)


def test_symmetric_codes_reach_the_largest_and_the_cut_one_more_below():
    values = np.array([-2, -1, 0, 0.5, 1], np.float32)
    scales = INT8.scales(values)
    assert scales.scale == np.float32(2 / 127) and scales.zero == 0 and scales.zero.dtype == np.int8
    assert INT8.codes(values, scales).tolist() == [-127, -64, 0, 32, 64]
    assert INT8.codes(10 * values, scales).tolist() == [-128, -128, 0, 127, 127]


@pytest.mark.parametrize(
    ("bits", "ends"), [(2, (-2, 1)), (3, (-4, 3)), (4, (-8, 7)), (7, (-64, 63)), (16, (-32768, 32767))]
)
def test_codes_have_their_bits(bits, ends):
    number = Integer(bits)
    scales = number.scales(np.array([1.0, -0.5]))
    assert scales.scale == np.float32(1 / ends[1])
    assert number.codes(np.array([-9.0, 9.0]), scales).tolist() == list(ends)


def test_affine_codes_spread_over_the_range_with_zero_in_it():
    scales = UINT8.scales(np.array([-1.0, 2.0]))
    assert scales.scale == np.float32(3 / 255) and scales.zero == 85
    assert UINT8.codes(np.array([-1, 0, 2, 9, -9], np.float32), scales).tolist() == [0, 85, 255, 255, 0]
    assert UINT8.scales(np.array([3.0, 5.0])) == (np.float32(5 / 255), 0)
    assert UINT8.scales(np.array([-3.0, -5.0])) == (np.float32(5 / 255), 255)
    signed = Integer(8, symmetric=False)
    assert signed.scales(np.array([-1.0, 2.0])).zero == 85 - 128
    assert signed.codes(np.array([-9.0, 9.0]), signed.scales(np.array([-1.0, 2.0]))).tolist() == [-128, 127]


def test_reduced_codes_use_seven_bits():
    number, activation = Integer(8, reduced=True), Integer(8, symmetric=False, signed=False, reduced=True)
    scales = number.scales(np.array([-2.0, 1.0]))
    assert scales.scale == np.float32(2 / 64)
    assert number.codes(np.array([-2, 1, 50, -50], np.float32), scales).tolist() == [-64, 32, 64, -64]
    assert activation.scales(np.array([0.0, 2.0])).scale == np.float32(2 / 127)
    assert activation.codes(np.array([9.0]), activation.scales(np.array([0.0, 2.0]))).tolist() == [127]


def test_ties_go_to_the_even_code():
    one = Scales(np.float32(1), np.int8(0))
    assert INT8.codes(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), one).tolist() == [0, 2, 2, 0, -2]


def test_what_is_too_small_for_a_scale_becomes_zero():
    for values in ([0.0, 0.0], [1e-44, -1e-45], []):
        for number in (INT8, UINT8):
            assert number.scales(np.array(values)) == (1, 0)
            assert not number.round_trip(np.array(values)).any()


def test_a_channel_without_values_has_scale_one():
    scales = INT8.scales(np.zeros((3, 0), np.float32), per_channel())
    np.testing.assert_array_equal(scales.scale, np.ones(3))


def test_thirty_two_bits_are_rounded_in_double_precision():
    number = Integer(32)
    values = np.array([16777217.5, -3e9, 3e9])  # the first is not a float32; the second and third are beyond the codes
    codes = number.encode(values, np.array(1.0), np.zeros((), np.int32))
    assert codes.dtype == np.int32 and codes.tolist() == [16777218, -(2**31), 2**31 - 1]


def test_scalars_are_rounded():
    for number in (INT8, UINT8, Integer(32)):
        assert number.round_trip(np.float32(0.5)).shape == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_values_without_a_scale_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be finite and at most 2\^127, got"):
        INT8.scales(np.array([1, bad], np.float32))


def test_formats_that_cannot_be_are_refused():
    for bits in (0, 1, 9, 64):
        with pytest.raises(ValueError, match=f"2 to 8, 16 or 32 bits, got {bits}"):
            Integer(bits)
    with pytest.raises(ValueError, match="reduced codes use seven of eight bits, got 4"):
        Integer(4, reduced=True)
    assert Integer(4, signed=False).name == "uint4-symmetric"


def test_storage_counts_scales_and_zero_points():
    assert INT8.storage_bits((10, 10), per_channel()) == 800 + 10 * 32
    assert Integer(4, symmetric=False).storage_bits((10, 10)) == 400 + 32 + 4
