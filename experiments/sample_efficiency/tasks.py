"""The benchmarks of the study, with the hypervolume of their true front or of the best one ever found."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.tables import ACCURACY, COST, Benchmark, accel, macro, nb201, ofa
from nas.pareto import hypervolume, non_dominated
from nas.searchers.evolve import evolve
from search_spaces.space import INDEX
from search_spaces.value import Option

DEVICES = ("samsung_a50", "pixel3", "gold_6240", "2080ti_1", "titanx_256", "eyeriss")
CHOSEN_ON = ("essential_ph_1", "silver_4114", "1080ti_32", "titanxp_1", "pixel2", "silver_4210r")
OTHERS = ("macro", "accel", "ofa")
REFERENCE = np.array([1.1, 1.1])  # both costs scaled to the true front's ideal and nadir
_RESTARTS, _POPULATION, _GENERATIONS = 3, 300, 100  # of a search in the benchmark itself, where it cannot be listed


@dataclass(frozen=True, eq=False)
class Task:
    """A benchmark, its ideal point (2,), the width of its front (2,), and the hypervolume of that."""

    benchmark: Benchmark
    ideal: np.ndarray
    width: np.ndarray
    best: float

    def evaluate(self, archs: Sequence[Mapping[str, Option]]) -> list[dict[str, float]]:
        """Accuracy and cost of architectures, as `nas.optimize` asks for them."""
        if not archs:
            return []
        choices = self.benchmark.space.choices
        rows = np.array([[c.index(arch[c.name]) for c in choices] for arch in archs], dtype=INDEX)
        values = self.benchmark.values(rows)
        return [{ACCURACY: float(a), COST: float(c)} for a, c in zip(values[ACCURACY], values[COST], strict=True)]

    def shares(self, rows: np.ndarray, at: Sequence[int]) -> list[float]:
        """The share of the true front's hypervolume that the first of `rows` (n, d) have, after each of `at`."""
        scaled = (costs_of(self.benchmark, rows) - self.ideal) / self.width
        return [hypervolume(scaled[:n], REFERENCE) / self.best for n in at]


def costs_of(benchmark: Benchmark, rows: np.ndarray) -> np.ndarray:
    """Costs (n, 2), lower is better."""
    values = benchmark.values(rows)
    return np.column_stack([-values[ACCURACY], values[COST]])


@functools.cache
def task(data: Path, name: str) -> Task:
    """The task `name`: a device of NAS-Bench-201, or one of `OTHERS`."""
    makers = {"macro": macro, "accel": accel, "ofa": ofa}
    benchmark = makers[name](data) if name in makers else nb201(data, name)
    rows = benchmark.rows if benchmark.whole else _long_search(benchmark)
    costs = costs_of(benchmark, rows)
    front = costs[non_dominated(costs)]
    ideal, nadir = front.min(axis=0), front.max(axis=0)
    return Task(benchmark, ideal, nadir - ideal, hypervolume((front - ideal) / (nadir - ideal), REFERENCE))


def _long_search(benchmark: Benchmark) -> np.ndarray:
    """The best architectures that 90,000 evaluations find."""

    def model(population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return costs_of(benchmark, population), np.zeros(len(population))

    rng = np.random.default_rng(0)
    rows = np.zeros((0, len(benchmark.space)), dtype=INDEX)
    for _ in range(_RESTARTS):
        rows = np.concatenate([rows, evolve(benchmark.space, model, rows, _POPULATION, _GENERATIONS, rng)])
    return rows
