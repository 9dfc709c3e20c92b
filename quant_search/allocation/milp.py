"""Exact allocation as a mixed-integer linear programme, solved by HiGHS.

HAWQ-V3 (arXiv:2011.10680, section 3.4): x[i, o] in {0, 1} says that layer i has option o, one for each layer; sums are
linear in x.  What a pair adds is linear in y[o, p] >= 0 with sum over p y[o, p] = x[i, o] and sum over o y[o, p] =
x[j, p]: for integer x that is the product x[i, o] x[j, p], whatever the sign of the amounts (the local polytope;
Wainwright and Jordan 2008, section 4.1).  Options whose amounts in a pair are equal, such as all of one format, share
a row of y.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from quant_search.allocation.problem import Allocation, Problem, Table, alike, slack

_SPAN = 1e4  # of scaled sums: the solver stops 1e-6 from the optimum, and passes budgets by as much
_TRIES = 100
_INFEASIBLE = 2


def solve(problem: Problem, *, time_limit_s: float | None = None) -> Allocation | None:
    """The choice with the least sum within the budgets; None where there is none.

    Within `time_limit_s` the best found, with its gap to the bound that was proved.

    Raises:
        ValueError: the time limit came before any choice was found.
    """
    programme, refused = _Programme(problem), list[Sequence[int]]()
    for _ in range(_TRIES):
        found = programme.run(refused, time_limit_s)
        if found is None:
            return None
        choice, bound = found
        if problem.fits(choice):
            gap = max(0.0, problem.objective.total(choice) - bound)
            return problem.allocation(choice, optimal=gap <= 1e-9 * problem.objective.span, gap=gap)
        refused.append(choice)  # it passes a budget by less than the solver sees, but by more than rounding does
    raise ValueError(
        f"{_TRIES} choices in turn pass a budget by less than the solver sees: change it by 1e-9 of itself"
    )


@dataclass(frozen=True, eq=False)
class _Products:
    """The variables y of a pair of layers, from `start`: a row for each class of options of the first.

    Args:
        classes: of each option, of the first and of the second layer.
        examples: an option of each class, likewise.
    """

    start: int
    classes: tuple[np.ndarray, np.ndarray]
    examples: tuple[np.ndarray, np.ndarray]

    @property
    def places(self) -> np.ndarray:
        """The variables' places (rows, columns)."""
        shape = tuple(len(options) for options in self.examples)
        return self.start + np.arange(math.prod(shape)).reshape(shape)


class _Programme:
    """The variables in order: x of each layer, then y of each pair of layers that has amounts in any table."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._starts = [0, *itertools.accumulate(len(options) for options in problem.options)]
        self._size = self._starts[-1]
        self._products: dict[tuple[int, int], _Products] = {}
        tables = (problem.objective, *(table for table, _ in problem.limits))
        for key in sorted({(pair.first, pair.second) for table in tables for pair in table.pairs}):
            amounts = [p.array for table in tables for p in table.pairs if (p.first, p.second) == key]
            sides = alike(np.concatenate(amounts, axis=1)), alike(np.concatenate(amounts, axis=0).T)
            (one, first), (other, second) = sides
            self._products[key] = _Products(self._size, (one, other), (first, second))
            self._size += len(first) * len(second)

    def run(self, refused: Sequence[Sequence[int]], time_limit_s: float | None) -> tuple[list[int], float] | None:
        """An optimal choice that is not refused, and the bound of the minimised sum; None where nothing is feasible."""
        objective = self._problem.objective
        amounts, least = self._above_least(objective)
        result = milp(
            _scale(objective) * amounts,
            integrality=np.arange(self._size) < self._starts[-1],
            bounds=Bounds(0.0, self._most()),
            constraints=[self._one_each(), *self._links(), *self._budgets(), *self._others_than(refused)],
            options={"mip_rel_gap": 0.0} | ({} if time_limit_s is None else {"time_limit": time_limit_s}),
        )
        if result.x is None:
            if result.status == _INFEASIBLE:
                return None
            raise ValueError(f"no choice was found within {time_limit_s} s: allow more time, or take method 'greedy'")
        choice = [int(np.argmax(result.x[a:b])) for a, b in itertools.pairwise(self._starts)]
        bound = result.fun if result.mip_dual_bound is None else result.mip_dual_bound
        return choice, least + float(bound) / _scale(objective)

    def _above_least(self, table: Table) -> tuple[np.ndarray, float]:
        """The table's amounts of all variables, each layer's and pair's above its least, and the sum of these least."""
        amounts, least = np.zeros(self._size), []
        for start, row in zip(self._starts, table.rows, strict=False):
            least.append(min(row))
            amounts[start : start + len(row)] = np.array(row) - least[-1]
        for key, values in self._pairs_of(table):
            there = np.isfinite(values)
            if there.any():
                least.append(float(values[there].min()))
                amounts[self._products[key].places[there]] += values[there] - least[-1]  # the others are bounded by 0
        return amounts, math.fsum(least)

    def _pairs_of(self, table: Table) -> list[tuple[tuple[int, int], np.ndarray]]:
        """The layers of each pair, and its amounts by classes."""
        found = []
        for pair in table.pairs:
            key = pair.first, pair.second
            found.append((key, pair.array[np.ix_(*self._products[key].examples)]))
        return found

    def _most(self) -> np.ndarray:
        most = np.ones(self._size)
        for table, _ in self._problem.limits:
            for key, values in self._pairs_of(table):
                most[self._products[key].places[np.isinf(values)]] = 0.0
        return most

    def _one_each(self) -> LinearConstraint:
        counts = np.diff(self._starts)
        layers = np.repeat(np.arange(len(counts)), counts)
        shape = len(counts), self._size
        return LinearConstraint(
            coo_array((np.ones(len(layers)), (layers, np.arange(len(layers)))), shape).tocsr(), 1, 1
        )

    def _links(self) -> list[LinearConstraint]:
        """Of each class, the sum of its row (or column) of y is the sum of its options' x."""
        made = []
        for key, products in self._products.items():
            for side, layer in enumerate(key):
                places = products.places if side == 0 else products.places.T
                classes = products.classes[side]
                rows = np.concatenate([np.repeat(np.arange(len(places)), places.shape[1]), classes])
                columns = np.concatenate([places.ravel(), self._starts[layer] + np.arange(len(classes))])
                signs = np.repeat([1.0, -1.0], [places.size, len(classes)])
                made.append(
                    LinearConstraint(coo_array((signs, (rows, columns)), (len(places), self._size)).tocsr(), 0, 0)
                )
        return made

    def _budgets(self) -> list[LinearConstraint]:
        made = []
        for table, budget in self._problem.limits:
            if math.isfinite(budget):
                amounts, least = self._above_least(table)
                most = budget - least + slack(table, budget)
                made.append(LinearConstraint(_scale(table) * amounts[None], -np.inf, _scale(table) * most))
        return made

    def _others_than(self, refused: Sequence[Sequence[int]]) -> list[LinearConstraint]:
        made = []
        for choice in refused:
            row = np.zeros((1, self._size))
            row[0, [start + o for start, o in zip(self._starts, choice, strict=False)]] = 1.0
            made.append(LinearConstraint(row, -np.inf, len(choice) - 1))
        return made


def _scale(table: Table) -> float:
    return _SPAN / table.span if table.span > 0 else 1.0
