import numpy as np
import pytest

from nas.objectives import Evaluation
from nas.pareto import front, hypervolume, non_dominated, relative_hypervolume, shared_box
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice("a", tuple(range(10)))])


def evaluation(index, costs, violation=0.0):
    return Evaluation(SPACE.row([index]), {}, costs, violation, "verified")


def test_nothing_has_an_empty_front_and_no_volume():
    assert non_dominated(np.zeros((0, 2))).shape == (0,)
    assert front([]) == []
    assert hypervolume(np.zeros((0, 2)), np.ones(2)) == hypervolume(np.array([]), np.ones(2)) == 0
    with pytest.raises(ValueError, match="no costs to compare"):
        shared_box([np.zeros((0, 2)), np.zeros((0, 2))])


def test_the_front_is_feasible_and_ordered_by_the_last_cost():
    slow, fast, worse, forbidden = (
        evaluation(0, (-0.9, 3.0)),
        evaluation(1, (-0.7, 1.0)),
        evaluation(2, (-0.7, 2.0)),
        evaluation(3, (-1.0, 0.5), violation=0.1),
    )
    assert front([slow, forbidden, worse, fast]) == [fast, slow]
    assert front([forbidden]) == []


def test_of_equal_costs_the_first_architecture_stays():
    assert front([evaluation(5, (1.0, 1.0)), evaluation(4, (1.0, 1.0))]) == [evaluation(4, (1.0, 1.0))]


def test_rows_at_or_beyond_the_reference_point_add_nothing():
    costs = np.array([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0], [-9.0, 3.0]])
    assert hypervolume(costs, np.array([2.0, 2.0])) == 1


def test_the_shared_box_spans_the_fronts_only():
    ideal, reference = shared_box([np.array([[0.0, 10.0], [50.0, 50.0]]), np.zeros((0, 2)), np.array([[10.0, 0.0]])])
    assert ideal.tolist() == [0, 0]
    assert reference.tolist() == [11, 11]


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.97, -0.97, 1e6, -1e12])
def test_a_box_without_width_still_has_a_volume(value):
    point = np.array([[value, 3.0]])
    ideal, reference = shared_box([point, point])
    assert (ideal < reference).all()
    assert relative_hypervolume(point, ideal, reference) == pytest.approx(1, rel=0.01)
