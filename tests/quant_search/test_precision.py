import pytest

from quant_search.precision import Precision, bit_operations, is_precision, kind_of, parse_precision


def test_precisions_by_name():
    assert parse_precision("fp32") == Precision() and parse_precision("int8") == Precision(8, 8)
    assert parse_precision("w4a8") == Precision(4, 8) and parse_precision("w2") == Precision(2)
    for name in ("int4", "w1a8", "w9", "w4a4", "a8", "w4a8x", "w04a8", ""):
        with pytest.raises(ValueError, match="unknown precision"):
            parse_precision(name)


def test_a_precision_has_one_name():
    names = ("fp32", "int8", *(f"w{bits}a8" for bits in range(2, 9)), *(f"w{bits}" for bits in range(2, 9)))
    values = [parse_precision(name) for name in names if is_precision(name)]
    assert len(set(values)) == len(values) == 15
    with pytest.raises(ValueError, match="'w8a8': weights and activations of 8 bits are called int8"):
        parse_precision("w8a8")


def test_what_is_no_precision():
    assert is_precision("w4a8") and not any(map(is_precision, ("int4", "", 8, None)))


def test_kernels_go_by_activations():
    assert [kind_of(name) for name in ("fp32", "int8", "w4a8", "w4")] == ["fp32", "int8", "int8", "fp32"]


def test_bit_operations_multiply_the_bits_of_weight_and_activation():
    found = {name: bit_operations(name) for name in ("fp32", "int8", "w4a8", "w4")}
    assert found == {"fp32": 1024, "int8": 64, "w4a8": 32, "w4": 128}
