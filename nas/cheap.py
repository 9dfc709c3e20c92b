"""Metrics that cost nothing to ask: those of any candidate, exactly."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas.evaluating import Evaluate, Outcome, Outcomes, UserFunction, WrongForm, together
from nas.objectives import as_number
from search_spaces.space import INDEX, Architecture, SearchSpace
from search_spaces.value import Option

_PIECE = 1000  # architectures asked about at once
_TRIED = 3  # times that a function is timed, of which the fastest counts: a table may be loaded by the first
_SOME = 100  # architectures, of which one at least must have cheap metrics
_SLOW_S = 0.05  # for one architecture: more is not for nothing

Column = Callable[[list[dict[str, Option]]], Sequence[float]]
"""From assignments to one metric of each."""


class CheapMetrics:
    """Asks about each architecture once.

    Args:
        ask: from assignments to the metrics `names` of each; what it raises for makes them NaN.
    """

    def __init__(self, space: SearchSpace, names: Sequence[str], ask: UserFunction) -> None:
        self.names = tuple(names)
        self._space, self._outcomes = space, together(ask)
        self._known: dict[tuple[int, ...], tuple[float, ...]] = {}
        self._some = False  # whether any architecture has some
        self._error: Exception | None = None

    def of(self, population: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics (n,) of a population (n, d) by name, NaN where there are none.

        Raises:
            ValueError: not one of many architectures has any.
        """
        rows = list(map(tuple, population.tolist()))
        new = list(dict.fromkeys(row for row in rows if row not in self._known))
        for start in range(0, len(new), _PIECE):
            self._ask([Architecture(self._space, row) for row in new[start : start + _PIECE]])
        found = np.array([self._known[row] for row in rows], dtype=float).reshape(len(rows), len(self.names))
        self._some |= bool(np.isfinite(found).any())
        if not self._some and len(self._known) >= _SOME:
            raise ValueError(
                f"none of {len(self._known)} architectures has the cheap metrics {', '.join(self.names)}"
                + (f"; the last error: {type(self._error).__name__}: {self._error}" if self._error else "")
            )
        return dict(zip(self.names, found.T, strict=True))

    def completing(self, evaluate: Evaluate) -> Evaluate:
        """`evaluate`, with these metrics where it gives none of that name."""

        def outcomes(archs: Sequence[Architecture]) -> Outcomes:
            for done in evaluate(archs):
                yield [(arch, self._completed(arch, outcome)) for arch, outcome in done]

        return outcomes

    def _completed(self, arch: Architecture, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Exception):
            return outcome
        if not isinstance(outcome, Mapping):
            return TypeError(f"evaluate must give a dict for each architecture, got {outcome!r}")
        own = self.of(np.array([arch.indices], dtype=INDEX))
        return {**{name: float(values[0]) for name, values in own.items()}, **outcome}

    def _ask(self, archs: Sequence[Architecture]) -> None:
        for done in self._outcomes(archs):
            for arch, outcome in done:
                if isinstance(outcome, Exception):
                    self._error = outcome
                metrics = outcome if isinstance(outcome, Mapping) else {}
                self._known[arch.indices] = tuple(as_number(metrics.get(name)) for name in self.names)


def cheap_metrics(
    space: SearchSpace, evaluate: UserFunction, cheap: Sequence[str] | Mapping[str, Column], seed: int
) -> CheapMetrics | None:
    """How `cheap` is asked; None where it names nothing.

    A mapping gives a function for each metric.  Names are asked of `evaluate`: with the argument `only` if it takes
    one, as it is otherwise, and then all it gives must cost nothing, as a table does.

    Raises:
        ValueError: `evaluate` takes long and cannot be asked for some metrics only.
    """
    if not cheap:
        return None
    names = tuple(cheap)
    if isinstance(cheap, Mapping):
        return CheapMetrics(space, names, lambda archs: _rows(cheap, archs))
    if _takes_only(evaluate):
        return CheapMetrics(space, names, lambda archs: evaluate(archs, only=names))  # type: ignore[call-arg]
    _check_fast(space, evaluate, names, seed)
    return CheapMetrics(space, names, evaluate)


def _rows(columns: Mapping[str, Column], archs: list[dict[str, Option]]) -> list[dict[str, float]]:
    found = {name: list(column(archs)) for name, column in columns.items()}
    for name, values in found.items():
        if len(values) != len(archs):
            raise WrongForm(f"cheap[{name!r}] must give one number for each of {len(archs)}, got {len(values)}")
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def _takes_only(evaluate: UserFunction) -> bool:
    try:
        parameters = inspect.signature(evaluate).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    return any(p.name == "only" for p in parameters)


def _check_fast(space: SearchSpace, evaluate: UserFunction, names: Sequence[str], seed: int) -> None:
    """Refuses a function that would take minutes for the thousands of candidates.

    Raises:
        ValueError: it takes more than 50 ms an architecture.
    """
    (row,) = space.sample(1, np.random.default_rng(seed)).tolist()
    seconds = []
    for _ in range(_TRIED):
        started_s = time.perf_counter()
        list(together(evaluate)([Architecture(space, tuple(row))]))
        seconds.append(time.perf_counter() - started_s)
    each_s = min(seconds)
    if each_s > _SLOW_S:
        raise ValueError(
            f"cheap={tuple(names)} would ask evaluate about thousands of candidates, and it takes {each_s:.2g} s for "
            f"one: give it an argument `only`, or write cheap={{{names[0]!r}: a function of its own}}"
        )
