"""Objectives and evaluations: what is optimised, and what was found for one architecture.

Everything optimised is a *cost*: finite, lower is better.  The sense of an objective is applied here, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.space import Architecture


def as_number(value: object) -> float:
    """A number of any library as a float, NaN for what is none; texts are none."""
    try:
        return math.nan if isinstance(value, (str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


@dataclass(frozen=True)
class Objective:
    """A metric to be made small or large."""

    metric: str
    maximise: bool

    def cost(self, value: float) -> float:
        """The cost of a value of the metric."""
        return -value if self.maximise else value


def maximize(metric: str) -> Objective:
    """The objective that `metric` be large."""
    return Objective(metric, maximise=True)


def minimize(metric: str) -> Objective:
    """The objective that `metric` be small."""
    return Objective(metric, maximise=False)


@dataclass(frozen=True)
class Bound:
    """A limit on a metric: at most `limit`, or at least it."""

    metric: str
    limit: float
    at_least: bool = False

    def excess(self, values: np.ndarray | float) -> np.ndarray:
        """By how much values (n,), or one, break the bound, relative to the limit; 0 where it holds."""
        beyond = self.limit - values if self.at_least else values - self.limit
        excess: np.ndarray = np.maximum(0.0, beyond / max(abs(self.limit), 1e-12))
        return excess


@dataclass(frozen=True)
class Evaluation:
    """What is known about one architecture.

    Args:
        values: metric name to value, in SI base units.
        costs: one per objective, lower is better.
        violation: the summed relative excess over all bounds; 0 where all hold.
        provenance: `predicted`, `inherited`, `evaluated` (by a function of the user's) or `verified`.

    Raises:
        ValueError: a cost or violation that is not finite.
    """

    arch: Architecture
    values: Mapping[str, float]
    costs: tuple[float, ...]
    violation: float
    provenance: str

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.costs, self.violation))):
            raise ValueError(
                f"costs and violation must be finite, got {self.costs} and {self.violation} for {self.arch}"
            )


@dataclass(frozen=True)
class Problem:
    """The objectives of a search and its bounds."""

    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are optimised, in order."""
        return tuple(o.metric for o in self.objectives)

    @property
    def metrics(self) -> frozenset[str]:
        """The names of all metrics that an objective or bound needs."""
        return frozenset(o.metric for o in self.objectives) | {b.metric for b in self.bounds}

    def evaluation(self, arch: Architecture, metrics: Mapping[str, float], provenance: str) -> Evaluation:
        """The evaluation of `arch` with these metrics.

        Raises:
            ValueError: a metric that an objective or bound needs is missing or not finite.
        """
        for name in sorted(self.metrics):
            got = metrics.get(name, "missing")
            if not math.isfinite(as_number(got)):
                raise ValueError(f"metric {name!r} of {arch} is {got}: expected a finite number")
        # Plain floats, also of NumPy's and torch's; what is no number, such as a name, is of no use here.
        values = {name: number for name, value in metrics.items() if not math.isnan(number := as_number(value))}
        costs = tuple(o.cost(values[o.metric]) for o in self.objectives)
        violation = float(sum(b.excess(values[b.metric]) for b in self.bounds))
        return Evaluation(arch, values, costs, violation, provenance)

    def costs(self, metrics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Costs (n, m) and violations (n,) of n architectures whose metrics are given as arrays (n,).

        Raises:
            ValueError: a cost or violation that is not finite.
        """
        columns = [-metrics[o.metric] if o.maximise else metrics[o.metric] for o in self.objectives]
        violation = np.zeros(len(columns[0]))
        for b in self.bounds:
            violation += b.excess(metrics[b.metric])
        costs = np.column_stack(columns)
        if not (np.isfinite(costs).all() and np.isfinite(violation).all()):
            names = sorted(name for name, values in metrics.items() if not np.isfinite(values).all())
            raise ValueError(f"metrics must be finite, got others for {', '.join(names)}")
        return costs, violation


def cost_array(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """The costs of evaluations as an array (n, m)."""
    return np.array([e.costs for e in evaluations], dtype=float)
