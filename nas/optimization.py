"""Search in any space for any function: `nas.optimize`."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from optuna.storages import BaseStorage, InMemoryStorage

from nas.cheap import CheapMetrics, Column, cheap_metrics
from nas.errors import CannotBeDone
from nas.evaluating import OfOne, UserFunction, one_by_one, together
from nas.journal import Journal
from nas.learning import learn_costs
from nas.loop import TooManyFailures, run_loop
from nas.metrics import MOST_OBJECTIVES
from nas.objectives import Bound, Evaluation, Objective, Problem
from nas.pareto import front
from nas.searchers.choosing import balanced
from nas.searchers.linas import LINAS
from nas.searchers.make import make_searcher
from nas.searchers.protocol import Searcher
from search_spaces.space import Architecture, SearchSpace

BATCH = 5  # evaluations between two fits: more cost little, and they may run side by side
INITIAL = 20  # random evaluations before the first fit, at most a quarter of a small budget
GENERATIONS = 40  # of the inner search for each batch
WALKED = 50_000  # architectures, up to which every one is a candidate


@dataclass(frozen=True)
class Optimization:
    """What `optimize` found.

    Args:
        evaluations: those that succeeded of what this search asked for, in that order; each has `.arch`, `.values` by
            objective name, `.costs` (lower is better), `.violation` of the constraints and `.provenance`.
        failures: the architectures whose evaluation failed, with the reason; of all that the storage holds.
        stopped: why the search ended before its budget, if it did: ten evaluations failed in a row, or a worker died.
    """

    space: SearchSpace
    problem: Problem
    evaluations: tuple[Evaluation, ...]
    failures: Mapping[Architecture, str]
    stopped: str | None = None

    @functools.cached_property
    def front(self) -> tuple[Evaluation, ...]:
        """The non-dominated and feasible evaluations, by their last cost from low to high."""
        return tuple(front(self.evaluations))


def optimize(
    space: SearchSpace,
    evaluate: UserFunction,
    objectives: Sequence[Objective],
    *,
    budget: int,
    searcher: str | Searcher = "linas",
    seed: int = 0,
    constraints: Mapping[str, float] | None = None,
    cheap: Sequence[str] | Mapping[str, Column] = (),
    batch: int = BATCH,
    executor: Executor | None = None,
    storage: BaseStorage | None = None,
    study: str = "optimize",
    on_evaluation: Callable[[Evaluation | None], None] = lambda _: None,
) -> Optimization:
    """Finds the architectures that are best by `evaluate`, within a budget of evaluations.

    Args:
        evaluate: from a list of assignments (choice name to option) to a list of dicts (metric name to value).  NaN or
            None for an architecture records it as failed, and so does an error; where a whole list was asked about,
            its architectures are then asked about again, one by one: give None if an evaluation takes long.
        objectives: of `nas.maximize(name)` and `nas.minimize(name)`, at most four.
        budget: evaluations, failed ones included.
        searcher: a name (see `nas/searchers/catalog.py`), or an object with `ask` and `tell`.
        constraints: metric name to its limit: the most of it, or the least where it is to be maximised.
        cheap: metrics that cost nothing to ask: names, or for each a function from a list of assignments to a list of
            numbers.  LINAS asks for them of every candidate and does not predict them; other searchers make no use of
            them.  Names are asked of `evaluate`: as `evaluate(archs, only=names)` if it has such an argument; if not,
            as it is.
        batch: how many are asked for at once; the next are asked for when all of them are done.
        executor: where `evaluate` is called, with one architecture at a time; by default here, with whole batches.
            Give it at most `batch` workers, others would be idle.
        storage: an Optuna storage, in which the evaluations are kept; what its `study` holds is not evaluated again.
        on_evaluation: told each one as it is done, None for a failed one.

    Raises:
        ValueError, TypeError: arguments that do not fit together, before the search begins; or results of another
            form.
        TooManyFailures: the first ten evaluations failed; it names the last reason.
        CannotBeDone: none succeeded.
    """
    problem = _problem(objectives, {} if constraints is None else constraints)
    _check_callable(evaluate, executor)
    _check_interfaces(searcher, executor, storage, on_evaluation)
    _check_counts(budget=budget, batch=batch, seed=seed)
    if not isinstance(space, SearchSpace):
        raise TypeError(f"space is a nas.SearchSpace, got {type(space).__name__}: of a module, nas.find_space gives it")
    _check_cheap(problem, cheap)
    if isinstance(searcher, str) and searcher != "linas":
        searcher = make_searcher(searcher, space, len(objectives), seed)
    wanted = cheap if searcher == "linas" or isinstance(cheap, Mapping) else ()  # others ask for none
    free = cheap_metrics(space, evaluate, wanted, seed, min(space.size, WALKED))
    evaluator = one_by_one(OfOne(evaluate), executor, (Exception,)) if executor else together(evaluate)
    if isinstance(cheap, Mapping) and free is not None:
        evaluator = free.completing(evaluator)
    journal = Journal(storage or InMemoryStorage(), study, space, problem, provenance="evaluated")
    if isinstance(searcher, str):
        searcher = _linas(space, problem, free, seed, _initial(journal, int(budget)))
    found: list[Evaluation] = []
    stopped = None
    try:
        run_loop(
            searcher,
            space,
            problem,
            evaluator,
            budget=budget,
            batch=batch,
            journal=journal,
            on_evaluation=on_evaluation,
            found=found,
        )
    except (TooManyFailures, BrokenExecutor) as error:
        if not found:
            raise
        stopped = str(error) if isinstance(error, TooManyFailures) else f"a worker died: {error}"
    failures = journal.failures
    if not found and failures:
        arch, reason = next(reversed(failures.items()))
        raise CannotBeDone(f"none of {len(failures)} evaluations succeeded; the last, of {arch}: {reason}")
    return Optimization(space, problem, tuple(found), failures, stopped)


def _linas(space: SearchSpace, problem: Problem, cheap: CheapMetrics | None, seed: int, initial: int) -> LINAS:
    """The default searcher."""
    return LINAS(
        space,
        learn_costs(space, problem, cheap),
        len(problem.objectives),
        seed,
        initial,
        admits=_admits(problem, cheap),
        choose=balanced,
        smooth=True,
        generations=GENERATIONS,
        population=100,
        walked=WALKED,
    )


def _problem(objectives: Sequence[Objective], constraints: Mapping[str, float]) -> Problem:
    """The objectives within the constraints.

    Raises:
        TypeError: something else than objectives or a dict of limits, or a limit that is no number.
        ValueError: none or too many, a name given twice, or a limit that is not finite.
    """
    if not isinstance(objectives, Sequence) or not all(isinstance(o, Objective) for o in objectives):
        raise TypeError(f"objectives is a list of nas.maximize(name) and nas.minimize(name), got {objectives!r}")
    names = [o.metric for o in objectives]
    if not 1 <= len(names) <= MOST_OBJECTIVES or len(set(names)) < len(names):
        raise ValueError(f"expected one to {MOST_OBJECTIVES} different objectives, got {', '.join(names) or 'none'}")
    if not isinstance(constraints, Mapping):
        raise TypeError(f"constraints is a dict of metric names and limits, got {constraints!r}")
    for name, limit in constraints.items():
        if isinstance(limit, bool) or not isinstance(limit, Real):
            raise TypeError(f"constraints[{name!r}] is a number, got {limit!r}")
        if not math.isfinite(limit):
            raise ValueError(f"constraints[{name!r}] must be finite, got {limit}: leave it out for no constraint")
    large = {o.metric for o in objectives if o.maximise}
    bounds = tuple(Bound(name, float(limit), at_least=name in large) for name, limit in constraints.items())
    return Problem(tuple(objectives), bounds)


def _check_counts(**counts: int) -> None:
    """Refuses counts that are not whole numbers from 1 on (a seed: from 0 on)."""
    for name, count in counts.items():
        least = 0 if name == "seed" else 1
        if isinstance(count, bool) or not isinstance(count, Integral):
            raise TypeError(f"{name} is a whole number, got {count!r}")
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")


def _check_cheap(problem: Problem, cheap: Sequence[str] | Mapping[str, Column]) -> None:
    """Refuses cheap metrics that nothing needs.

    Raises:
        TypeError: a single text instead of names, or something that cannot be called instead of a function.
        ValueError: a name that is no objective or constraint.
    """
    if isinstance(cheap, str):
        raise TypeError(f"cheap is a tuple of names or a dict of functions, got the text {cheap!r}: write ({cheap!r},)")
    if not isinstance(cheap, (Sequence, Set, Mapping)):
        raise TypeError(f"cheap is a tuple of names or a dict of functions, got {cheap!r}")
    for name, column in cheap.items() if isinstance(cheap, Mapping) else ():
        if not callable(column):
            raise TypeError(f"cheap[{name!r}] is a function of a list of architectures, got {column!r}")
    for name in cheap:
        if name not in problem.metrics:
            needed = ", ".join(sorted(problem.metrics))
            raise ValueError(f"cheap names {name!r}, which is no objective or constraint; these are {needed}")


def _admits(problem: Problem, cheap: CheapMetrics | None) -> Callable[[np.ndarray], np.ndarray] | None:
    """Which rows (n,) of a population (n, d) keep to the bounds on cheap metrics; None where there are none."""
    bounds = [bound for bound in problem.bounds if cheap is not None and bound.metric in cheap.names]
    if cheap is None or not bounds:
        return None

    def admitted(population: np.ndarray) -> np.ndarray:
        metrics = cheap.of(population)
        return np.all([bound.excess(metrics[bound.metric]) == 0 for bound in bounds], axis=0)

    return admitted


def _initial(journal: Journal, budget: int) -> int:
    """How many random evaluations come first: as many as when the study was begun, whatever the budget is now."""
    attributes = journal.study.user_attrs
    if "initial" not in attributes:
        journal.study.set_user_attr("initial", max(2, min(INITIAL, budget // 4)))
    return int(journal.study.user_attrs["initial"])


def _check_interfaces(searcher: object, executor: object, storage: object, on_evaluation: object) -> None:
    """Refuses objects that cannot do what they are for.

    Raises:
        TypeError: no searcher, executor, Optuna storage or function.
    """
    if not isinstance(searcher, str) and (isinstance(searcher, type) or not hasattr(searcher, "ask")):
        raise TypeError(f"searcher is a name or an object with `ask` and `tell`, got {searcher!r}")
    if executor is not None and not hasattr(executor, "submit"):
        raise TypeError(f"executor is a concurrent.futures.Executor, got {executor!r}")
    if storage is not None and not isinstance(storage, BaseStorage):
        raise TypeError(f"storage is an Optuna storage, such as optuna.storages.RDBStorage(url), got {storage!r}")
    if not callable(on_evaluation):
        raise TypeError(f"on_evaluation is a function of an evaluation, got {on_evaluation!r}")


def _check_callable(evaluate: UserFunction, executor: Executor | None) -> None:
    """Refuses what cannot be called, here or in another process.

    Raises:
        TypeError: no function, or one that a process pool cannot be sent.
    """
    if not callable(evaluate):
        raise TypeError(f"evaluate is a function of a list of architectures, got {evaluate!r}")
    if isinstance(executor, ProcessPoolExecutor):
        try:
            pickle.dumps(evaluate)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"evaluate cannot be sent to another process ({error}): define it in a module") from error
