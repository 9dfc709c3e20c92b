"""NSGA-II by pymoo, over populations of a search space (Deb et al. 2002)."""

from __future__ import annotations

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2

from nas.searchers.protocol import CostModel
from nas.searchers.pymoo_adapter import PymooSearch, genetic
from search_spaces.space import INDEX, SearchSpace


class NSGA2(PymooSearch):
    """NSGA-II, step by step as a searcher or at once against a cost model; arguments as of `PymooSearch`."""

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        population: int = 100,
        start: np.ndarray | None = None,
    ) -> None:
        def make(first: np.ndarray) -> PymooNSGA2:
            return genetic(space, PymooNSGA2, pop_size=population, sampling=first)

        super().__init__(space, objectives, seed, make, population, start)

    def minimise(self, model: CostModel, generations: int) -> np.ndarray:
        """Runs whole generations against a cost model and returns the last population (n, d)."""
        for _ in range(generations):
            self._generation = self._algorithm.ask()
            if self._generation is None or len(self._generation) == 0:
                break
            self._advance(*model(self._generation.get("X").astype(INDEX)))
        self._generation = None
        last: np.ndarray = self._algorithm.pop.get("X").astype(INDEX)
        return last
