"""Whether this thread has its core to itself, by a loop of fixed work.

On shared machines a neighbour on the same physical core makes everything up to twice as slow, in CPU time as well, for
anything from a tenth of a millisecond to seconds.  A loop whose best time is known shows it as it happens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from latency.clock import SYSTEM_CLOCK, Clock

_LOOPS = 2000  # additions in the interpreter: a twentieth of a millisecond
_DISTURBED = 1.3  # times the best: beyond the loop's own jitter, below what a neighbour costs
_LEARNING_S, _MOST_RUNS = 1.5, 20_000  # how long the first wait looks for the best time
_GIVE_UP_S = 20.0  # in vain on end: then the machine has become slower, and its best is learnt again
_ALLOWANCE_S, _SHARE = 15.0, 0.7  # of waiting in all: so much, and this share of the time spent measuring
_INSISTED_S, _INSISTED_SHARE = 10.0, 0.2  # of waiting beyond that where one insists


class Pace:
    """Remembers how fast the loop was at its best; learnt at the first wait, and better ever after."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._best_s = math.inf
        self._worked_s = self._waited_s = self._insisted_s = self._in_vain_s = 0.0
        self._begun_s: float | None = None
        self._loops = self._disturbed_loops = 0
        self._watched_best_s = math.inf

    def is_disturbed(self) -> bool:
        """Whether the loop, run now, is slower than at its best."""
        start, total = self._clock.wall(), 0
        for i in range(_LOOPS):
            total += i
        took_s = self._clock.wall() - start
        self._best_s = min(self._best_s, took_s)
        self._watched_best_s = min(self._watched_best_s, took_s)
        return took_s > _DISTURBED * self._best_s

    def look(self) -> bool:
        """As `is_disturbed`, and counted."""
        disturbed = self.is_disturbed()
        self._loops += 1
        self._disturbed_loops += disturbed
        return disturbed

    def wait(self, patience_s: float, insist: bool = False) -> bool:
        """Runs the loop until it is undisturbed, for about `patience_s` at most; whether it became so.

        Shorter where much of the time of measuring has gone by waiting already.

        Args:
            insist: draws on an allowance that is kept for those who cannot do without.
        """
        if self._best_s == math.inf:
            self._learn()
        if not self.look():
            self._in_vain_s = 0.0
            return True
        start = self._clock.wall()
        left_s = min(patience_s, self._insistence_left_s if insist else self.patience_left_s)
        undisturbed = False
        while not undisturbed and self._clock.wall() - start < left_s:
            undisturbed = not self.look()
        waited_s = self._clock.wall() - start
        if insist:  # only where much was in vain already: it says nothing new of the machine
            self._insisted_s += waited_s
        else:
            self._waited_s += waited_s
            self._note_in_vain(waited_s, undisturbed)
        return undisturbed

    @property
    def counts(self) -> tuple[int, int]:
        """The loops that were run to wait or to look, and those of them that were disturbed."""
        return self._loops, self._disturbed_loops

    def watch_best(self) -> float:
        """The best time so far, in seconds; `watched_best_s` begins anew."""
        self._watched_best_s = math.inf
        return self._best_s

    @property
    def watched_best_s(self) -> float:
        """The best time since `watch_best`; infinite where the loop was not run."""
        return self._watched_best_s

    @property
    def patience_left_s(self) -> float:
        """How much more may go by in waiting: an allowance that grows with the time spent measuring."""
        return _ALLOWANCE_S + _SHARE * self._measuring_s - self._waited_s

    @property
    def _insistence_left_s(self) -> float:
        return _INSISTED_S + _INSISTED_SHARE * self._measuring_s - self._insisted_s

    @property
    def _measuring_s(self) -> float:
        """The time spent measuring so far."""
        return self._worked_s + (0.0 if self._begun_s is None else self._clock.wall() - self._begun_s)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """While measurements go on that waiting is part of."""
        self._begun_s = self._clock.wall()
        try:
            yield
        finally:
            self._worked_s += self._clock.wall() - self._begun_s
            self._begun_s = None

    def spend(self, seconds: float) -> None:
        """Counts other work as waiting: what is only done since the machine is disturbed."""
        self._waited_s += seconds

    def _note_in_vain(self, waited_s: float, undisturbed: bool) -> None:
        self._in_vain_s = 0.0 if undisturbed else self._in_vain_s + waited_s
        if self._in_vain_s >= _GIVE_UP_S:
            self._best_s, self._in_vain_s = math.inf, 0.0

    def _learn(self) -> None:
        start = self._clock.wall()
        for _ in range(_MOST_RUNS):
            self.is_disturbed()
            if not self._best_s or self._clock.wall() - start >= _LEARNING_S:  # 0: a clock that stands still
                break
