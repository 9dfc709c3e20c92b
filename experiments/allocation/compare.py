"""Methods of allocation side by side under several budgets."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quant_search.allocate import Allocation, Problem, allocate


@dataclass(frozen=True)
class Row:
    """What a method found under budgets, None where it found nothing, and its CPU time in seconds."""

    budgets: Mapping[str, float]
    method: str
    found: Allocation | None
    seconds: float

    def excess(self, best: float) -> str:
        """By how much its damage is above the best, in percent."""
        return "" if self.found is None else f"{100 * (self.found.damage / best - 1):.2f} %"


def compare(problem: Problem, budgets: Iterable[Mapping[str, float]], methods: Iterable[str]) -> list[Row]:
    """Every method under every budget."""
    methods = tuple(methods)
    rows = []
    for these in budgets:
        bounded = dataclasses.replace(problem, budgets=dict(these))
        for method in methods:
            started_s = time.process_time()
            try:
                found = allocate(bounded, method)
            except ValueError:
                found = None
            rows.append(Row(these, method, found, time.process_time() - started_s))
    return rows


def least_damage(rows: Iterable[Row], budgets: Mapping[str, float]) -> float:
    """The least damage that any method found under the budgets."""
    return min(row.found.damage for row in rows if row.found is not None and row.budgets == budgets)
