"""What is found of a batch of architectures, and how: by a function of one or of many, here or on an executor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait

from search_spaces.space import Architecture
from search_spaces.value import Option

Measure = Callable[[Architecture], Mapping[str, float]]
"""From an architecture to its metrics."""

Outcome = Mapping[str, float] | Exception
"""The metrics of an architecture by name, or why there are none."""

Outcomes = Generator[list[tuple[Architecture, Outcome]], None, None]
Evaluate = Callable[[Sequence[Architecture]], Outcomes]
"""Gives out each architecture of a batch once with what came of it, those together that are done."""

UserFunction = Callable[[list[dict[str, Option]]], Sequence[Mapping[str, float] | None]]
"""From assignments (choice name to option) to the metrics of each; None for one that failed."""


class WrongForm(TypeError):
    """A user's function gave something of another form than asked: no failure of an architecture, but a mistake."""


def one_by_one(
    measure: Measure,
    executor: Executor,
    failures: tuple[type[Exception], ...] = (ValueError, ArithmeticError, RuntimeError),
) -> Evaluate:
    """Measures each architecture on an executor.

    Args:
        failures: the errors that say something about an architecture; others end the search, and so does a worker
            that died.
    """

    def outcomes(archs: Sequence[Architecture]) -> Outcomes:
        pending = {arch: executor.submit(measure, arch) for arch in archs}
        try:
            while pending:
                done = wait(pending.values(), return_when=FIRST_COMPLETED).done
                # What is done is recorded before a worker that died ends it all.
                ready = [arch for arch, future in pending.items() if future in done and not _died(future)]
                ready = ready or [arch for arch, future in pending.items() if future in done]
                yield [(arch, _outcome(pending.pop(arch), failures)) for arch in ready]
        finally:
            for future in pending.values():
                future.cancel()

    return outcomes


def _died(future: Future[Mapping[str, float]]) -> bool:
    return isinstance(future.exception(), BrokenExecutor)


def _outcome(future: Future[Mapping[str, float]], failures: tuple[type[Exception], ...]) -> Outcome:
    """What came of one that is done.

    Raises:
        Exception: what says nothing about the architecture.
    """
    error = future.exception()
    if isinstance(error, failures) and not isinstance(error, (BrokenExecutor, WrongForm)):
        return error
    return future.result()


def together(function: UserFunction) -> Evaluate:
    """Asks a user's function for a whole batch at once; where it raises, for each architecture alone."""

    def outcomes(archs: Sequence[Architecture]) -> Outcomes:
        try:
            found = function([dict(arch.assignment) for arch in archs])
        except WrongForm:
            raise
        except Exception as error:  # noqa: BLE001 - a user's function may fail in any way
            if len(archs) == 1:
                yield [(archs[0], error)]
                return
            for arch in archs:
                yield from outcomes([arch])
            return
        _check_number(found, len(archs))
        none = ValueError("evaluate gave None")
        yield [(arch, none if metrics is None else metrics) for arch, metrics in zip(archs, found, strict=True)]

    return outcomes


class OfOne:
    """A user's function as one of a single architecture, to be sent to an executor."""

    def __init__(self, function: UserFunction) -> None:
        self._function = function

    def __call__(self, arch: Architecture) -> Mapping[str, float]:
        """The metrics of an architecture.

        Raises:
            Exception: whatever the function raises.
        """
        found = self._function([dict(arch.assignment)])
        _check_number(found, 1)
        if found[0] is None:
            raise ValueError("evaluate gave None")
        return found[0]


def _check_number(found: Sequence[object], n: int) -> None:
    """Refuses anything but one result for each architecture.

    Raises:
        WrongForm: another number of results, none that can be counted, or something else than dicts and None.
    """
    if not isinstance(found, Sequence) or len(found) != n:
        got = f"{len(found)} results" if isinstance(found, Sequence) else f"a {type(found).__name__}"
        raise WrongForm(f"evaluate must return a list with one dict for each of {n} architectures, got {got}")
    for metrics in found:
        if metrics is not None and not isinstance(metrics, Mapping):
            raise WrongForm(f"evaluate must give a dict (or None) for each architecture, got {metrics!r}")
