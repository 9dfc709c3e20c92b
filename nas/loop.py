"""The one loop that joins ask, evaluate and tell.

Source: the ask/tell scheme of pyribs and cmaes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import closing

from nas.errors import CannotBeDone
from nas.journal import Journal
from nas.objectives import Evaluation, Problem
from nas.searchers.protocol import Searcher
from search_spaces.space import Architecture, SearchSpace

Measure = Callable[[Architecture], dict[str, float]]
MAX_FAILURES = 10  # in a row, after which something is wrong with more than one architecture


class TooManyFailures(CannotBeDone):
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
    did and goes on from there.  A failure is remembered too; it counts among those in a row, but only a new
    one stops the run, so that a run whose cause of failure was mended goes on.

    Args:
        measure: from an architecture to its metrics; runs on the executor.
        on_evaluation: told after each one, None for a failed one.

    Raises:
        TooManyFailures: `MAX_FAILURES` evaluations in a row failed; it names the last reason.
        BrokenExecutor: a worker died; what was recorded stays.
    """
    found: list[Evaluation] = []
    asked, failures = 0, 0
    while asked < budget:
        rows = searcher.ask(min(batch, budget - asked))
        if not len(rows):
            break  # the space, or the searcher's list, is used up
        asked += len(rows)
        archs = [Architecture(space, tuple(row)) for row in rows.tolist()]
        with closing(_settle(archs, measure, problem, journal, executor)) as settled:
            for arch, error in settled:
                evaluation = journal.find(arch)
                on_evaluation(evaluation)
                failures = failures + 1 if evaluation is None else 0
                if error is not None and failures >= MAX_FAILURES:
                    raise TooManyFailures(f"the last {failures} evaluations failed; of {arch}: {error}") from error
        told = [evaluation for arch in archs if (evaluation := journal.find(arch)) is not None]
        searcher.tell(told)
        found.extend(told)
    return found


def _settle(
    archs: Sequence[Architecture], measure: Measure, problem: Problem, journal: Journal, executor: Executor
) -> Generator[tuple[Architecture, Exception | None], None, None]:
    """Gives out each architecture once the journal holds its outcome, with the error where it failed just now.

    Known ones come first, the others as they are done, so that a slow one holds up no record.
    """
    journal.refresh()
    pending = {arch: executor.submit(measure, arch) for arch in archs if arch not in journal}
    try:
        yield from [(arch, None) for arch in archs if arch not in pending]
        while pending:
            done = wait(pending.values(), return_when=FIRST_COMPLETED).done
            ready = [arch for arch, future in pending.items() if future in done]
            yield from [(arch, _record(arch, pending.pop(arch), problem, journal)) for arch in ready]
    finally:
        for future in pending.values():
            future.cancel()


def _record(
    arch: Architecture, future: Future[dict[str, float]], problem: Problem, journal: Journal
) -> Exception | None:
    """Journals what came of `arch`; the error if it failed."""
    try:
        evaluation = problem.evaluation(arch, future.result(), journal.provenance)
    except BrokenExecutor:  # a worker died, which says nothing about this architecture
        raise
    except (ValueError, ArithmeticError, RuntimeError) as error:
        journal.record_failure(arch, f"{type(error).__name__}: {error}")
        return error
    journal.record(evaluation)
    return None
