import ctypes
import dataclasses
import math
import sys

import pytest

from quant_search.allocate import allocate, problem_of
from quant_search.allocation import milp
from tests.quant_search.allocation.trades import many_layers


def test_a_time_limit_leaves_a_gap_or_says_so():
    problem = many_layers(30)
    best = milp.solve(problem)
    assert best.optimal
    try:
        found = milp.solve(problem, time_limit_s=1e-4)
    except ValueError as error:
        assert "no choice was found within 0.0001 s" in str(error)
    else:
        assert found.damage - best.damage <= found.gap + 1e-9
        assert found.optimal == (found.gap <= 1e-9 * problem.damage.span)


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_units_do_not_matter(factor):
    problem = many_layers(12)
    best = milp.solve(problem)

    def scaled(table):
        return dataclasses.replace(table, rows=tuple(tuple(factor * v for v in row) for row in table.rows))

    costs = (scaled(problem.costs[0]),)
    budgets = {"cost": factor * problem.budgets["cost"]}
    other = dataclasses.replace(problem, damage=scaled(problem.damage), costs=costs, budgets=budgets)
    assert milp.solve(other).choice == best.choice


@pytest.mark.parametrize("span", [milp._SPAN, 1.0])  # a coarse scale is one at which the solver passes the budget
def test_what_the_solver_takes_for_within_its_budget_is_checked(monkeypatch, span):
    monkeypatch.setattr(milp, "_SPAN", span)
    # By less than the solver's tolerance "fine" passes the budget; by more than rounding does.
    damage = {"a": {"fine": 0.0, "rough": 1.0}, "b": {"fine": 0.0, "rough": 5.0}}
    cost = {"a": {"fine": 1.0, "rough": 0.0}, "b": {"fine": 1.0, "rough": 0.0}}
    problem = problem_of(damage, {"cost": cost}, {"cost": 2.0 - 1e-8})
    assert milp.solve(problem).choice == {"a": "rough", "b": "fine"}
    assert milp.solve(dataclasses.replace(problem, budgets={"cost": 2.0 - 1e-12})).damage == 0.0


def test_hundreds_of_layers_are_solved():
    problem = many_layers(200, seed=3)
    found, other = allocate(problem), allocate(problem, "dynamic-programming")
    assert found.damage == pytest.approx(other.damage, rel=1e-9)
    assert found.costs["cost"] <= 0.45 * 200 + 1e-6


def test_what_the_solver_prints_does_not_come_among_answers(monkeypatch, capfd):
    solver = milp.milp

    def loud(*args, **settings):
        ctypes.CDLL(None).puts(b"a remark of the solver")
        return solver(*args, **settings)

    monkeypatch.setattr(milp, "milp", loud)
    sys.stdout.write("before\n")
    assert milp.solve(many_layers(3)) is not None
    sys.stdout.write("after\n")
    out, err = capfd.readouterr()
    assert out == "before\nafter\n"
    assert "a remark of the solver" in err


def test_forbidden_pairs_are_no_choices_that_are_tried():
    # Any two that differ would be better, and there are more of them than choices that are tried again.
    names = [f"o{i}" for i in range(20)]
    damage = {layer: {name: sign * i for i, name in enumerate(names)} for layer, sign in (("a", 1.0), ("b", -1.0))}
    never = {(o, p): math.inf for o in names for p in names if o != p}
    problem = problem_of(damage, pairs={"damage": {("a", "b"): never}})
    assert milp.solve(problem).damage == 0.0
