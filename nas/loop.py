"""The one loop that joins ask, evaluate and tell.

Source: the ask/tell scheme of pyribs and cmaes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from nas.errors import CannotBeDone
from nas.evaluating import Evaluate, Outcome
from nas.journal import Journal
from nas.objectives import Evaluation, Problem
from nas.searchers.protocol import Searcher
from search_spaces.space import Architecture, SearchSpace

MAX_FAILURES = 10  # in a row, after which something is wrong with more than one architecture


class TooManyFailures(CannotBeDone):
    """Every one of the last `MAX_FAILURES` evaluations failed."""


def run_loop(
    searcher: Searcher,
    space: SearchSpace,
    problem: Problem,
    evaluate: Evaluate,
    *,
    budget: int,
    batch: int,
    journal: Journal,
    on_evaluation: Callable[[Evaluation | None], None] = lambda _: None,
    found: list[Evaluation] | None = None,
) -> list[Evaluation]:
    """Spends `budget` real evaluations, `batch` at a time, and returns those that succeeded, in order asked.

    An architecture that the journal knows is not measured again, so a run that was stopped replays what it
    did and goes on from there.  A failure is remembered too; it counts among those in a row, but only a new
    one stops the run, so that a run whose cause of failure was mended goes on.

    Args:
        evaluate: see `nas/evaluating.py`; not asked about what the journal knows.
        on_evaluation: told after each one, None for a failed one.
        found: where those that succeeded are kept, also when an error ends the loop.

    Raises:
        TooManyFailures: `MAX_FAILURES` evaluations in a row failed; it names the last reason.
        ValueError: the searcher asks for something that is not in the space, or for too many.
        BrokenExecutor: a worker died; what was recorded stays.
    """
    found = [] if found is None else found
    asked, failures = 0, 0
    while asked < budget:
        archs = _asked(searcher, min(batch, budget - asked), space)
        if not archs:
            break  # the space, or the searcher's list, is used up
        asked += len(archs)
        try:
            with closing(_settle(archs, evaluate, problem, journal)) as settled:
                for arch, error in settled:
                    evaluation = journal.find(arch)
                    on_evaluation(evaluation)
                    failures = failures + 1 if evaluation is None else 0
                    if error is not None and failures >= MAX_FAILURES:
                        raise TooManyFailures(f"the last {failures} evaluations failed; of {arch}: {error}") from error
        finally:
            told = [evaluation for arch in archs if (evaluation := journal.find(arch)) is not None]
            found.extend(told)
        searcher.tell(told)
    return found


def _asked(searcher: Searcher, n: int, space: SearchSpace) -> list[Architecture]:
    """The different architectures (≤ n) that a searcher, which may be a user's own, asks for.

    Raises:
        ValueError: rows that are not of the space, or more than n.
    """
    rows = searcher.ask(n)
    if len(rows) > n:
        raise ValueError(f"{type(searcher).__name__}.ask({n}) must give at most {n} architectures, got {len(rows)}")
    if not len(rows):
        return []
    return list(dict.fromkeys(Architecture(space, tuple(row)) for row in space.canonical(rows).tolist()))


def _settle(
    archs: Sequence[Architecture], evaluate: Evaluate, problem: Problem, journal: Journal
) -> Generator[tuple[Architecture, Exception | None], None, None]:
    """Gives out each architecture once the journal holds its outcome, with the error where it failed just now.

    Known ones come first, the others as they are done, so that a slow one holds up no record.
    """
    journal.refresh()
    new = [arch for arch in archs if arch not in journal]
    yield from [(arch, None) for arch in archs if arch in journal]
    if new:
        with closing(evaluate(new)) as outcomes:
            for done in outcomes:
                yield from [(arch, _record(arch, outcome, problem, journal)) for arch, outcome in done]


def _record(arch: Architecture, outcome: Outcome, problem: Problem, journal: Journal) -> Exception | None:
    """Journals what came of `arch`; the error if it failed."""
    try:
        if isinstance(outcome, Exception):
            raise outcome
        evaluation = problem.evaluation(arch, outcome, journal.provenance)
    except Exception as error:  # noqa: BLE001 - which errors are failures, the evaluator has decided
        journal.record_failure(arch, f"{type(error).__name__}: {error}")
        return error
    journal.record(evaluation)
    return None
