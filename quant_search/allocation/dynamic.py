"""Exact allocation by dynamic programming over layers, keeping the Pareto front of partial sums.

As layer-adaptive pruning by rate and distortion does on a grid (arXiv:2308.10438): of the sums of the first layers,
one that another dominates in what is minimised and in every budgeted cost cannot become better.  Where pairs have
amounts, there is a front for each combination of options that a later layer still meets, options with equal amounts
taken together: the classes of the last layer where pairs are neighbours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import moocore
import numpy as np

from quant_search.allocation.greedy import descend, refine
from quant_search.allocation.problem import Allocation, Pair, Problem, Table, alike, slack

MOST_SUMS = 20_000_000

Key = tuple[int, ...]  # an option for each layer that a later one is paired with


def solve(problem: Problem, *, steps: int | None = None) -> Allocation | None:
    """The choice with the least sum within the budgets; None where none is found.

    Time and memory go with the number of partial sums that no other dominates: for one budgeted cost at most `steps` a
    layer; exact sums of measured costs may be many.

    Args:
        steps: round each cost up to so many steps between its least sum and its budget.  Budgets are kept, and what is
            found is no worse than any choice that keeps them with (layers + pairs) steps to spare.  None: exact sums.

    Raises:
        ValueError: steps below 1, or more partial sums than there is memory for.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"dynamic programming takes at least 1 step, got {steps}")
    if steps is None:
        exact = _Walk(problem).choice()
        return None if exact is None else problem.allocation(exact, optimal=True)
    found = _Walk(_in_steps(problem, steps)).choice()
    return None if found is None else problem.allocation(refine(problem, found))  # what rounding up left unused


@dataclass(frozen=True, eq=False)
class _Front:
    """Partial sums (n, 1 + k), what is minimised first, and where they come from.

    Args:
        parents: (n,) places among the sums of the layers before.
        options: (n,) of the last layer.
    """

    sums: np.ndarray
    parents: np.ndarray
    options: np.ndarray

    def of(self, which: np.ndarray) -> _Front:
        """Some of them."""
        return _Front(self.sums[which], self.parents[which], self.options[which])


class _Walk:
    """Goes through the layers in order."""

    def __init__(self, problem: Problem) -> None:
        bounded = [(table, budget) for table, budget in problem.limits if math.isfinite(budget)]
        self._tables = [problem.objective, *(table for table, _ in bounded)]
        # Of a table without a budget, forbidden pairs alone count.
        self._free = [table for table, budget in problem.limits if not math.isfinite(budget)]
        self._layers = problem.layers
        self._options = [len(options) for options in problem.options]
        self._ahead = np.array([_least_ahead(table) for table in self._tables]).T
        known = descend(problem)  # no sum that passes a known one can become the least
        best = math.inf if known is None else problem.objective.total(refine(problem, known))
        least = best + 1e-9 * problem.objective.span
        self._most = np.array([least, *(budget + slack(table, budget) for table, budget in bounded)])

    def choice(self) -> list[int] | None:
        """The best choice, an option's place for each layer."""
        history: list[_Front] = []
        fronts: dict[Key, np.ndarray] = {(): np.zeros(1, dtype=int)}  # places among the sums
        sums = np.zeros((1, len(self._tables)))
        open_before: tuple[int, ...] = ()
        for layer in range(len(self._options)):
            still_open, classes = self._open(layer), self._classes(layer)
            met: dict[Key, list[_Front]] = {}
            for key, places in fronts.items():
                known = dict(zip(open_before, key, strict=True))
                for name, options, amounts in self._options_by_class(layer, known, classes):
                    found = self._extended(layer, sums[places], places, options, amounts)
                    known[layer] = name
                    met.setdefault(tuple(known[i] for i in still_open), []).append(found)
            kept = {key: _merged(parts) for key, parts in met.items()}
            history.append(_joined(list(kept.values()), len(self._tables)))
            sums, fronts, start = history[-1].sums, {}, 0
            for key, front in kept.items():
                fronts[key] = np.arange(start, start := start + len(front.sums))
            open_before = still_open
        return _traced(history)

    def _open(self, layer: int) -> tuple[int, ...]:
        """The layers up to this one that a later one is paired with."""
        pairs = [pair for table in (*self._tables, *self._free) for pair in table.pairs]
        return tuple(sorted({pair.first for pair in pairs if pair.first <= layer < pair.second}))

    def _options_by_class(
        self, layer: int, known: dict[int, int], classes: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Options (m,) of a layer that all later layers meet alike, with what each adds (m, 1 + k).

        Before them an option that stands for all of its class, possible here or not.
        """
        amounts = np.stack([_added(table, layer, known) for table in self._tables], axis=1)
        possible = np.isfinite(amounts).all(axis=1)
        for table in self._free:
            possible &= np.isfinite(_added(table, layer, known))
        for number in range(classes.max() + 1):
            options = np.flatnonzero(possible & (classes == number))
            if len(options):
                options = options[moocore.is_nondominated(amounts[options])]
                yield int(np.flatnonzero(classes == number)[0]), options, amounts[options]

    def _classes(self, layer: int) -> np.ndarray:
        """The class of each option of a layer: equal where all later layers meet them alike."""
        tables = (*self._tables, *self._free)
        later = [pair.array for table in tables for pair in table.pairs if pair.first == layer]
        if not later:
            return np.zeros(self._options[layer], dtype=int)
        return alike(np.concatenate(later, axis=1))[0]

    def _extended(
        self, layer: int, sums: np.ndarray, places: np.ndarray, options: np.ndarray, amounts: np.ndarray
    ) -> _Front:
        """Each sum with each option, without those that can no longer keep the budgets."""
        count = len(sums) * len(options)
        if count > MOST_SUMS:
            raise ValueError(
                f"dynamic programming meets {count:,} partial sums at layer {self._layers[layer]!r}: "
                "give `steps` to round them, or take method 'milp'"
            )
        grown = (sums[:, None] + amounts[None]).reshape(count, sums.shape[1])
        keeps = (grown + self._ahead[layer + 1] <= self._most).all(axis=1)
        parents, taken = np.repeat(places, len(options)), np.tile(options, len(sums))
        return _Front(grown, parents, taken).of(keeps)


def _in_steps(problem: Problem, steps: int) -> Problem:
    """The problem with each budgeted cost above its least sum in whole steps, rounded up, and budgets of `steps`."""
    tables, budgets = {table.name: table for table in problem.tables}, dict(problem.budgets)
    for table, budget in problem.limits:
        width = min(budget - _least_ahead(table)[0], table.span) / steps
        if width > 0 and math.isfinite(budget) and table is not problem.objective:
            tables[table.name], budgets[table.name] = _rounded(table, width), steps
    damage, *costs = tables.values()
    return dataclasses.replace(problem, damage=damage, costs=tuple(costs), budgets=budgets)


def _rounded(table: Table, width: float) -> Table:
    """Amounts above the least of each layer and pair, in steps of a width, rounded up."""

    def rounded(values: np.ndarray) -> list[float]:
        lowest = np.min(values[np.isfinite(values)], initial=math.inf)
        above = np.where(np.isfinite(values), values - lowest, math.inf)
        found: list[float] = np.ceil(above / width - 1e-9).tolist()  # what is whole but for rounding stays
        return found

    rows = tuple(tuple(rounded(np.array(row))) for row in table.rows)
    pairs = []
    for pair in table.pairs:
        flat = np.array(rounded(pair.array.ravel())).reshape(pair.array.shape)
        pairs.append(Pair(pair.first, pair.second, tuple(map(tuple, flat.tolist()))))
    return Table(table.name, rows, tuple(pairs))


def _least_ahead(table: Table) -> np.ndarray:
    """The least that the layers from each on can add, (layers + 1,); a pair is added at its second layer."""
    least = np.array([*(min(row) for row in table.rows), 0.0])
    for pair in table.pairs:
        least[pair.second] += pair.array.min()
    return np.cumsum(least[::-1])[::-1]


def _added(table: Table, layer: int, known: dict[int, int]) -> np.ndarray:
    """What each option of a layer adds beside the known options of layers before."""
    added = np.array(table.rows[layer])
    for pair in table.pairs:
        if pair.second == layer:
            added = added + pair.array[known[pair.first]]
    return added


def _joined(parts: list[_Front], width: int) -> _Front:
    if not parts:
        return _Front(np.zeros((0, width)), np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    return _Front(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("sums", "parents", "options")))


def _merged(parts: list[_Front]) -> _Front:
    """All parts without sums that another one dominates."""
    front = _joined(parts, parts[0].sums.shape[1])
    return front.of(moocore.is_nondominated(front.sums)) if len(front.sums) else front


def _traced(history: list[_Front]) -> list[int] | None:
    """The options that lead to the least of the last sums."""
    last = history[-1]
    if not len(last.sums):
        return None
    place, options = int(np.argmin(last.sums[:, 0])), []
    for front in reversed(history):
        options.append(int(front.options[place]))
        place = int(front.parents[place])
    return options[::-1]
