"""The methods of allocation, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quant_search.allocation import dynamic, greedy, milp, uniform
from quant_search.allocation.problem import Allocation


@dataclass(frozen=True)
class MethodEntry:
    """A method.

    Args:
        solve: from a problem, and settings by name, to an allocation; None where no choice keeps the budgets.
        exact: whether nothing better is possible, where settings do not say otherwise.
    """

    summary: str
    solve: Callable[..., Allocation | None]
    exact: bool


METHODS = {
    "milp": MethodEntry(
        summary="an integer programme by HiGHS, for any number of costs and pairs; `time_limit_s` (the default)",
        solve=milp.solve,
        exact=True,
    ),
    "dynamic-programming": MethodEntry(
        summary="the Pareto front of partial sums, layer by layer; `steps` rounds costs where the front is large",
        solve=dynamic.solve,
        exact=True,
    ),
    "greedy": MethodEntry(
        summary="one change at a time, the best trade first; the baseline",
        solve=greedy.solve,
        exact=False,
    ),
    "uniform": MethodEntry(
        summary="the best single option for all layers",
        solve=uniform.solve,
        exact=False,
    ),
}
