"""Populations as features: one column per option, or one scaled number per choice.

Equal architectures have equal features, and an inactive choice contributes zeros.
"""

from __future__ import annotations

import numpy as np

from search_spaces.space import SearchSpace


def one_hot(space: SearchSpace, population: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """One column per option of each choice (n, sum of options), 1 where the option is taken.

    Column-major like the population itself: each column is written in one pass.
    """
    features: np.ndarray = np.empty((len(population), int(space.cardinalities.sum())), dtype=dtype, order="F")
    position = 0
    for j, choice in enumerate(space.choices):
        column = np.ascontiguousarray(population[:, j])
        active = space.active_column(population, j)
        for index in range(len(choice.options)):
            target = features[:, position]
            np.equal(column, index, out=target, casting="unsafe")
            if index == 0 and active is not None:
                target *= active
            position += 1
    return features


def ordinal(space: SearchSpace, population: np.ndarray) -> np.ndarray:
    """One column per choice (n, d): (index + 1) / options, so that 0 is left for an inactive choice."""
    scaled = (population + 1) / space.cardinalities
    return scaled * space.active(population)
