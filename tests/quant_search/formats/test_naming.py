import pytest

from quant_search.formats import FORMATS, BlockScaled, Integer, Minifloat, PowerOfTwo, parse_format

OTHERS = [
    Integer(5, symmetric=False),
    Integer(4, signed=False),
    Integer(8, symmetric=False, reduced=True),
    Minifloat(3, 4),
    Minifloat(4, 3, "finite"),
    Minifloat(5, 2, "nan", scaled=False),
    BlockScaled(Integer(3), 16),
    BlockScaled(Integer(4), 64),
    BlockScaled(Minifloat(4, 3, "ieee"), 8, PowerOfTwo(5)),
    BlockScaled(Minifloat(2, 1, "finite"), 16, Minifloat(5, 2, "finite")),
    BlockScaled(Integer(8), 32, Minifloat(4, 3, "nan")),
]


@pytest.mark.parametrize("number", [*FORMATS.values(), *OTHERS], ids=str)
def test_a_name_is_read_back(number):
    assert parse_format(number.name) == number


def test_one_value_has_one_name():
    assert len({number.name for number in [*FORMATS.values(), *OTHERS]}) == len(FORMATS) + len(OTHERS)
    assert parse_format("e2m1x16-e4m3") is not None and parse_format("e2m1x16-e4m3").name == "nvfp4"
    assert parse_format("int8x16-e8m0").name == "bfp8" and parse_format("e5m10-unscaled").name == "fp16"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("in8", r"unknown number format 'in8' \(did you mean 'int8'\?\); there are int2, "),
        ("nvfp", r"did you mean 'nvfp4'\?"),
        ("quarter", "unknown number format 'quarter'; there are"),
        ("int4x64", "unknown number format"),
        ("e2m1x16-int8", "unknown number format"),
        ("int9", "2 to 8, 16 or 32 bits, got 9"),
        ("e9m2", "1 to 8 exponent"),
    ],
)
def test_other_names_are_refused(name, words):
    with pytest.raises(ValueError, match=words):
        parse_format(name)
