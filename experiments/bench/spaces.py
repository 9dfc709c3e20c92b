"""How many architectures per second are sampled and one-hot encoded, on one core."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from search_spaces.catalog import SPACES
from search_spaces.encoding import one_hot
from search_spaces.network import find_space
from search_spaces.space import SearchSpace

BATCH = 10_000
ROUNDS = 51


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        per_s: architectures per second, at the median of all rounds.
        spread: of the rounds' durations, interquartile range over median.
        control: the ratio of medians of two arms of the same work, which is 1 but for noise.
    """

    name: str
    per_s: float
    spread: float
    control: float

    def __str__(self) -> str:
        return f"{self.name:<32} {self.per_s:>12,.0f} /s   spread {self.spread:5.1%}   A/A {self.control:.3f}"


def bench() -> tuple[Row, ...]:
    """Times sampling, encoding and both, for each preset of mbconv."""
    rows: list[Row] = []
    with _one_core():
        for preset, (image_size, classes) in SPACES["mbconv"].presets.items():
            space = find_space(SPACES["mbconv"].build(image_size, 3, classes, preset))
            _check(space)
            rows.extend(_measure(f"mbconv {preset}, {name}", work) for name, work in _works(space).items())
    return tuple(rows)


def _works(space: SearchSpace) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    population = space.sample(BATCH, rng)
    return {
        "sample": lambda: space.sample(BATCH, rng),
        "one-hot": lambda: one_hot(space, population),
        "sample + one-hot": lambda: one_hot(space, space.sample(BATCH, rng)),
    }


def _check(space: SearchSpace) -> None:
    """Asserts that what is timed is right: rows are canonical, features those of a plain loop."""
    population = space.sample(100, np.random.default_rng(1))
    assert np.array_equal(space.canonical(population), population)
    for row, features in zip(population, one_hot(space, population), strict=True):
        values = space.row(row).values
        expected = [c.name in values and values[c.name] == option for c in space.choices for option in c.options]
        assert features.tolist() == expected


def _measure(name: str, work: Callable[[], object]) -> Row:
    """Runs the same work as two arms in alternating order, so that drift meets both alike."""
    work()
    arms: tuple[list[float], list[float]] = ([], [])
    for i in range(ROUNDS):
        for arm in (0, 1) if i % 2 == 0 else (1, 0):
            start = time.perf_counter()
            work()
            arms[arm].append(time.perf_counter() - start)
    durations_s = arms[0] + arms[1]
    median_s = statistics.median(durations_s)
    low, _, high = statistics.quantiles(durations_s, n=4)
    control = statistics.median(arms[1]) / statistics.median(arms[0])
    return Row(name, BATCH / median_s, (high - low) / median_s, control)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keeps the process on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
