"""The most probable architectures that keep to a bound on cost.

A multiple-choice knapsack over choices that exist where others say so: dynamic programming in the order of the choices,
over what is taken of those that later ones still ask for, with lists of which none is dearer and less probable than n
others (Nemhauser and Ullmann, 1969; Kellerer, Pferschy and Pisinger, Knapsack Problems, section 11.5). Choices whose
options are partly the same network come first, and all at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search_spaces.space import INDEX, SearchSpace
from supernet.checks import at_least
from supernet.relaxed.cost_table import CostTable, ancestors, group_costs

_ROUNDING = 1e-9  # of the bound
_LATER = 1e-6  # what a later option of a choice without logits is worth: less than any difference that was learnt
_LONGEST = 20_000  # list of beginnings with the same open ends; beyond it costs are told apart less finely
_STEPS = 2_000  # of the bound, by which they are then told apart


def best_architectures(
    logits: Mapping[str, np.ndarray],
    space: SearchSpace,
    table: CostTable | None = None,
    max_cost: float | None = None,
    n: int = 1,
) -> np.ndarray:
    """The n most probable architectures (n, d) of which none costs more than `max_cost` seconds, best first.

    Choices are independent with probabilities softmax(logits (k,)), active or not, and an architecture is as probable
    as the most probable row of options that stands for it: an inactive choice counts as its most probable option, so
    that a network is not improbable for having many choices, and of equivalent rows the most probable one counts.
    Choices without logits have no say in it: of architectures that are equally probable, those with their last options
    are the first. Fewer than n come back where fewer keep to the bound. Exact while no list of partial architectures
    grows beyond 20,000; beyond it costs that differ by less than a 2,000th of the bound count as equal: the bound is
    kept all the same, but a slightly more probable architecture may be missed.

    Raises:
        ValueError: no architecture keeps to the bound, n is below 1, or a bound without a table.
    """
    at_least("n", n, 1)
    table = _checked(table, max_cost)
    if max_cost is None:
        return _search(space, _worth(logits, space), table, np.inf, n)
    check_possible(space, table, max_cost)
    return _search(space, _worth(logits, space), table, max_cost, n)


def fastest_cost(space: SearchSpace, table: CostTable) -> float:
    """The least cost of any architecture, in seconds."""
    alike = [np.zeros(k) for k in space.cardinalities]
    # Beginnings of equal worth: the cheapest of those with the same open ends is kept, and one bound fits all.
    return float(table.costs(space, _search(space, alike, table, np.inf, 1)).min())


def check_possible(space: SearchSpace, table: CostTable, max_cost: float) -> None:
    """Refuse a bound that nothing keeps to.

    Raises:
        ValueError: with the cost of the fastest architecture.
    """
    fastest = fastest_cost(space, table)
    if fastest > max_cost:
        raise ValueError(
            f"no architecture of space {space.name!r} costs at most {max_cost:g} s: the fastest costs {fastest:g} s; "
            "raise max_cost"
        )


def _checked(table: CostTable | None, max_cost: float | None) -> CostTable:
    if table is None and max_cost is not None:
        raise ValueError(f"a bound of {max_cost:g} s needs a cost table: give table as well")
    return CostTable(0.0, {}) if table is None else table


def _worth(logits: Mapping[str, np.ndarray], space: SearchSpace) -> list[np.ndarray]:
    """Of each choice, the logarithms (k,) of its options' probabilities to that of the most probable one.

    Raises:
        ValueError: logits of an unknown choice or of another length.
    """
    sizes = {choice.name: len(choice.options) for choice in space.choices}
    for name, values in logits.items():
        if len(values) != sizes.get(name):
            raise ValueError(f"space {space.name!r} has no choice {name!r} with {len(values)} options")
    given = [np.asarray(logits.get(name, _LATER * np.arange(size)), float) for name, size in sizes.items()]
    return [values - values.max() for values in given]


@dataclass(frozen=True, eq=False)
class _Partial:
    """Beginnings (m, d) of architectures, what they are worth and cost so far (m,)."""

    rows: np.ndarray
    worth: np.ndarray
    costs: np.ndarray

    def at(self, index: np.ndarray) -> _Partial:
        return _Partial(self.rows[index], self.worth[index], self.costs[index])


def _search(space: SearchSpace, worth: list[np.ndarray], table: CostTable, bound: float, n: int) -> np.ndarray:
    """The n architectures (n, d) that are worth most, of those that cost at most `bound`."""
    merged = _merged(space)
    order = [*merged, *(j for j in range(len(space)) if j not in merged)]
    ordered = SearchSpace(space.name, [space.choices[j] for j in order])
    start = _distinct(space, merged, [worth[j] for j in merged], float(table.base))
    partial = _searched(ordered, start, len(merged), [worth[j] for j in order], table, bound, n)
    rows = np.empty_like(partial.rows)
    rows[:, order] = partial.rows
    rows = rows[np.lexsort((*rows.T, -partial.worth))]
    return np.asarray(rows[table.costs(space, rows) <= bound][:n])


def _merged(space: SearchSpace) -> list[int]:
    """The columns that the equivalence of a space is about: their choices depend on no others."""
    names = () if space.equivalence is None else space.equivalence.choices
    return [j for j, choice in enumerate(space.choices) if choice.name in names]


def _distinct(space: SearchSpace, merged: list[int], worth: list[np.ndarray], base: float) -> _Partial:
    """Beginnings with the choices at `merged` set in every way that is another network, each worth its best row.

    All rows of these choices are gone through, as they are to count the space.
    """
    if not merged:
        return _Partial(np.zeros((1, len(space)), INDEX, order="F"), np.zeros(1), np.full(1, base))
    alone = SearchSpace(space.name, [space.choices[j] for j in merged], space.equivalence)
    every = np.indices(alone.cardinalities.tolist(), INDEX).reshape(len(merged), -1).T
    found, of = np.unique(alone.canonical(every), axis=0, return_inverse=True)
    most = np.full(len(found), -np.inf)
    np.maximum.at(most, of.ravel(), sum(values[taken] for values, taken in zip(worth, every.T, strict=True)))
    rows = np.zeros((len(found), len(space)), INDEX, order="F")
    rows[:, : len(merged)] = found
    return _Partial(rows, most, np.full(len(found), base))


def _searched(
    space: SearchSpace,
    partial: _Partial,
    first: int,
    worth: list[np.ndarray],
    table: CostTable,
    bound: float,
    n: int,
) -> _Partial:
    """Rows that go on from beginnings up to choice `first`, and n of those that are worth most within `bound`."""
    groups = table.groups(space)
    least, most = _least_after(space, groups), _most_after(space, groups)
    # Sums in another order differ by a little: what comes out is checked against the bound itself.
    slack = _ROUNDING * abs(bound) if np.isfinite(bound) else 0.0
    for j in range(max(first - 1, 0), len(space)):
        if j >= first:
            partial = _extended(space, partial, j, worth[j])
        costs = partial.costs + _ending(space, groups, range(j if j >= first else 0, j + 1), partial.rows)
        fits = np.flatnonzero(costs + least[j] <= bound + slack)
        partial = _Partial(partial.rows[fits], partial.worth[fits], costs[fits])
        partial = _pruned(partial, _open_columns(space, groups, j), n, bound, bound - slack - most[j])
    return partial


def _ending(
    space: SearchSpace, groups: list[tuple[list[int], np.ndarray]], last: range, rows: np.ndarray
) -> np.ndarray:
    """What the groups whose last choice is one of `last` cost (m,)."""
    costs = np.zeros(len(rows))
    for columns, entries in groups:
        if max(columns) in last:
            costs += group_costs(entries, columns, rows, space.active(rows))
    return costs


def _extended(space: SearchSpace, partial: _Partial, j: int, worth: np.ndarray) -> _Partial:
    """Every beginning with every option of choice j; an inactive choice stands at its first, for nothing."""
    on = space.active_column(partial.rows, j)
    active = np.ones(len(partial.rows), bool) if on is None else on
    index = np.concatenate([np.flatnonzero(~active), np.repeat(np.flatnonzero(active), len(worth))])
    taken = np.concatenate([np.zeros((~active).sum(), INDEX), np.tile(np.arange(len(worth)), active.sum())])
    rows = partial.rows[index]
    rows[:, j] = taken
    return _Partial(
        rows, partial.worth[index] + np.where(active[index], worth[taken.astype(int)], 0), partial.costs[index]
    )


def _least_after(space: SearchSpace, groups: list[tuple[list[int], np.ndarray]]) -> np.ndarray:
    """The least (d,) that the groups which end after each choice can add: nothing, where they may not be there."""
    least = np.zeros(len(space))
    for columns, entries in groups:
        always = not any(space.choices[j].when for j in columns)
        least[: max(columns)] += entries.min() if always else min(0.0, entries.min())
    return least


def _most_after(space: SearchSpace, groups: list[tuple[list[int], np.ndarray]]) -> np.ndarray:
    """The most (d,) that the groups which end after each choice can add."""
    most = np.zeros(len(space))
    for columns, entries in groups:
        most[: max(columns)] += max(0.0, entries.max())
    return most


def _open_columns(space: SearchSpace, groups: list[tuple[list[int], np.ndarray]], j: int) -> list[int]:
    """The columns up to j that decide what choices after it are active or cost."""
    ends = [ancestors(space, columns) for columns, _ in groups if max(columns) > j]
    ends += [ancestors(space, [later]) for later in range(j + 1, len(space))]
    return sorted({column for read in ends for column in read if column <= j})


def _pruned(partial: _Partial, columns: list[int], n: int, bound: float, enough: float) -> _Partial:
    """Without the beginnings that n others with the same open ends are not dearer and not worth less than.

    Costs up to `enough`, with which anything that follows keeps to the bound, are all alike.
    """
    if not len(partial.rows):
        return partial
    same = np.zeros(len(partial.rows), int)
    if columns:
        same = np.unique(partial.rows[:, columns], axis=0, return_inverse=True)[1].ravel()
    costs = np.maximum(partial.costs, enough)
    order = np.lexsort((partial.costs, -partial.worth, costs, same))
    runs = np.split(order, np.flatnonzero(np.diff(same[order])) + 1)
    return partial.at(np.concatenate([_coarser(partial, _staircase(partial, run, n), n, bound) for run in runs]))


def _coarser(partial: _Partial, run: np.ndarray, n: int, bound: float) -> np.ndarray:
    """A list that is too long without those worth less than n others of about their cost; shorter ones as they are."""
    if len(run) <= _LONGEST:
        return run
    step = np.floor(partial.costs[run] * (_STEPS / abs(bound)))
    order = np.lexsort((-partial.worth[run], step))
    starts = np.concatenate([[0], np.flatnonzero(np.diff(step[order])) + 1])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return run[np.sort(order[rank < n])]


def _staircase(partial: _Partial, run: np.ndarray, n: int) -> np.ndarray:
    """Those of `run`, in rising order of cost, that fewer than n before them are worth as much as."""
    best: list[float] = []
    kept = []
    for i, worth in zip(run.tolist(), partial.worth[run].tolist(), strict=True):
        if len(best) < n:
            heapq.heappush(best, worth)
        elif worth > best[0]:
            heapq.heapreplace(best, worth)
        else:
            continue
        kept.append(i)
    return np.array(kept)
