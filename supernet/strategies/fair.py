"""Strict fairness: FairNAS (Chu et al., arXiv:1907.01845), section 3.2 and algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.space import INDEX, SearchSpace
from supernet.lesson import Lesson
from supernet.strategy import Strategy


@dataclass(frozen=True)
class Fair(Strategy):
    """Each step trains as many architectures as the largest choice has options, each option of it exactly once.

    Their gradients add up to one step, so that no order among them favours any.
    """

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        space = lesson.space.unmerged  # one row for all that are equivalent would favour the options that it has
        rows = fair_rows(space, lesson.rng)
        return sum(lesson.learn(space.row(row))[1] for row in rows) / len(rows)


def fair_rows(space: SearchSpace, rng: np.random.Generator) -> np.ndarray:
    """Draw m architectures (m, d), m the most options of a choice: each column a random order of its options.

    A choice with fewer options than m goes through random orders of them again and again, so that its options are
    taken equally often but for one (the paper's choices all have m). Inactive choices are set to their first option.
    """
    most = int(space.cardinalities.max())
    rows = np.empty((most, len(space)), dtype=INDEX)
    for j, options in enumerate(space.cardinalities):
        orders = [rng.permutation(options) for _ in range(-(-most // int(options)))]
        rows[:, j] = np.concatenate(orders)[:most]
    return space.canonical(rows)
