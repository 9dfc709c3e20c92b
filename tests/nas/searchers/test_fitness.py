import numpy as np
import pytest

from nas.searchers.fitness import best, crowding, non_dominated_of, ranks
from tests.nas.searchers.bowl import evaluate


def test_feasible_rows_come_first_by_domination_then_the_others_by_violation():
    costs = np.array([[1, 4], [2, 2], [3, 3], [0, 0], [0, 0], [9, 9], [4, 1]], dtype=float)
    violations = np.array([0, 0, 0, 2, 1, 1, 0], dtype=float)
    assert ranks(costs, violations).tolist() == [0, 0, 1, 3, 2, 2, 0]
    assert ranks(costs, violations + 1).tolist() == [0, 0, 0, 2, 1, 1, 0]
    assert ranks(np.array([[3.0], [1.0], [1.0]]), np.zeros(3)).tolist() == [1, 0, 0]


def test_crowding_is_the_distance_of_both_neighbours_in_shares_of_the_range():
    costs = np.array([[0, 10], [1, 4], [3, 2], [4, 0]], dtype=float)
    assert np.allclose(crowding(costs), [np.inf, 3 / 4 + 8 / 10, 3 / 4 + 4 / 10, np.inf])
    assert np.isinf(crowding(np.ones((2, 3)))).all()


def test_the_best_is_non_dominated_and_least_crowded():
    rows = np.array([[0, 0, 0, 0], [3, 0, 2, 1], [3, 1, 2, 1], [3, 3, 3, 3], [2, 0, 2, 1]])
    assert best(evaluate(rows)).arch.indices == (3, 0, 2, 1)
    assert best(evaluate(rows[[2, 1, 3]], objectives=2)).arch.indices == (3, 0, 2, 1)  # an end
    with pytest.raises(ValueError, match="no evaluations"):
        best([])


def test_non_dominated_ones_are_each_kept_once():
    rows = np.array([[3, 0, 2, 0], [3, 0, 2, 2], [0, 0, 0, 0]])  # the first two are equally good
    assert [e.arch.indices for e in non_dominated_of(evaluate(rows))] == [(3, 0, 2, 0)]
    assert [e.arch.indices for e in non_dominated_of(evaluate(rows, bounds=[0.5]))] == [(3, 0, 2, 0)]
    assert non_dominated_of([]) == []
