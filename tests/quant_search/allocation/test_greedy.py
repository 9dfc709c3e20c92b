import math

from quant_search.allocate import allocate, problem_of
from quant_search.allocation import greedy


def test_the_best_trade_comes_first():
    damage = {"a": {"w8": 0.0, "w4": 1.0}, "b": {"w8": 0.0, "w4": 1.0}, "c": {"w8": 0.0, "w4": 4.0}}
    size = {"a": {"w8": 8.0, "w4": 4.0}, "b": {"w8": 4.0, "w4": 2.0}, "c": {"w8": 16.0, "w4": 8.0}}
    for budget, rounded in ((28.0, ""), (24.0, "a"), (22.0, "ab"), (18.0, "bc"), (16.0, "ac"), (14.0, "abc")):
        found = allocate(problem_of(damage, {"size": size}, {"size": budget}), "greedy")
        assert [layer for layer, option in found.choice.items() if option == "w4"] == list(rounded)


def test_it_can_be_worse_than_the_best():
    # The better trade gives too little, and the other one, taken as well, is not taken back.
    damage = {"a": {"w8": 0.0, "w4": 1.0}, "b": {"w8": 0.0, "w4": 2.5}, "c": {"w8": 0.0, "w4": 1.9}}
    size = {"a": {"w8": 5.0, "w4": 0.0}, "b": {"w8": 9.0, "w4": 0.0}, "c": {"w8": 6.0, "w4": 0.0}}
    problem = problem_of(damage, {"size": size}, {"size": 11.0})
    found, best = allocate(problem, "greedy"), allocate(problem)
    assert best.damage == 2.5
    assert best.choice == {"a": "w8", "b": "w4", "c": "w8"}
    assert found.damage >= best.damage


def test_where_single_changes_lead_nowhere_it_starts_from_a_choice_that_fits():
    # Both or none: each alone is forbidden beside the other's first option.
    damage = {"a": {"x": 0.0, "y": 1.0}, "b": {"x": 0.0, "y": 1.0}}
    cost = {"a": {"x": 2.0, "y": 0.0}, "b": {"x": 2.0, "y": 0.0}}
    pairs = {"cost": {("a", "b"): {("x", "y"): math.inf, ("y", "x"): math.inf}}}
    problem = problem_of(damage, {"cost": cost}, {"cost": 3.0}, pairs=pairs)
    assert greedy.descend(problem) is None
    assert allocate(problem, "greedy").choice == {"a": "y", "b": "y"}


def test_a_change_is_weighed_by_what_it_relieves():
    damage = {"a": {"w8": 0.0, "w4": 1.5}, "b": {"w8": 0.0, "w4": 1.0}}
    size = {"a": {"w8": 8.0, "w4": 4.0}, "b": {"w8": 4.0, "w4": 2.0}}
    assert greedy.descend(problem_of(damage, {"size": size}, {"size": 8.0})) == [1, 0]  # not b, which adds less
    assert greedy.descend(problem_of(damage, {"size": size}, {"size": 10.0})) == [0, 1]  # where b is enough


def test_forbidden_pairs_are_left_one_change_at_a_time():
    damage = {"a": {"x": 0.0, "y": 3.0}, "b": {"x": 0.0, "y": 2.0}}
    problem = problem_of(damage, pairs={"damage": {("a", "b"): {("x", "x"): math.inf}}})
    assert greedy.descend(problem) == [0, 1]
