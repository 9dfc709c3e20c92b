"""The latency of models that are called whole: timed interleaved, and who else used the machine meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latency.contention import Contention, Watch
from latency.pace import Pace
from latency.runtimes.session import Session
from latency.timing import Call, Timing, measure_interleaved


@dataclass(frozen=True)
class Effort:
    """How much is spent on one timing.

    Args:
        rounds: fresh sessions of the model that must be undisturbed, of `most_rounds` at most.
        samples: per round, each lasting at least `sample_s`.
    """

    rounds: int
    most_rounds: int
    samples: int
    sample_s: float = 1e-4


@dataclass(frozen=True)
class Timed:
    """A timing for each model, and who else used the machine meanwhile."""

    timings: tuple[Timing, ...]
    contention: Contention


def time_whole(
    openers: Sequence[Callable[[], Call]], effort: Effort, pace: Pace, on_round: Callable[[], object] = lambda: None
) -> Timed:
    """Times calls, all interleaved.

    Args:
        openers: each opens a fresh session of its model and returns the call, as `call_of` makes it.
        on_round: called as each round is done.

    Raises:
        ValueError: a model that cannot be loaded.
    """
    watch = Watch(pace)
    timings = measure_interleaved(
        openers,
        rounds=effort.rounds,
        most_rounds=effort.most_rounds,
        samples_per_round=effort.samples,
        shortest_sample_s=effort.sample_s,
        pace=pace,
        on_round=on_round,
    )
    return Timed(tuple(timings), watch.reading())


def call_of(session: Session, batch: int) -> Call:
    """One call of an opened model for a batch of images that are always the same."""
    return session.call(np.random.default_rng(0).standard_normal(session.batch_shape(batch)).astype(np.float32))
