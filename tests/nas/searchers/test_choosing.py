import numpy as np

from nas.searchers.choosing import along_front, balanced, most_volume, spread

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


def test_balanced_fills_the_largest_gap_and_spreads_the_others():
    known = FRONT[[0, 1, 2, 10, 11]]
    costs = np.concatenate([FRONT[3:10], FRONT[3:10] + 3.0])
    for seed in range(5):
        picked = balanced(costs, known, 5, np.random.default_rng(seed))
        assert len(set(picked)) == 5 and set(picked) < set(range(7)) and picked[0] in (2, 3, 4)
    assert len(set(balanced(costs, known, 20, RNG))) == 14


def test_balanced_picks_single_ones_by_volume_or_not():
    known = np.array([[0.0, 10.0], [10.0, 0.0]])
    costs = np.array([[5.0, 5.0], [9.5, 0.9], [0.9, 9.5]])
    first = [balanced(costs, known, 1, np.random.default_rng(seed))[0] for seed in range(60)]
    assert first.count(0) > 30 and {1, 2} < set(first)


def test_balanced_goes_along_the_front_where_no_volume_is_to_be_gained():
    for seed in range(5):
        picked = balanced(FRONT, FRONT - 5.0, 4, np.random.default_rng(seed))
        assert sorted(i // 3 for i in picked) == [0, 1, 2, 3]
    assert len(set(balanced(FRONT, np.zeros((0, 2)), 4, RNG))) == 4
    assert balanced(np.array([[3.0], [1.0], [2.0]]), np.array([[0.0]]), 2, RNG) == [1, 2]


def test_balanced_weighs_the_volume_of_some_of_a_long_front():
    x = np.linspace(0, 1, 1000)
    costs, known = np.column_stack([x, 1 - x]), np.array([[0.0, 1.0], [0.9, 0.1], [1.0, 0.0]])
    for seed in range(5):
        assert 350 < balanced(costs, known, 5, np.random.default_rng(seed))[0] < 550
