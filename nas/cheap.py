"""Metrics that cost nothing to ask: those of any candidate, exactly."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence, Sized

import numpy as np

from nas.evaluating import Evaluate, Outcome, Outcomes, UserFunction, WrongForm, together
from nas.objectives import as_number
from search_spaces.space import INDEX, Architecture, SearchSpace
from search_spaces.value import Option

_PIECE = 1000  # architectures asked about at once
_TRIED = 3  # times that a function is timed, of which the fastest counts: a table may be loaded by the first
_TOGETHER = 64  # architectures that it is timed with, if it is slow with one
_SOME = 100  # architectures, of which one at least must have cheap metrics
_LONG_S = 60.0  # for all of them: more is not for nothing
_ENDLESS_S = 0.5  # for one architecture: too long to try with many

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
        try:
            own = self.of(np.array([arch.indices], dtype=INDEX))
        except ValueError as error:
            return error
        return {**{name: float(values[0]) for name, values in own.items()}, **outcome}

    def _ask(self, archs: Sequence[Architecture]) -> None:
        for done in self._outcomes(archs):
            for arch, outcome in done:
                if isinstance(outcome, Exception):
                    self._error = outcome
                metrics = outcome if isinstance(outcome, Mapping) else {}
                self._known[arch.indices] = tuple(as_number(metrics.get(name)) for name in self.names)


def cheap_metrics(
    space: SearchSpace, evaluate: UserFunction, cheap: Sequence[str] | Mapping[str, Column], seed: int, candidates: int
) -> CheapMetrics | None:
    """How `cheap` is asked; None where it names nothing.

    A mapping gives a function for each metric.  Names are asked of `evaluate`: with the argument `only` if it takes
    one, as it is otherwise, and then all it gives must cost nothing, as a table does.  Each is tried here.

    Args:
        candidates: how many architectures the search may want to know of.

    Raises:
        ValueError: `evaluate` takes long and cannot be asked for some metrics only, or does not give them.
        WrongForm: a function gives something else than one number for each architecture.
    """
    if not cheap:
        return None
    names, rng = tuple(cheap), np.random.default_rng(seed)
    ask = evaluate
    if isinstance(cheap, Mapping):
        ask = functools.partial(_rows, cheap)
    elif _takes_only(evaluate):
        ask = functools.partial(evaluate, only=names)  # type: ignore[call-arg]
    else:
        _check_fast(space, evaluate, names, rng, candidates)
    found = CheapMetrics(space, names, ask)
    found.of(space.sample(_TRIED, rng))
    return found


def _rows(columns: Mapping[str, Column], archs: list[dict[str, Option]]) -> list[dict[str, float]]:
    found = {name: column(archs) for name, column in columns.items()}
    for name, values in found.items():
        if not isinstance(values, Sized) or len(values) != len(archs):
            got = len(values) if isinstance(values, Sized) else repr(values)
            raise WrongForm(f"cheap[{name!r}] must give one number for each of {len(archs)}, got {got}")
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def _takes_only(evaluate: UserFunction) -> bool:
    try:
        parameters = inspect.signature(evaluate).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    return any(p.name == "only" for p in parameters)


def _check_fast(
    space: SearchSpace, evaluate: UserFunction, names: Sequence[str], rng: np.random.Generator, candidates: int
) -> None:
    """Refuses a function that would take minutes for all candidates, or that does not give what it is to be asked for.

    Raises:
        ValueError: it takes too long for all candidates, or its results lack a name.
    """
    each_s = _timed(space, evaluate, names, 1, rng)
    if candidates * each_s > _LONG_S and each_s < _ENDLESS_S:
        each_s = _timed(space, evaluate, names, _TOGETHER, rng)
    if candidates * each_s > _LONG_S:
        raise ValueError(
            f"cheap={tuple(names)} would ask evaluate about {candidates:,} candidates, and it takes {each_s:.2g} s for "
            f"one: give it an argument `only`, or write cheap={{{names[0]!r}: a function of its own}}"
        )


def _timed(space: SearchSpace, evaluate: UserFunction, names: Sequence[str], n: int, rng: np.random.Generator) -> float:
    """Seconds an architecture, of n asked about at once; the fastest of a few times.

    Raises:
        ValueError: what is given lacks a name.
    """
    archs = [Architecture(space, tuple(row)) for row in space.sample(n, rng).tolist()]
    seconds = []
    for _ in range(_TRIED):
        started_s = time.perf_counter()
        done = [outcome for outcomes in together(evaluate)(archs) for _, outcome in outcomes]
        seconds.append((time.perf_counter() - started_s) / n)
        for metrics in done:
            if isinstance(metrics, Mapping) and (missing := set(names) - set(metrics)):
                given = ", ".join(map(str, metrics))
                raise ValueError(f"cheap names {min(missing)!r}, which evaluate does not give; it gives {given}")
    return min(seconds)
