"""Allocation: which option (bits, format, sparsity) each layer gets, so that the network is least damaged in budgets.

    problem = problem_of(damage, {"size_bytes": sizes, "latency_s": times}, {"latency_s": 2e-3}, pairs=conversions)
    allocate(problem).choice                      # layer to option
    allocate(dual(problem, "latency_s", 0.1))     # the fastest with a damage of at most 0.1
    pareto(problem, "latency_s", points=12)       # the front of damage and latency

Tables are additive, so measure what comes out: sums of damages of single layers are a model of the network's.
Sources: HAWQ-V3 (arXiv:2011.10680, section 3.4), layer-adaptive rate and distortion (arXiv:2308.10438).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from quant_search.allocation import milp, uniform
from quant_search.allocation.catalog import METHODS
from quant_search.allocation.problem import Allocation, Pair, Problem, Table, problem_of, slack, without_gains

__all__ = [
    "METHODS",
    "Allocation",
    "Pair",
    "Problem",
    "Table",
    "allocate",
    "dual",
    "least",
    "pareto",
    "problem_of",
    "without_gains",
]


def allocate(problem: Problem, method: str = "milp", **settings: Any) -> Allocation:
    """The option of each layer with the least sum of what is minimised that keeps all budgets.

    Args:
        method: one of `METHODS`; settings are the method's own.

    Raises:
        ValueError: an unknown method, or budgets that no choice keeps, with the least that is possible.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: there are {', '.join(METHODS)}")
    found = METHODS[method].solve(problem, **settings)
    if found is None:
        raise ValueError(_refusal(problem, method))
    return found


def dual(problem: Problem, cost: str, most: float) -> Problem:
    """The problem turned round: the least of one cost with a damage of at most `most`; other budgets stay.

    Raises:
        ValueError: there is no such cost.
    """
    budgets = {name: budget for name, budget in problem.budgets.items() if name != cost}
    return dataclasses.replace(problem, minimise=cost, budgets={**budgets, problem.minimise: most})


def least(problem: Problem, name: str) -> Allocation | None:
    """The allocation with the least sum of one table, without budgets; None where pairs forbid every choice."""
    free = dataclasses.replace(problem, budgets={}, minimise=name)
    if not any(table.pairs for table in (problem.table(name), *(t for t, _ in free.limits))):
        return free.allocation([row.index(min(row)) for row in free.objective.rows], optimal=True)
    return milp.solve(free)


def pareto(problem: Problem, cost: str, points: int = 10, method: str = "milp", **settings: Any) -> list[Allocation]:
    """The allocations that are best for `points` budgets of a cost, from the least possible up to what is of use.

    Each is on the front of all choices: nothing has less damage at its cost, nor a lower cost at its damage.  Budgets
    are evenly spaced; equal allocations are given once.  Other budgets of the problem hold throughout.

    Raises:
        ValueError: fewer than 2 points, a method that is not exact, or budgets that no choice keeps.
    """
    if points < 2:
        raise ValueError(f"a front needs at least 2 points, got {points}")
    if method not in METHODS or not METHODS[method].exact:
        exact = ", ".join(name for name, entry in METHODS.items() if entry.exact)
        raise ValueError(f"a front needs an exact method, got {method!r}: there are {exact}")
    others = {name: budget for name, budget in problem.budgets.items() if name != cost}
    free = dataclasses.replace(problem, budgets=others)

    def best(budgets: dict[str, float], minimise: str) -> Allocation:
        return allocate(dataclasses.replace(free, budgets=others | budgets, minimise=minimise), method, **settings)

    def cheapest_of(found: Allocation) -> Allocation:
        """Of all that are as good as `found`, the one of the least cost."""
        return best({problem.minimise: _sum(found, problem.minimise)}, cost)

    low = _sum(best({}, cost), cost)
    high = _sum(cheapest_of(best({}, problem.minimise)), cost)
    front: list[Allocation] = []
    for budget in np.linspace(low, high, points).tolist():
        found = cheapest_of(best({cost: budget}, problem.minimise))
        if not front or found.choice != front[-1].choice:
            front.append(found)
    return front


def _sum(allocation: Allocation, name: str) -> float:
    return allocation.costs.get(name, allocation.damage)


def _too_little(name: str, budget: float, lowest: Allocation) -> str:
    total = _sum(lowest, name)
    return (
        f"no choice keeps {name} within {budget:g}: the least possible is {total:g}, with {_described(lowest)}: "
        "raise the budget"
    )


def _described(allocation: Allocation) -> str:
    """A choice in few words: its most frequent option, and the first layers that differ."""
    chosen = list(allocation.choice.values())
    usual = max(chosen, key=chosen.count)
    others = [f"{layer} {option}" for layer, option in allocation.choice.items() if option != usual]
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{usual} everywhere" + (f" but {', '.join(others[:3])}{more}" if others else "")


def _refusal(problem: Problem, method: str) -> str:
    """Why a method found nothing: a budget that is too little alone, or beside the others, or else the method."""
    for table, budget in problem.limits:
        lowest = least(problem, table.name)
        if lowest is None:
            return f"the pairs of {table.name!r} forbid every choice: allow a combination"
        if _sum(lowest, table.name) > budget + slack(table, budget):
            return _too_little(table.name, budget, lowest)
    kept = [(table, budget) for table, budget in problem.limits if math.isfinite(budget)]
    names = " and ".join(f"{table.name} within {budget:g}" for table, budget in kept)
    if milp.solve(problem) is None:
        for table, budget in kept:
            held = {name: b for name, b in problem.budgets.items() if name != table.name}
            lowest = milp.solve(dataclasses.replace(problem, budgets=held, minimise=table.name))
            if lowest is not None:
                return f"{_too_little(table.name, budget, lowest)}, or that of another: no choice keeps {names} at once"
        return f"no choice keeps {names} at once: raise several of these budgets"
    if method == "uniform":
        sums = {o: ", ".join(f"{t.total(c):g}" for t, _ in kept) for o, c in uniform.choices(problem).items()}
        tried = "; ".join(f"{option} {total}" for option, total in sums.items()) or "layers share none"
        return f"no single option keeps {names} ({tried}): take method 'milp'"
    return f"method {method!r} found no choice with {names}, though there is one: take more steps, or method 'milp'"
