"""NSGA-II by pymoo, over populations of a search space (Deb et al. 2002)."""

from __future__ import annotations

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2

from nas.searchers.pymoo_adapter import PymooSearch, genetic
from search_spaces.space import SearchSpace


class NSGA2(PymooSearch):
    """NSGA-II as an ask/tell searcher; arguments as of `PymooSearch`."""

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
