"""Greedy allocation: the change of one layer with the best trade, one at a time; the baseline, not exact.

From each layer's least amount of what is minimised, the change that gives the most relief of the budgets for what it
adds; once they are kept, changes that still fit, those first that gain the most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quant_search.allocation import milp
from quant_search.allocation.problem import Allocation, Problem, Table, slack

_FORBIDDEN = 1e3  # of a pair that cannot be, beside a budget that is passed by all that choices differ in
_ROUNDING = 1e-12


def solve(problem: Problem) -> Allocation | None:
    """A choice within the budgets that no change of one layer improves; None where there is none.

    With several budgets, or with pairs, changes of one layer may lead nowhere; then it starts from a choice within the
    budgets that the integer programme finds.
    """
    choice = descend(problem)
    if choice is None:
        feasible = milp.solve(_feasibility(problem))
        if feasible is None:
            return None
        named = zip(problem.layers, problem.options, strict=True)
        choice = [options.index(feasible.choice[layer]) for layer, options in named]
    return problem.allocation(refine(problem, choice))


def descend(problem: Problem) -> list[int] | None:
    """A choice within the budgets by one change after the other; None where no change relieves them any more."""
    choice = [row.index(min(row)) for row in problem.objective.rows]
    places, objective, limits = _places(problem), _Sum(problem.objective, math.inf), _limits(problem)
    while not problem.fits(choice):
        now = math.fsum(limit.excess(np.array(limit.total(choice))) for limit in limits)
        relief = now - np.sum([limit.excess(limit.after(choice)) for limit in limits], axis=0)
        useful = np.flatnonzero(relief > _ROUNDING)
        if not len(useful):
            return None
        added = (objective.after(choice) - objective.total(choice))[useful]
        # Relief that adds nothing first, the most of it; else the least that is added for one unit.
        price = np.where(added > 0, added / relief[useful], -relief[useful])
        layer, option = places[useful[np.lexsort((price, added > 0))[0]]]
        choice[layer] = int(option)
    return choice


def refine(problem: Problem, choice: list[int]) -> list[int]:
    """Changes of one layer from a choice within the budgets, the most gainful first, as long as one fits and gains."""
    choice = list(choice)
    places, objective, limits = _places(problem), _Sum(problem.objective, math.inf), _limits(problem)
    while True:
        gain = objective.total(choice) - objective.after(choice)
        fits = np.all([limit.fits(limit.after(choice)) for limit in limits], axis=0)
        gain = np.where(fits, gain, -math.inf)
        best = int(np.argmax(gain))
        if gain[best] <= _ROUNDING * problem.objective.span:
            return choice
        layer, option = places[best]
        choice[layer] = int(option)


def _places(problem: Problem) -> np.ndarray:
    """The layer and the option of every change, in the order of `_Sum.after`."""
    return np.array([(i, o) for i, options in enumerate(problem.options) for o in range(len(options))])


def _limits(problem: Problem) -> list[_Sum]:
    forbidden = [_Sum(table, 0.0, forbidden=True) for table, _ in problem.limits if table.forbids]
    return [_Sum(table, budget) for table, budget in problem.limits if math.isfinite(budget)] + forbidden


class _Sum:
    """A table's finite amounts, or how many of its pairs are forbidden, around a choice."""

    def __init__(self, table: Table, budget: float, forbidden: bool = False) -> None:
        own = [np.array(row) for row in table.rows]
        self._rows = [0.0 * row for row in own] if forbidden else own
        self._pairs: list[tuple[int, int, np.ndarray]] = []
        for pair in table.pairs:
            there = np.isfinite(pair.array)
            amounts = ~there * 1.0 if forbidden else np.where(there, pair.array, 0.0)
            self._pairs.append((pair.first, pair.second, amounts))
        self._budget = budget
        self._slack = 0.5 if forbidden else slack(table, budget)
        self._weight = _FORBIDDEN if forbidden else 1.0 / (table.span or 1.0)

    def total(self, choice: Sequence[int]) -> float:
        """The sum of a choice."""
        own = (float(row[o]) for row, o in zip(self._rows, choice, strict=True))
        return math.fsum((*own, *(float(amounts[choice[i], choice[j]]) for i, j, amounts in self._pairs)))

    def after(self, choice: Sequence[int]) -> np.ndarray:
        """The sums after each change of one layer, of all layers' options in a row."""
        around = [row.copy() for row in self._rows]
        for i, j, amounts in self._pairs:
            around[i] += amounts[:, choice[j]]
            around[j] += amounts[choice[i]]
        return self.total(choice) + np.concatenate([own - own[o] for own, o in zip(around, choice, strict=True)])

    def excess(self, totals: np.ndarray) -> np.ndarray:
        """By how much sums pass the budget, in parts of the table's span."""
        return self._weight * np.maximum(0.0, totals - self._budget)

    def fits(self, totals: np.ndarray) -> np.ndarray:
        """Which sums keep the budget."""
        return totals <= self._budget + self._slack


def _feasibility(problem: Problem) -> Problem:
    """The same without anything to minimise."""
    nothing = Table("nothing", tuple(tuple(0.0 for _ in row) for row in problem.damage.rows))
    costs = (*problem.costs, nothing)
    return Problem(problem.layers, problem.options, problem.damage, costs, problem.budgets, minimise=nothing.name)
