import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quant_search.histogram import BINS, histogram

LAW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
PARTS = st.lists(arrays(np.float32, st.integers(1, 20), elements=NUMBERS), min_size=1, max_size=4)


def same(one, other):
    assert (one.exponent, one.first, one.zeros, one.low, one.high) == (
        other.exponent, other.first, other.zeros, other.low, other.high
    )  # fmt: skip
    np.testing.assert_array_equal(one.counts, other.counts)


@LAW
@given(PARTS)
def test_parts_add_up_exactly_whatever_their_order(parts):
    whole = histogram(np.concatenate(parts))
    same(functools.reduce(operator.add, map(histogram, parts)), whole)
    same(functools.reduce(operator.add, map(histogram, parts[::-1])), whole)


@LAW
@given(PARTS)
def test_every_value_is_in_the_bin_that_holds_it(parts):
    values = np.concatenate(parts)
    seen = histogram(values)
    assert 1 <= len(seen.counts) <= BINS and seen.total == len(values)
    assert (seen.low, seen.high) == (values.min(), values.max()) and seen.zeros == (values == 0).sum()
    expected = np.histogram(values.astype(np.float64), seen.edges)[0]
    assert seen.counts[0] and seen.counts[-1]
    np.testing.assert_array_equal(seen.counts[:-1], expected[:-1])  # NumPy's last bin holds its end, too
    assert (seen.other_counts >= 0).all() and seen.other_counts.sum() == seen.total - seen.zeros


@LAW
@given(PARTS, st.integers(0, 5))
def test_wider_bins_hold_what_their_parts_did(parts, doublings):
    seen = histogram(np.concatenate(parts))
    wide = seen.coarser(doublings)
    assert wide.width == seen.width * 2**doublings and wide.total == seen.total
    expected = np.histogram((seen.edges[:-1] + seen.edges[1:]) / 2, wide.edges, weights=seen.counts)[0]
    np.testing.assert_array_equal(wide.counts, expected)


def test_bins_are_as_narrow_as_they_can_be():
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    for scale in (1e-30, 1e-3, 1, 7.7, 1e30):
        assert BINS / 2 - 1 <= len(histogram(values * np.float32(scale)).counts) <= BINS
    far = histogram(1000 + values * np.float32(1e-4))  # few float32 values there: each has its bin
    assert far.width == 2.0**-14 and far.counts.max() > 1000


def test_many_values_are_counted_in_chunks_as_at_once():
    values = np.random.default_rng(0).standard_normal(300_001).astype(np.float32)
    seen = histogram(values.reshape(1, -1))
    np.testing.assert_array_equal(seen.counts, np.histogram(values.astype(np.float64), seen.edges)[0])


def test_no_values_and_values_without_a_place_are_refused():
    with pytest.raises(ValueError, match="needs values, got none"):
        histogram(np.zeros((0, 3)))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=f"needs finite values, got {bad}"):
            histogram(np.array([1, bad]))
