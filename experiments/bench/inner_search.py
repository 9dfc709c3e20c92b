"""How fast is what a search does between two evaluations?

One core: (1) 10⁵ architectures encoded, two objectives predicted after 200 evaluations, and sorted into fronts, on the
6 choices of NAS-Bench-201's cells and on 46 choices like once-for-all's; (2) a generation of 1,000 of the inner search;
(3) non-dominated sort, front and exact hypervolume of 10⁵ points of 2 to 4 costs.  That no torch is loaded is asserted,
and that the sort agrees with the front and the hypervolume with pymoo's before anything is timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
from pymoo.indicators.hv import HV
from threadpoolctl import threadpool_limits

from nas.pareto import hypervolume, non_dominated, ranks
from nas.searchers.evolve import evolve
from predictors.categorical_gp import fit_categorical_gp
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

MANY, GENERATION, KNOWN, ROUNDS = 100_000, 1_000, 200, 5


@dataclass(frozen=True)
class Row:
    """The median of five."""

    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what:50} {1e3 * self.seconds:8.1f} ms"


def bench() -> list[Row]:
    """All rows, on one thread."""
    rng, rows = np.random.default_rng(0), []
    with threadpool_limits(1):
        for name, space in (("6 choices", cells()), ("46 choices", layers())):
            rows += in_space(name, space, rng)
        for objectives in (2, 3, 4):
            rows += of_points(objectives, rng)
    assert "torch" not in sys.modules, "torch was loaded"
    return rows


def cells() -> SearchSpace:
    """Six edges of five operations."""
    return SearchSpace("cells", [Choice(f"edge{i}", ("none", "skip", "pool", "conv1", "conv3")) for i in range(6)])


def layers() -> SearchSpace:
    """Depths, kernels and expansions of five stages of four layers, and a resolution."""
    choices = [Choice("resolution", (160, 176, 192, 208, 224))]
    for stage in range(5):
        depth = Choice(f"depth{stage}", (2, 3, 4))
        choices.append(depth)
        for i in range(4):
            when = depth.among(*range(max(2, i + 1), 5)) if i > 1 else ()
            choices += [Choice(f"k{stage}.{i}", (3, 5, 7), when), Choice(f"e{stage}.{i}", (3, 4, 6), when)]
    return SearchSpace("layers", choices)


def in_space(name: str, space: SearchSpace, rng: np.random.Generator) -> Iterator[Row]:
    """Prediction and generations in one space."""
    rows, many = space.sample(KNOWN, rng), space.sample(MANY, rng)
    gain, price = rng.uniform(0.5, 1.5, (2, len(space)))
    share = rows / (space.cardinalities - 1)
    fitted = [fit_categorical_gp(space, rows, y) for y in ((1 - share) ** 2 @ gain, share @ price)]

    def costs(population: np.ndarray) -> np.ndarray:
        return np.column_stack([predictor.predict_mean(population) for predictor in fitted])

    assert np.array_equal(ranks(costs(rows)) == 0, non_dominated(costs(rows)))
    yield Row(f"10^5 predicted and sorted, {name}", timed(lambda: ranks(costs(many))))

    def generations(n: int) -> Callable[[], object]:
        def run() -> object:
            return evolve(space, lambda p: (costs(p), np.zeros(len(p))), rows, GENERATION, n, np.random.default_rng(0))

        return run

    one_s = (timed(generations(6)) - timed(generations(1))) / 5
    yield Row(f"a generation of 1,000, {name}", one_s)


def of_points(objectives: int, rng: np.random.Generator) -> Iterator[Row]:
    """Sorting and volumes of points in the unit cube."""
    some, points = rng.random((60, objectives)), rng.random((MANY, objectives))
    corner = np.ones(objectives)
    assert abs(hypervolume(some, corner) - HV(ref_point=corner)(some)) < 1e-9
    yield Row(f"sort 10^5 points of {objectives} costs", timed(lambda: ranks(points)))
    yield Row(f"front of 10^5 points of {objectives} costs", timed(lambda: non_dominated(points)))
    yield Row(f"hypervolume of 10^5 points of {objectives} costs", timed(lambda: hypervolume(points, corner)))


def timed(work: Callable[[], object]) -> float:
    """The median seconds of `work`."""
    seconds = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return median(seconds)
