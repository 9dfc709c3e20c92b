"""Exact allocation as a mixed-integer linear programme, solved by HiGHS.

HAWQ-V3 (arXiv:2011.10680, section 3.4): x[i, o] in {0, 1} says that layer i has option o, one for each layer; sums are
linear in x.  A pair's product x[i, o] x[j, p] is y[o, p] >= 0 with sum over p y[o, p] = x[i, o] and sum over o
y[o, p] = x[j, p], which is exact for integer x and for amounts of either sign (the local polytope of pairwise
models; Wainwright and Jordan 2008, section 4.1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from quant_search.allocation.problem import Allocation, Pair, Problem, Table, slack

_SPAN = 1e4  # of scaled sums: the solver stops 1e-6 from the optimum, and passes budgets by as much
_TRIES = 100
_INFEASIBLE = 2


def solve(problem: Problem, *, time_limit_s: float | None = None) -> Allocation | None:
    """The choice with the least sum within the budgets; None where there is none.

    Within `time_limit_s` the best found, with its gap to the bound that was proved.

    Raises:
        ValueError: the time limit came before any choice was found.
    """
    programme = _Programme.of(problem)
    for _ in range(_TRIES):
        found = programme.run(time_limit_s)
        if found is None:
            return None
        choice, bound = found
        if problem.fits(choice):
            total = problem.objective.total(choice)
            gap = max(0.0, total - bound)
            near = gap <= 2e-9 * problem.objective.span
            return problem.allocation(choice, optimal=near, gap=gap)
        programme.forbid(choice)  # it passes a budget by less than the solver sees, but more than rounding does
    raise ValueError(
        f"{_TRIES} choices in turn pass a budget by less than the solver sees: change it by 1e-9 of itself"
    )


@dataclass(frozen=True, eq=False)
class _Programme:
    """The variables in order: x of each layer, then y of each pair of layers that has amounts in any table."""

    problem: Problem
    starts: list[int]  # of each layer's x; the last is their number
    pairs: dict[tuple[int, int], int]  # to the start of its y
    size: int
    cuts: list[Sequence[int]]

    @classmethod
    def of(cls, problem: Problem) -> _Programme:
        """The programme of a problem."""
        starts = np.concatenate([[0], np.cumsum([len(options) for options in problem.options])]).tolist()
        size, pairs = starts[-1], {}
        for table in (problem.objective, *(table for table, _ in problem.limits)):
            for pair in table.pairs:
                if (pair.first, pair.second) not in pairs:
                    pairs[pair.first, pair.second] = size
                    size += len(problem.options[pair.first]) * len(problem.options[pair.second])
        return cls(problem, starts, pairs, size, [])

    def forbid(self, choice: Sequence[int]) -> None:
        """Leaves one choice out."""
        self.cuts.append(choice)

    def run(self, time_limit_s: float | None) -> tuple[list[int], float] | None:
        """An optimal choice and the bound of the minimised sum; None where nothing is feasible."""
        objective = self.problem.objective
        amounts, least = self._shifted(objective)
        scale = _scale(objective)
        settings = {"mip_rel_gap": 0.0} | ({} if time_limit_s is None else {"time_limit": time_limit_s})
        result = milp(
            scale * amounts,
            integrality=np.arange(self.size) < self.starts[-1],
            bounds=Bounds(0.0, self._upper()),
            constraints=[*self._links(), *self._budgets(), *self._cut()],
            options=settings,
        )
        if result.x is None:
            if result.status == _INFEASIBLE:
                return None
            raise ValueError(f"no choice was found within {time_limit_s} s: allow more time, or take method 'greedy'")
        choice = [int(np.argmax(result.x[a:b])) for a, b in itertools.pairwise(self.starts)]
        bound = result.fun if result.mip_dual_bound is None else result.mip_dual_bound
        return choice, least + float(bound) / scale

    def _shifted(self, table: Table) -> tuple[np.ndarray, float]:
        """Amounts of all variables, each layer's and pair's from its least one, and the sum of these least."""
        amounts, least = np.zeros(self.size), []
        for start, row in zip(self.starts, table.rows, strict=False):
            least.append(min(row))
            amounts[start : start + len(row)] = np.array(row) - least[-1]
        for pair in table.pairs:
            values = _flat(pair)
            least.append(float(np.min(values[np.isfinite(values)], initial=math.inf)))
            shifted = np.where(np.isfinite(values), values - least[-1], 0.0)  # the forbidden are bounded by 0
            start = self.pairs[pair.first, pair.second]
            amounts[start : start + len(values)] += shifted
        return amounts, math.fsum(v for v in least if math.isfinite(v))

    def _upper(self) -> np.ndarray:
        upper = np.ones(self.size)
        for table, _ in self.problem.limits:
            for pair in table.pairs:
                start, values = self.pairs[pair.first, pair.second], _flat(pair)
                upper[start : start + len(values)][np.isinf(values)] = 0.0
        return upper

    def _links(self) -> list[LinearConstraint]:
        """One option for each layer, and y as the products of x."""
        rows, columns, values, right = [], [], [], []
        for a, b in itertools.pairwise(self.starts):
            rows += [len(right)] * (b - a)
            columns += range(a, b)
            values += [1.0] * (b - a)
            right.append(1.0)
        for (i, j), start in self.pairs.items():
            places = start + np.arange(len(self.problem.options[i]) * len(self.problem.options[j]))
            grid = places.reshape(len(self.problem.options[i]), -1)
            for layer, sides in ((i, grid), (j, grid.T)):
                for o, side in enumerate(sides):
                    rows += [len(right)] * (len(side) + 1)
                    columns += [*side.tolist(), self.starts[layer] + o]
                    values += [1.0] * len(side) + [-1.0]
                    right.append(0.0)
        matrix = coo_array((values, (rows, columns)), shape=(len(right), self.size)).tocsr()
        return [LinearConstraint(matrix, right, right)]

    def _budgets(self) -> list[LinearConstraint]:
        made = []
        for table, budget in self.problem.limits:
            if math.isfinite(budget):
                amounts, least = self._shifted(table)
                most = budget - least + slack(table, budget)
                made.append(LinearConstraint(_scale(table) * amounts[None], -np.inf, _scale(table) * most))
        return made

    def _cut(self) -> list[LinearConstraint]:
        made = []
        for choice in self.cuts:
            row = np.zeros((1, self.size))
            row[0, [start + o for start, o in zip(self.starts, choice, strict=False)]] = 1.0
            made.append(LinearConstraint(row, -np.inf, len(choice) - 1))
        return made


def _scale(table: Table) -> float:
    return _SPAN / table.span if table.span > 0 else 1.0


def _flat(pair: Pair) -> np.ndarray:
    return np.array(pair.amounts).ravel()
