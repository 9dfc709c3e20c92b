import numpy as np
import pytest

from nas.searchers.scaling import UniformScaling, _van_der_corput
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2, 3))
SPACE = SearchSpace("s", [DEPTH, Choice("width", (1, 2, 3, 4)), Choice("kernel", (3, 5), DEPTH.among(3))])
FLAT = SearchSpace("f", [Choice(f"c{j}", (1, 2, 3)) for j in range(5)])


def test_the_thresholds_are_van_der_corputs_sequence():
    assert [_van_der_corput(i) for i in range(1, 8)] == [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


@pytest.mark.parametrize("space", [SPACE, FLAT])
@pytest.mark.parametrize("budget", [2, 5, 40])
def test_networks_grow_from_the_smallest_to_the_largest(space, budget):
    rows = UniformScaling(space, budget).ask(100)
    assert 2 <= len(rows) <= budget
    assert tuple(rows[0]) == space.smallest().indices
    assert tuple(rows[-1]) == space.largest().indices
    if space is FLAT:
        assert (np.diff(rows, axis=0) >= 0).all()


def test_more_steps_than_exact_scalings_let_choices_grow_one_after_the_other():
    rows = UniformScaling(FLAT, 40).ask(40)
    assert len(rows) == 1 + 2 * 5  # each of five choices grows twice
    assert (np.diff(rows, axis=0).sum(axis=1) == 1).all()


def test_what_is_fixed_stays_and_the_rest_reaches_both_ends():
    fixed = np.array([-1, -1, -1, -1, 2])
    rows = UniformScaling(FLAT, 7, fixed).ask(100)
    assert len(rows) == 7 and (rows[:, 4] == 2).all() and fixed[0] == -1
    assert rows[0].tolist() == [0, 0, 0, 0, 2] and rows[-1].tolist() == [2, 2, 2, 2, 2]


def test_the_budget_is_used_where_the_space_has_networks_enough():
    for budget in range(2, 12):  # eleven in all
        assert len(UniformScaling(FLAT, budget).ask(100)) == budget


def test_rows_come_in_pieces_and_then_end():
    whole, searcher = UniformScaling(FLAT, 9).ask(9), UniformScaling(FLAT, 9)
    pieces = [searcher.ask(4) for _ in range(4)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert pieces[-1].shape == (0, 5)
