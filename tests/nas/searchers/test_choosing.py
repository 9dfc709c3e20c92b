import numpy as np

from nas.searchers.choosing import along_front, most_volume, spread

RNG = np.random.default_rng(0)
FRONT = np.column_stack([np.arange(12.0), 11 - np.arange(12.0)])


def test_most_volume_takes_the_largest_gain_first_and_near_misses_last():
    known = np.array([[0.0, 10.0], [10.0, 0.0]])
    costs = np.array([[9.0, 9.0], [5.0, 5.0], [2.0, 8.0], [11.0, 11.0]])
    assert most_volume(costs, known, 4, RNG) == [1, 2, 0, 3]
    assert set(most_volume(costs, np.zeros((0, 2)), 2, RNG)) == {1, 2}


def test_most_volume_of_costs_without_any_spread():
    same = np.full((3, 2), 1e6)
    assert sorted(most_volume(same, same[:1], 2, RNG)) == [0, 1]


def test_a_front_of_two_costs_is_covered_stretch_by_stretch():
    for seed in range(5):
        picked = spread(FRONT, 4, np.random.default_rng(seed))
        assert sorted(i // 3 for i in picked) == [0, 1, 2, 3]
    assert len({tuple(spread(FRONT, 4, np.random.default_rng(seed))) for seed in range(5)}) > 1


def test_a_front_of_three_costs_is_covered_from_far_to_near():
    front = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0.5, 0.5, 0.9], [0.02, 0.99, 0.99]])
    for seed in range(5):
        picked = spread(front, 3, np.random.default_rng(seed))
        assert ({1, 2} <= set(picked) and {0, 4} & set(picked)) or set(picked) >= {3}


def test_the_front_comes_first_and_then_that_of_the_rest():
    behind = FRONT[:3] + 0.5
    costs = np.concatenate([behind, FRONT[:3], FRONT[:3] + 2.0])
    picked = along_front(costs, np.zeros((0, 2)), 8, RNG)
    assert set(picked[:3]) == {3, 4, 5} and set(picked[3:6]) == {0, 1, 2} and len(set(picked)) == 8
    assert along_front(np.array([[3.0], [1.0], [2.0]]), np.zeros((0, 1)), 2, RNG) == [1, 2]
