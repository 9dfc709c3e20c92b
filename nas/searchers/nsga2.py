"""NSGA-II by pymoo, over populations of a search space (Deb et al. 2002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.problems.static import StaticProblem

from nas.objectives import Evaluation
from nas.searchers.protocol import CostModel
from nas.searchers.random_search import fresh_rows
from search_spaces.moves import crossover, mutate
from search_spaces.space import INDEX, SearchSpace

_STALE = 10  # generations in a row without anything new, after which a random one follows
_FAILED = 1e30  # the violation of an architecture whose evaluation failed: worse than any measured one


class _Crossover(Crossover):
    """Uniform crossover that keeps rows canonical."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(n_parents=2, n_offsprings=1, prob=0.9)
        self._space = space

    def _do(self, _problem: Any, x: np.ndarray, *_: Any, random_state: np.random.Generator, **__: Any) -> np.ndarray:
        mothers, fathers = x.astype(INDEX)
        return crossover(self._space, mothers, fathers, random_state)[None]


class _Mutation(Mutation):
    """Each active choice changes with the chance of one change per row on average, but at least 5 %."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(prob=0.9)
        self._space = space

    def _do(self, _problem: Any, x: np.ndarray, *_: Any, random_state: np.random.Generator, **__: Any) -> np.ndarray:
        return mutate(self._space, x.astype(INDEX), max(0.05, 1 / len(self._space)), random_state)


class _SameRow(DuplicateElimination):
    """Equal canonical rows are the same network."""

    def _do(self, pop: Population, other: Population | None, is_duplicate: np.ndarray) -> np.ndarray:
        seen = set() if other is None else {row.tobytes() for row in other.get("X").astype(INDEX)}
        for i, row in enumerate(pop.get("X").astype(INDEX)):
            key = row.tobytes()
            is_duplicate[i] |= key in seen
            seen.add(key)
        return is_duplicate


class NSGA2:
    """NSGA-II as an ask/tell searcher.

    A generation is asked for in pieces of any size.  The next is bred from what was told of it; members that
    were asked for and not told have failed, and any other member is better than they.

    Args:
        start: architectures (n, d) for the first generation, filled up with random ones.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        population: int = 100,
        start: np.ndarray | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        first = space.sample(population, rng)
        if start is not None:
            first = np.concatenate([start, first])
        _, unique = np.unique(first, axis=0, return_index=True)
        self._space, self._rng, self._size = space, rng, population
        self._problem = PymooProblem(
            n_var=len(space), n_obj=objectives, n_ieq_constr=1, xl=0, xu=space.cardinalities - 1, vtype=int
        )
        self._algorithm = PymooNSGA2(
            pop_size=population,
            sampling=first[np.sort(unique)][:population],
            crossover=_Crossover(space),
            mutation=_Mutation(space),
            eliminate_duplicates=_SameRow(),
            seed=seed,
        )
        self._algorithm.mating.n_max_iterations = 10  # a small space may hold no more offspring
        self._algorithm.setup(self._problem, termination=("n_gen", 10**9))
        self._generation: Population | None = None
        self._waiting: list[tuple[int, ...]] = []  # to be asked for
        self._open: set[tuple[int, ...]] = set()  # asked for, and nothing told since
        self._known: dict[tuple[int, ...], Evaluation | None] = {}  # None: failed

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d) of this generation, none asked or told before.

        Empty while a whole generation waits to be told, and where the space is used up.
        """
        if not self._waiting and not self._open:
            self._breed()
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        self._open.update(rows)
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes the evaluations of all that was asked; what is missing has failed."""
        for row in self._open:
            self._known.setdefault(row, None)
        self._known.update({e.arch.indices: e for e in evaluations})
        self._open.clear()

    def _breed(self) -> None:
        """Makes the next generation with something new in it: a random one where breeding finds nothing."""
        for _ in range(_STALE):
            self._select()
            self._generation = self._algorithm.ask()
            self._waiting = [row for row in self._rows() if row not in self._known]
            if self._waiting:
                return
        self._select()
        fresh = fresh_rows(self._space, self._size, self._rng, set(self._known))
        self._generation = Population.new("X", fresh) if len(fresh) else None
        self._waiting = self._rows()

    def _rows(self) -> list[tuple[int, ...]]:
        return [] if self._generation is None else list(map(tuple, self._generation.get("X").astype(int).tolist()))

    def _select(self) -> None:
        """Ends the generation: the fittest of it and of its parents become the parents of the next."""
        if not self._rows():
            return
        found = [self._known[row] for row in self._rows()]
        nothing = (0.0,) * self._problem.n_obj
        costs = np.array([nothing if e is None else e.costs for e in found])
        self._advance(costs, np.array([_FAILED if e is None else e.violation for e in found]))

    def _advance(self, costs: np.ndarray, violations: np.ndarray) -> None:
        if not (np.isfinite(costs).all() and np.isfinite(violations).all()):
            raise ValueError("a cost model must give finite costs and violations: look at the data it was fitted on")
        static = StaticProblem(self._problem, F=costs, G=violations[:, None])
        Evaluator().eval(static, self._generation)
        self._algorithm.tell(infills=self._generation)

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
