import numpy as np
import pytest
from pymoo.core.population import Population

from nas.searchers.nsga3 import NSGA3, _feasible_first, reference_directions
from tests.nas.searchers.bowl import SPACE, evaluate, tuples


@pytest.mark.parametrize(
    ("objectives", "most", "number"), [(1, 20, 1), (2, 20, 20), (3, 20, 15), (4, 20, 20), (3, 2, 3)]
)
def test_directions_are_as_many_as_fit_and_on_the_simplex(objectives, most, number):
    directions = reference_directions(objectives, most)
    assert directions.shape == (number, objectives) and np.allclose(directions.sum(axis=1), 1)


def test_the_smaller_violation_wins_and_lots_decide_between_equal_ones():
    pop = Population.new("X", np.zeros((4, 1)), "F", np.zeros((4, 1)), "G", np.array([[0.0], [2.0], [1.0], [0.0]]))
    pairs = np.array([[0, 1], [1, 2], *[[0, 3]] * 50])
    winners = _feasible_first(pop, pairs, np.random.default_rng(0))[:, 0].tolist()
    assert winners[:2] == [0, 2] and set(winners[2:]) == {0, 3}
    assert _feasible_first(pop, pairs, np.random.default_rng(0))[:, 0].tolist() == winners


def test_where_everything_fails_the_same_seed_gives_the_same_asks():
    first, again = NSGA3(SPACE, 2, 0, population=8), NSGA3(SPACE, 2, 0, population=8)
    for _ in range(6):
        rows = first.ask(8)
        assert tuples(again.ask(8)) == tuples(rows)
        for searcher in (first, again):
            searcher.tell(evaluate(rows[:1], objectives=2, bounds=[-1.0]))
