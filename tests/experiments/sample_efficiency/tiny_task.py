"""A task of 8 × 8 architectures whose accuracy and cost are formulas."""

import numpy as np

from experiments.sample_efficiency.tasks import Task
from experiments.tables import ACCURACY, COST, Benchmark
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice


def tiny_task(space=None):
    """Accuracy grows with every index up to 0.9, and the cost with their sum."""
    space = space or SearchSpace("tiny", [Choice(name, tuple(range(8))) for name in "ab"])
    rows = np.array([arch.indices for arch in space.enumerate()], dtype=INDEX)
    most = (space.cardinalities - 1).sum()

    def values(population):
        total = population.astype(float).sum(axis=1)
        return {ACCURACY: 0.9 * total / most, COST: 1e-3 * total}

    benchmark = Benchmark("tiny", space, values, rows, whole=True)
    return Task(benchmark, ideal=np.array([-0.9, 0.0]), width=np.array([0.9, 1e-3 * most]), best=1.0)
