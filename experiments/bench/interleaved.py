"""Calls timed in turns: what disturbs one arm of a comparison disturbs the others as much."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from latency.timing import Timing

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)

VISITS, ROUNDS = 4, 10
SAMPLE_S = 2e-3
# At whether threads sleep: a look takes longer than a tick, at which the CPU time of other threads is counted.
LOOKS, LOOK_S, ASLEEP = 40, 5e-3, 0.1


def medians_s(
    openers: Mapping[Name, Callable[[], Call]], clock: Callable[[], float], before: Callable[[], object] = lambda: None
) -> dict[Name, float]:
    """Seconds of one call of each arm, the median of its undisturbed samples.

    A visit opens every arm anew, since memory is a matter of luck; its rounds take one sample of each arm, forwards and
    backwards by turns.  A sample is the mean of calls for 2 ms, behind half as many that are not timed.

    Args:
        openers: name to what opens the arm and returns what is timed.
        clock: in seconds, such as `time.perf_counter`.
        before: what is done before each sample.
    """
    samples: dict[Name, list[float]] = {name: [] for name in openers}
    calls: dict[Name, int] = {}
    for _ in range(VISITS):
        opened = {name: opener() for name, opener in openers.items()}
        for name, call in opened.items():
            calls[name] = max(calls.get(name, 0), _calls(call))
        for i in range(ROUNDS):
            for name in opened if i % 2 == 0 else reversed(opened):
                before()
                samples[name].append(_took_s(opened[name], calls[name], clock))
    return {name: _undisturbed_s(found, calls[name]) for name, found in samples.items()}


def until_threads_sleep() -> bool:
    """Waits until this process uses no core, 0.2 s at most; returns whether it came to that."""
    return any(_sleeps() for _ in range(LOOKS))


def _sleeps() -> bool:
    start_s = time.process_time()
    time.sleep(LOOK_S)
    return time.process_time() - start_s < ASLEEP * LOOK_S


def _calls(call: Call) -> int:
    """How many calls a sample has, by the faster of two that are warm."""
    call()
    fastest_s = min(_took_s(call, 1, time.perf_counter) for _ in range(2))
    return max(1, math.ceil(SAMPLE_S / fastest_s))


def _took_s(call: Call, calls: int, clock: Callable[[], float]) -> float:
    for _ in range((calls + 1) // 2):
        call()
    start_s = clock()
    for _ in range(calls):
        call()
    return (clock() - start_s) / calls


def _undisturbed_s(samples: list[float], calls: int) -> float:
    return Timing(tuple(samples), calls, tuple(samples), (ROUNDS,) * VISITS).undisturbed().median_s
