"""The one loop that joins ask, evaluate and tell.

Source: the ask/tell scheme of pyribs and cmaes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from nas.journal import Journal
from nas.objectives import Evaluation, Problem
from nas.searchers.protocol import Searcher
from search_spaces.space import Architecture, SearchSpace

Measure = Callable[[Architecture], dict[str, float]]
MAX_FAILURES = 10  # in a row, after which something is wrong with more than one architecture


class TooManyFailures(RuntimeError):
    """Every one of the last `MAX_FAILURES` evaluations failed."""


def run_loop(
    searcher: Searcher,
    space: SearchSpace,
    problem: Problem,
    measure: Measure,
    *,
    budget: int,
    batch: int,
    journal: Journal,
    executor: Executor,
    on_evaluation: Callable[[Evaluation | None], None] = lambda _: None,
) -> list[Evaluation]:
    """Spends `budget` real evaluations, `batch` at a time, and returns those that succeeded, in order asked.

    An architecture that the journal knows is not measured again, so a run that was stopped replays what it
    did and goes on from there.

    Args:
        measure: from an architecture to its metrics; runs on the executor.
        on_evaluation: told after each one, None for a failed one.

    Raises:
        TooManyFailures: ten evaluations in a row failed; the last reason is its cause.
    """
    found: list[Evaluation] = []
    asked, failures = 0, 0
    while asked < budget:
        rows = searcher.ask(min(batch, budget - asked))
        if not len(rows):
            break  # the space, or the searcher's list, is used up
        asked += len(rows)
        archs = [Architecture(space, tuple(row)) for row in rows.tolist()]
        told = []
        for arch, outcome in zip(archs, _outcomes(archs, measure, problem, journal, executor), strict=True):
            if isinstance(outcome, Evaluation):
                failures = 0
                told.append(outcome)
            else:
                failures += 1
                if failures >= MAX_FAILURES:
                    raise TooManyFailures(f"the last {failures} evaluations failed, e.g. {arch}") from outcome
            on_evaluation(outcome if isinstance(outcome, Evaluation) else None)
        searcher.tell(told)
        found.extend(told)
    return found


def _outcomes(
    archs: Sequence[Architecture], measure: Measure, problem: Problem, journal: Journal, executor: Executor
) -> Iterator[Evaluation | Exception | None]:
    """What is known or found of each architecture, in order; each is journaled before it is given out."""
    futures = {arch: executor.submit(measure, arch) for arch in archs if arch not in journal}
    try:
        for arch in archs:
            if arch not in futures:
                yield journal.find(arch)
                continue
            try:
                evaluation = problem.evaluation(arch, futures[arch].result(), "verified")
            except (ValueError, ArithmeticError, RuntimeError) as error:
                journal.record_failure(arch, str(error))
                yield error
                continue
            journal.record(evaluation)
            yield evaluation
    finally:
        for future in futures.values():
            future.cancel()
