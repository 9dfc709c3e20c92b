"""More algorithms of pymoo, which differ by little but their name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.algorithms.moo.spea2 import SPEA2, SPEA2Survival
from pymoo.algorithms.soo.nonconvex.es import ES
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.algorithms.soo.nonconvex.pso import PSO
from pymoo.core.algorithm import Algorithm

from nas.searchers.pymoo_adapter import PymooSearch, genetic
from search_spaces.space import SearchSpace

_Make = Callable[[SearchSpace, int, np.ndarray], Algorithm]  # from a space, a population's size and its first

GENETIC: dict[str, _Make] = {
    "ga": lambda space, size, first: genetic(space, GA, pop_size=size, sampling=first),
    "sms-emoa": lambda space, size, first: genetic(space, SMSEMOA, pop_size=size, sampling=first),
    # With a survival of its own: the default one is shared by all runs of a process, and remembers their ranges.
    "spea2": lambda space, size, first: genetic(
        space, SPEA2, pop_size=size, sampling=first, survival=SPEA2Survival(normalize=True)
    ),
}
CONTINUOUS: dict[str, _Make] = {
    "es": lambda _, size, first: ES(n_offsprings=size, sampling=first),
    "pso": lambda _, size, first: PSO(pop_size=size, sampling=first),
}


class NamedPymooSearch(PymooSearch):
    """The algorithm of that name in `GENETIC` or `CONTINUOUS`."""

    def __init__(self, space: SearchSpace, objectives: int, seed: int, algorithm: str, population: int = 20) -> None:
        make = (GENETIC | CONTINUOUS)[algorithm]
        super().__init__(
            space,
            objectives,
            seed,
            lambda first: make(space, population, first),
            population,
            continuous=algorithm in CONTINUOUS,
        )
