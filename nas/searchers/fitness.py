"""Which of several evaluations are better: feasible ones first, then by non-dominated rank and crowding.

Source: the constrained domination and crowded comparison of NSGA-II (Deb et al. 2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation, cost_array
from nas.pareto import ranks as unconstrained


def ranks(costs: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """The rank (n,) of `costs` (n, m) under constrained domination, 0 the best.

    Feasible rows by non-dominated sorting; behind all of them the others, by their `violations` (n,).
    """
    result = np.zeros(len(costs), dtype=int)
    feasible = violations == 0
    if feasible.any():
        result[feasible] = unconstrained(costs[feasible])
    _, place = np.unique(violations[~feasible], return_inverse=True)
    result[~feasible] = result[feasible].max(initial=-1) + 1 + place
    return result


def crowding(costs: np.ndarray) -> np.ndarray:
    """The crowding distance (n,) of one front's `costs` (n, m): infinite for its ends, larger where it is sparse.

    Equation of section III-B in Deb et al. 2002, every objective scaled to the front's range.
    """
    distance = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        gaps = np.full(len(costs), np.inf)
        gaps[1:-1] = (column[order[2:]] - column[order[:-2]]) / (width or 1.0)
        distance[order] += gaps
    return distance


def ranks_of(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """The ranks (n,) of evaluations, as `ranks`."""
    return ranks(cost_array(evaluations), np.array([e.violation for e in evaluations]))


def order(costs: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """The positions (n,) of rows of `costs` (n, m) by rank and, within one rank, the less crowded first."""
    rank = ranks(costs, violations)
    sparse = np.full(len(costs), np.inf)  # the one or two of a small front are its ends
    by_rank = np.argsort(rank, kind="stable")
    for front in np.split(by_rank, np.flatnonzero(np.diff(rank[by_rank])) + 1):
        if len(front) > 2:
            sparse[front] = crowding(costs[front])
    best: np.ndarray = np.lexsort((-sparse, rank))
    return best


def best_first(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """The positions (n,) of evaluations, as `order`."""
    return order(cost_array(evaluations), np.array([e.violation for e in evaluations]))


def best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The least crowded evaluation of rank 0; of equal ones the first.

    Raises:
        ValueError: no evaluations.
    """
    if not evaluations:
        raise ValueError("there is no best of no evaluations")
    front = np.flatnonzero(ranks_of(evaluations) == 0)
    return evaluations[front[np.argmax(crowding(cost_array(evaluations)[front]))]]


def non_dominated_of(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations of rank 0, in the order given; of equally good ones the first."""
    first: dict[object, Evaluation] = {}
    for evaluation, place in zip(evaluations, ranks_of(evaluations), strict=True):
        if place == 0:
            first.setdefault(evaluation.costs if evaluation.violation == 0 else evaluation.violation, evaluation)
    return list(first.values())
