"""NSGA-III by pymoo: niches along reference directions instead of crowding (Deb and Jain 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga3 import NSGA3 as PymooNSGA3
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.util.ref_dirs import get_reference_directions

from nas.searchers.pymoo_adapter import PymooSearch, genetic
from search_spaces.space import SearchSpace


class NSGA3(PymooSearch):
    """NSGA-III with as many evenly spread reference directions as the population has members, or fewer."""

    def __init__(self, space: SearchSpace, objectives: int, seed: int, population: int = 20) -> None:
        def make(first: np.ndarray) -> PymooNSGA3:
            return genetic(
                space,
                PymooNSGA3,
                ref_dirs=reference_directions(objectives, population),
                pop_size=population,
                sampling=first,
                selection=TournamentSelection(func_comp=_feasible_first),
            )

        super().__init__(space, objectives, seed, make, population)


def reference_directions(objectives: int, most: int) -> np.ndarray:
    """At most so many directions (k, m) on the unit simplex, spread evenly (Das and Dennis 1998); m at the least."""
    partitions, directions = 1, np.eye(objectives)
    while objectives > 1 and len(directions) < most:
        partitions += 1
        finer = get_reference_directions("das-dennis", objectives, n_partitions=partitions)
        if len(finer) > most:
            break
        directions = finer
    return directions


def _feasible_first(pop: Population, pairs: np.ndarray, random_state: np.random.Generator, **_: Any) -> np.ndarray:
    """The winners (n, 1) of tournaments (n, 2): smaller violation first, then by lot.

    pymoo's own draws the lots between equal violations from a generator without a seed.
    """
    violations = pop.get("CV")[:, 0][pairs]
    lots = random_state.random(pairs.shape)
    winner = np.lexsort((lots, violations), axis=1)[:, 0]
    return np.take_along_axis(pairs, winner[:, None], axis=1)
