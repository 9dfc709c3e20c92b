"""The most probable architectures of about each of several costs: from one search, a front.

A bound on cost names one architecture. Below it the most probable ones that cost less follow from the same
probabilities; above what is most probable of all, those that cost more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces.space import INDEX, SearchSpace
from supernet.relaxed.best import best_architectures, fastest_cost
from supernet.relaxed.cost_table import CostTable

_MORE = 8  # times as many as are wanted are looked at above the most probable one, where some cost too much


def cost_levels(space: SearchSpace, table: CostTable, max_cost: float | None, n: int) -> list[float]:
    """n costs in seconds at even ratios, from that of the fastest architecture to `max_cost`, in rising order.

    Without a bound, or with one that all keep to, to the cost of the dearest architecture. One where n is 1: the
    greatest. Fewer where all architectures cost the same.
    """
    low, high = fastest_cost(space, table), dearest_cost(space, table)
    high = max(low, high if max_cost is None else min(high, max_cost))
    levels = np.geomspace(high, low, n).clip(low, high)  # rounding would leave a level that nothing costs
    return list(dict.fromkeys(levels.tolist()))[::-1]


def dearest_cost(space: SearchSpace, table: CostTable) -> float:
    """The greatest cost of any architecture, in seconds."""
    return -fastest_cost(space, negative(table))


def negative(table: CostTable) -> CostTable:
    """The table whose costs are those of `table` below zero: an upper bound on them is a lower one on the costs."""
    return CostTable(-table.base, {names: -costs for names, costs in table.tables.items()})


def along(
    logits: Mapping[str, np.ndarray],
    space: SearchSpace,
    table: CostTable,
    levels: Sequence[float],
    each: int = 1,
    max_cost: float | None = None,
) -> np.ndarray:
    """The `each` most probable architectures (n, d) of each level of cost, cheapest first; no one twice.

    Of a level they are those that cost at most so much, up to the first level at which this is the most probable
    architecture of all. Of levels above it they are those that cost at least the middle between this and the level
    before, or the most probable one would be all that is found. None costs more than `max_cost`; fewer where there are
    no more.

    Args:
        levels: in rising order, none below what the fastest architecture costs.
    """
    mode_s = float(table.costs(space, best_architectures(logits, space, table, max_cost))[0])
    wanted = each * (len(levels) + 1)  # some of those that are most probable here were taken at a level before
    taken: dict[tuple[int, ...], None] = {}
    for i, level in enumerate(levels):
        if not i or levels[i - 1] < mode_s:
            rows = best_architectures(logits, space, table, level, wanted)
        else:
            least = math.sqrt(level * levels[i - 1])
            rows = best_architectures(logits, space, negative(table), -least, _MORE * wanted)
            rows = rows[table.costs(space, rows) <= level]
        taken |= dict.fromkeys([row for row in map(tuple, rows.tolist()) if row not in taken][:each])
    found = np.array(list(taken), dtype=INDEX).reshape(len(taken), len(space))
    return found[np.argsort(table.costs(space, found), kind="stable")]
