"""CMA-ES by pycma, in a discretised unit cube (Hansen, arXiv:1604.00772).

An evolution strategy that learns which choices to move together.  So that it does not come to rest within a cell, no
axis' deviation falls far below the width of its cells (as in Hamano et al., arXiv:2205.13482).
"""

from __future__ import annotations

from typing import Any

import cma
import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population

from nas.searchers.fitness import ranks
from nas.searchers.pymoo_adapter import PymooSearch
from search_spaces.space import SearchSpace

_FIRST_DEVIATION = 0.3  # of the unit cube's axes: pycma's advice for a box
_LEAST_DEVIATION = 0.3  # in widths of a cell: a step to the next option is then about as likely as one axis in ten


class CMAES(PymooSearch):
    """CMA-ES for one objective, restarted at a random point where it has converged.

    Raises:
        ValueError: more than one objective.
    """

    def __init__(self, space: SearchSpace, objectives: int, seed: int, population: int = 12) -> None:
        if objectives != 1:
            raise ValueError(f"CMA-ES has one objective, got {objectives}: take another searcher, such as de or nsga2")
        strategy = _Strategy(population, _LEAST_DEVIATION / space.cardinalities)
        super().__init__(space, objectives, seed, lambda _: strategy, population, continuous=True)


class _Strategy(Algorithm):
    """pycma's strategy in pymoo's form; it sees the ranks of a generation alone, so that bounds need no penalty."""

    def __init__(self, population: int, least: np.ndarray) -> None:
        super().__init__()
        self._options = {"bounds": [0, 1], "popsize": population, "verbose": -9, "seed": np.nan}
        self._least = least

    def _setup(self, problem: Any, **_: Any) -> None:
        axes = max(2, problem.n_var)  # pycma keeps no least deviation on a single axis
        self._least = np.resize(self._least, axes)
        self._begin(np.full(axes, 0.5))

    def _begin(self, x: np.ndarray) -> None:
        def normal(*shape: int) -> np.ndarray:
            return self.random_state.standard_normal(shape)  # in place of the global generator

        options = {**self._options, "minstd": self._least, "randn": normal}
        self._strategy = cma.CMAEvolutionStrategy(x, _FIRST_DEVIATION, options)

    def _initialize_infill(self) -> Population:
        return self._infill()

    def _infill(self) -> Population:
        if self._strategy.stop():
            self._begin(self.random_state.random(len(self._least)))
        self._points = self._strategy.ask()
        return Population.new("X", np.array(self._points)[:, : self.problem.n_var])

    def _initialize_advance(self, infills: Population, **_: Any) -> None:
        self._advance(infills)

    def _advance(self, infills: Population, **_: Any) -> None:
        place = ranks(infills.get("F"), infills.get("CV")[:, 0])
        self._strategy.tell(self._points, place.astype(float).tolist())
        self.pop = infills
