import math

import pytest

from quant_search.allocate import METHODS, allocate, dual, least, pareto, problem_of

BITS = {8: 0.0, 4: 1.0, 2: 5.0}
DAMAGE = {layer: {f"w{b}": weight * d for b, d in BITS.items()} for layer, weight in (("a", 1), ("b", 2), ("c", 4))}
SIZE = {layer: {f"w{b}": float(b * n) for b in BITS} for layer, n in (("a", 10), ("b", 5), ("c", 20))}


def sizes(budget=None, **more):
    return problem_of(DAMAGE, {"size_bytes": SIZE}, {} if budget is None else {"size_bytes": budget}, **more)


@pytest.mark.parametrize("method", ["milp", "dynamic-programming"])
def test_the_least_damage_within_a_size(method):
    found = allocate(sizes(240.0), method)
    assert found.choice == {"a": "w4", "b": "w8", "c": "w8"}
    assert (found.damage, found.costs, found.optimal, found.gap) == (1.0, {"size_bytes": 240.0}, True, 0.0)


@pytest.mark.parametrize("method", ["milp", "dynamic-programming"])
def test_conversions_between_formats_keep_neighbours_together(method):
    damage = {f"l{i}": {"fp32": 0.0, "int8": 0.1} for i in range(4)}
    time = {"l0": {"fp32": 2.0, "int8": 1.0}, "l1": {"fp32": 1.0, "int8": 1.6}, "l2": {"fp32": 2.0, "int8": 1.0}}
    time["l3"] = {"fp32": 3.0, "int8": 1.0}
    turn = {("fp32", "int8"): 0.4, ("int8", "fp32"): 0.4}
    pairs = {"time_s": {(f"l{i}", f"l{i + 1}"): turn for i in range(3)}}
    free = problem_of(damage, {"time_s": time}, minimise="time_s")
    assert allocate(free, method).choice == {"l0": "int8", "l1": "fp32", "l2": "int8", "l3": "int8"}
    bound = allocate(problem_of(damage, {"time_s": time}, minimise="time_s", pairs=pairs), method)
    assert bound.choice == dict.fromkeys(damage, "int8")  # the island of l1 costs two turns and saves 0.6
    assert bound.costs["time_s"] == pytest.approx(4.6)


def test_the_dual_form_is_the_smallest_within_a_damage():
    found = allocate(dual(sizes(), "size_bytes", 3.0))
    assert found.costs["size_bytes"] == 220.0
    assert found.choice == {"a": "w4", "b": "w4", "c": "w8"}
    assert dual(sizes(60.0), "size_bytes", 3.0) == dual(sizes(), "size_bytes", 3.0)  # its own budget goes
    assert dual(dual(sizes(), "size_bytes", 3.0), "damage", 240.0) == sizes(240.0)
    with pytest.raises(ValueError, match="no table 'latency_s'"):
        dual(sizes(), "latency_s", 1.0)


def test_negative_damage_is_taken_as_it_is():
    problem = problem_of({"a": {"w8": 0.0, "w4": -0.01}}, {"size_bytes": {"a": {"w8": 8.0, "w4": 4.0}}})
    for method in METHODS:
        assert allocate(problem, method).damage == -0.01


def test_too_small_a_budget_says_the_least_possible_and_by_what():
    with pytest.raises(ValueError) as error:
        allocate(sizes(60.0))
    assert str(error.value) == (
        "no choice keeps size_bytes within 60: the least possible is 70, with w2 everywhere: raise the budget"
    )
    with pytest.raises(
        ValueError, match=r"no choice keeps damage within -1: the least possible is 0, with w8 everywhere"
    ):
        allocate(dual(sizes(), "size_bytes", -1.0))


@pytest.mark.parametrize("method", METHODS)
def test_budgets_that_exclude_each_other_are_named(method):
    energy = {layer: {option: 100.0 - size for option, size in row.items()} for layer, row in SIZE.items()}
    problem = problem_of(DAMAGE, {"size_bytes": SIZE, "energy": energy}, {"size_bytes": 100.0, "energy": 100.0})
    expected = (
        "no choice keeps size_bytes within 100: the least possible is 200, .*: raise the budget, or that of another"
    )
    with pytest.raises(ValueError, match=expected):
        allocate(problem, method)


def test_pairs_that_forbid_everything_are_named():
    never = {("a", "b"): {(f"w{i}", f"w{j}"): math.inf for i in BITS for j in BITS}}
    for method in METHODS:
        with pytest.raises(ValueError, match="the pairs of 'size_bytes' forbid every choice"):
            allocate(sizes(pairs={"size_bytes": never}), method)


def test_least_is_without_budgets():
    assert least(sizes(1.0), "size_bytes").costs == {"size_bytes": 70.0}
    assert least(sizes(1.0), "damage").damage == 0.0


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"unknown method 'annealing': there are milp, dynamic-programming, greedy"):
        allocate(sizes(), "annealing")


def test_a_front_goes_from_the_smallest_to_the_least_damaged():
    front = pareto(sizes(), "size_bytes", points=8)
    costs, damages = [f.costs["size_bytes"] for f in front], [f.damage for f in front]
    assert (costs[0], damages[0]) == (70.0, 35.0)
    assert (costs[-1], damages[-1]) == (280.0, 0.0)
    assert costs == sorted(set(costs))
    assert damages == sorted(set(damages), reverse=True)
    assert [f.choice for f in pareto(sizes(), "size_bytes", 8, "dynamic-programming")] == [f.choice for f in front]


def test_fronts_need_points_and_an_exact_method():
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        pareto(sizes(), "size_bytes", points=1)
    with pytest.raises(ValueError, match="exact method, got 'greedy': there are milp, dynamic-programming"):
        pareto(sizes(), "size_bytes", method="greedy")


@pytest.mark.parametrize("method", ["milp", "dynamic-programming"])
def test_of_equally_damaged_choices_the_cheapest_is_on_the_front(method):
    damage = {f"l{i}": {"dear": 0.0, "cheap": 0.0, "bad": 1.0} for i in range(4)}
    cost = {f"l{i}": {"dear": 5.0 + i, "cheap": 4.0, "bad": 0.0} for i in range(4)}
    front = pareto(problem_of(damage, {"time_s": cost}), "time_s", 17, method)
    assert [(f.costs["time_s"], f.damage) for f in front] == [(4.0 * i, 4.0 - i) for i in range(5)]
