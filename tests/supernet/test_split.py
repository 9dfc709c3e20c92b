import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.split import stratified_split


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=80), st.floats(0.05, 0.9))
def test_split_is_a_partition_that_respects_classes(labels, fraction):
    y = np.array(labels)
    keep, held = stratified_split(y, fraction)
    assert sorted([*keep, *held]) == list(range(len(y)))
    for label in np.unique(y):
        count, inside = (y == label).sum(), (y[held] == label).sum()
        assert inside == min(max(1, round(fraction * count)), count - 1)


def test_same_every_time_and_differs_by_seed():
    y = np.arange(100) % 5
    first, again, other = stratified_split(y, 0.3), stratified_split(y, 0.3), stratified_split(y, 0.3, seed=1)
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="val_fraction must lie strictly between 0 and 1"):
        stratified_split(np.zeros(4, int), fraction, what="val_fraction")


def test_nothing_to_hold_out():
    with pytest.raises(ValueError, match="no class has two"):
        stratified_split(np.arange(5), 0.5)
