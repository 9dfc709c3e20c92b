import dataclasses
import math

import numpy as np
import pytest

from quant_search.allocate import allocate, problem_of
from quant_search.allocation import dynamic
from tests.quant_search.allocation.trades import many_layers


@pytest.mark.parametrize("steps", [40, 200, 1000])
def test_rounded_costs_keep_the_budget_and_lose_what_steps_say(steps):
    problem = many_layers(15, seed=1)
    found = allocate(problem, "dynamic-programming", steps=steps)
    assert found.costs["cost"] <= problem.budgets["cost"] + 1e-9
    assert not found.optimal
    assert found.gap is None
    least = sum(min(row) for row in problem.costs[0].rows)
    spared = problem.budgets["cost"] - 15 / steps * (problem.budgets["cost"] - least)
    tighter = dataclasses.replace(problem, budgets={"cost": spared})
    assert allocate(problem).damage - 1e-9 <= found.damage <= allocate(tighter).damage + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_whole_numbers_are_not_rounded(seed):
    rng = np.random.default_rng(seed)
    damage = {f"l{i}": {f"o{o}": float(v) for o, v in enumerate(rng.random(4))} for i in range(8)}
    cost = {f"l{i}": {f"o{o}": float(v) for o, v in enumerate(rng.integers(0, 9, 4))} for i in range(8)}
    for row in cost.values():
        row["o0"] = 0.0
    problem = problem_of(damage, {"cost": cost}, {"cost": 20.0})
    assert allocate(problem, "dynamic-programming", steps=20).damage == pytest.approx(allocate(problem).damage)


def test_pairs_of_layers_far_apart_are_met():
    damage = {f"l{i}": {"a": 0.0, "b": 1.0} for i in range(6)}
    unlike = {("a", "a"): 10.0, ("b", "b"): 10.0}
    pairs = {"damage": {("l0", "l5"): unlike, ("l1", "l4"): unlike, ("l0", "l1"): {("a", "a"): math.inf}}}
    found = allocate(problem_of(damage, pairs=pairs), "dynamic-programming")
    assert found.damage == 2.0
    assert found.choice["l0"] != found.choice["l5"]
    assert found.choice["l1"] != found.choice["l4"]


def test_no_steps_and_too_many_sums_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        allocate(many_layers(3), "dynamic-programming", steps=0)
    monkeypatch.setattr(dynamic, "MOST_SUMS", 10)
    with pytest.raises(ValueError, match=r"partial sums at layer 'l\d+': give `steps`"):
        allocate(many_layers(30), "dynamic-programming")
