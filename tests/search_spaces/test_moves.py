import re

import numpy as np
import pytest

from search_spaces.moves import crossover, mutate, mutate_one, neighbours
from search_spaces.space import MOST_OPTIONS, SearchSpace
from search_spaces.value import Choice

GATE = Choice("gate", (False, True))
INNER = Choice("inner", (0, 1, 2, 3), GATE.among(True))
FREE = Choice("free", (0, 1, 2))
SINGLE = Choice("single", ("only",))
SPACE = SearchSpace("s", (GATE, INNER, FREE, SINGLE))

LEFT, RIGHT = Choice("left", (0, 1)), Choice("right", (0, 1))
BOTH = SearchSpace("both", (LEFT, RIGHT, Choice("inner", (0, 1, 2), ((LEFT.among(1), RIGHT.among(1)),))))


def shares(column, options):
    return np.bincount(column, minlength=options) / len(column)


def repeated(row, n=20_000):
    return np.array([row] * n)


def test_rate_zero_changes_nothing_and_rate_one_changes_every_active_choice():
    rows = SPACE.sample(500, np.random.default_rng(0))
    assert np.array_equal(mutate(SPACE, rows, 0.0, np.random.default_rng(1)), rows)
    moved = mutate(SPACE, rows, 1.0, np.random.default_rng(1))
    assert (moved[:, 0] != rows[:, 0]).all() and (moved[:, 2] != rows[:, 2]).all()
    assert (moved[:, 3] == 0).all()


def test_a_mutated_choice_takes_each_other_option_alike_at_the_given_rate():
    moved = mutate(SPACE, repeated([0, 0, 1, 0]), 0.3, np.random.default_rng(0))
    assert np.allclose(shares(moved[:, 2], 3), [0.15, 0.7, 0.15], atol=0.01)


def test_a_choice_that_wakes_up_is_drawn_afresh_over_all_its_options():
    moved = mutate(SPACE, repeated([0, 0, 0, 0]), 1.0, np.random.default_rng(0))
    assert (moved[:, 0] == 1).all()
    assert np.allclose(shares(moved[:, 1], 4), 0.25, atol=0.02)


def test_choices_with_the_most_options_do_not_overflow():
    space = SearchSpace("s", [Choice("a", range(MOST_OPTIONS))])
    rows = repeated([MOST_OPTIONS - 1], 2000)
    moved = mutate(space, rows, 1.0, np.random.default_rng(0))
    assert (moved != rows).all() and np.array_equal(space.canonical(moved), moved)


def test_a_child_takes_each_choice_from_either_parent_alike():
    child = crossover(SPACE, repeated([1, 1, 0, 0]), repeated([1, 3, 2, 0]), np.random.default_rng(0))
    assert np.allclose(shares(child[:, 1], 4), [0, 0.5, 0, 0.5], atol=0.02)
    assert np.allclose(shares(child[:, 2], 3), [0.5, 0, 0.5], atol=0.02)
    both = (child[:, 1] == 1) & (child[:, 2] == 0)
    assert np.isclose(both.mean(), 0.25, atol=0.02)  # independently


@pytest.mark.parametrize("swap", [False, True])
def test_a_choice_active_in_one_parent_comes_from_it(swap):
    parents = [repeated([1, 3, 0, 0], 2000), repeated([0, 0, 0, 0], 2000)]
    child = crossover(SPACE, *parents[:: -1 if swap else 1], np.random.default_rng(0))
    assert np.array_equal(child[:, 1], 3 * child[:, 0])
    assert 0 < child[:, 0].mean() < 1


def test_a_choice_active_in_the_child_alone_is_drawn_afresh():
    child = crossover(BOTH, repeated([1, 0, 0]), repeated([0, 1, 0]), np.random.default_rng(0))
    awake = child[(child[:, 0] == 1) & (child[:, 1] == 1)]
    assert np.allclose(shares(awake[:, 2], 3), 1 / 3, atol=0.03)


def test_neighbours_are_all_single_changes():
    found = neighbours(SPACE.row([0, 0, 1, 0]))
    assert found.tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [1, 0, 1, 0]]
    assert neighbours(SPACE.row([1, 2, 0, 0])).tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 2, 1, 0],
        [1, 2, 2, 0],
        [1, 3, 0, 0],
    ]


def test_an_architecture_without_alternatives_has_no_neighbours():
    assert neighbours(SearchSpace("s", (SINGLE,)).smallest()).shape == (0, 1)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match=re.escape(f"a mutation rate lies between 0 and 1, got {rate}")):
        mutate(SPACE, repeated([0, 0, 0, 0], 1), rate, np.random.default_rng(0))


def test_parents_of_unlike_number_are_refused():
    with pytest.raises(ValueError, match=re.escape("each mother needs one father, got shapes (2, 4) and (1, 4)")):
        crossover(SPACE, repeated([0] * 4, 2), repeated([0] * 4, 1), np.random.default_rng(0))


def test_one_mutation_changes_one_choice_each_alike_and_each_other_option_alike():
    rows = repeated([1, 2, 1, 0], 8000)
    moved = mutate_one(SPACE, rows, np.random.default_rng(0))
    gate, inner, free, _ = (moved != rows).T
    assert np.allclose([gate.mean(), (inner & ~gate).mean(), free.mean()], 1 / 3, atol=0.02)
    assert (gate + (inner & ~gate) + free == 1).all()  # where the gate closes, what is behind it goes to 0
    assert np.allclose(shares(moved[free, 2], 3), [0.5, 0, 0.5], atol=0.02)


def test_where_nothing_can_change_one_mutation_changes_nothing():
    space = SearchSpace("s", (SINGLE,))
    assert mutate_one(space, np.zeros((3, 1), dtype=int), np.random.default_rng(0)).tolist() == [[0]] * 3
