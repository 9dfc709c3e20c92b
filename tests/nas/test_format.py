import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.config import parse_quantity
from nas.format import amount, count, duration, interval, percent

LAW = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00123, "1.23 ms"),
        (1.0, "1 s"),
        (9.997e-4, "1 ms"),
        (9.994e-4, "999 µs"),
        (0.9999, "1 s"),
        (2.34e-5, "23.4 µs"),
        (1e-9, "1 ns"),
        (4e-12, "0.004 ns"),
        (999.6, "1000 s"),
        (86_400.0, "86400 s"),
        (1e9, "1000000000 s"),
        (0, "0 s"),
        (0.0, "0 s"),
        (-0.00123, "-1.23 ms"),
        (-9.997e-4, "-1 ms"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (12_345_678, "", "12.3 M"),
        (12_345_678, "B", "12.3 MB"),
        (999_999, "B", "1 MB"),
        (999.7, "", "1 k"),
        (999, "B", "999 B"),
        (0, "B", "0 B"),
        (0, "", "0"),
        (0.25, "", "0.25"),
        (-4200, "B", "-4.2 kB"),
        (7.5e15, "", "7500 T"),
    ],
)
def test_amounts(number, unit, text):
    assert amount(number, unit) == text


def test_intervals_have_the_unit_of_their_upper_end():
    assert interval(0.00121, 0.00127) == "1.21–1.27 ms"
    assert interval(9.5e-4, 9.998e-4) == "0.95–1 ms"
    assert interval(0.0, 0.0) == "0–0 s"


def test_shares():
    assert (percent(0.9731), percent(1), percent(0.5, 0)) == ("97.3 %", "100.0 %", "50 %")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999_999, "999,999"),
        (1_000_000, "1.0·10^6"),
        (9_949_999, "9.9·10^6"),
        (9_960_000, "1.0·10^7"),
        (13 * 10**400, "1.3·10^401"),
    ],
)
def test_counts(number, text):
    assert count(number) == text


@LAW
@given(st.floats(1e-9, 1e4))
def test_durations_are_read_back_within_their_three_digits(seconds):
    assert "e" not in duration(seconds)
    assert parse_quantity(duration(seconds), "s") == pytest.approx(seconds, rel=0.0051)


@LAW
@given(st.floats(1, 1e15), st.sampled_from(["", "B"]))
def test_amounts_are_read_back_within_their_three_digits(number, unit):
    assert "e" not in amount(number, unit)
    assert parse_quantity(amount(number, unit), unit) == pytest.approx(number, rel=0.0051)
