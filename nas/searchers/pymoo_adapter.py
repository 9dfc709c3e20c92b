"""pymoo's algorithms as ask/tell searchers over populations of a search space.

Those that breed by crossover and mutation work on rows of option indices, with this toolkit's own moves; those of
continuous steps work in the unit cube, a choice an axis, whose cells of equal width are the options.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.problems.static import StaticProblem

from nas.objectives import Evaluation
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


def genetic(space: SearchSpace, algorithm: Callable[..., Algorithm], **options: Any) -> Algorithm:
    """A pymoo algorithm that breeds rows of `space` by this toolkit's moves."""
    made = algorithm(crossover=_Crossover(space), mutation=_Mutation(space), eliminate_duplicates=_SameRow(), **options)
    made.mating.n_max_iterations = 10  # a small space may hold no more offspring
    return made


class PymooSearch:
    """An algorithm of pymoo as an ask/tell searcher.

    A generation is asked for in pieces of any size.  The next is bred from what was told of it; members that
    were asked for and not told have failed, and any other member is better than they.

    Args:
        make: the algorithm, from a first generation (population, d) in its own encoding.
        start: architectures (n, d) for the first generation, filled up with random ones.
        continuous: whether the algorithm works in the unit cube.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        make: Callable[[np.ndarray], Algorithm],
        population: int,
        start: np.ndarray | None = None,
        continuous: bool = False,
    ) -> None:
        rng = np.random.default_rng(seed)
        first = space.sample(population, rng)
        if start is not None:
            first = np.concatenate([start, first])
        if continuous:
            first = (first + rng.random(first.shape)) / space.cardinalities  # anywhere in their cells
        else:
            first = first[np.sort(np.unique(first, axis=0, return_index=True)[1])]
        self._space, self._rng, self._size, self._continuous = space, rng, population, continuous
        self._problem = PymooProblem(
            n_var=len(space),
            n_obj=objectives,
            n_ieq_constr=1,
            xl=0,
            xu=1 if continuous else space.cardinalities - 1,
            vtype=float if continuous else int,
        )
        self._algorithm = make(first[:population])
        self._algorithm.setup(self._problem, seed=seed, termination=("n_gen", 10**9))
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
        self._waiting = [row for row in self._waiting if row not in self._known]  # what came from elsewhere

    def _breed(self) -> None:
        """Makes the next generation with something new in it: a random one where breeding finds nothing."""
        for _ in range(_STALE):
            self._select()
            with np.errstate(all="ignore"):
                self._generation = self._algorithm.ask()
            self._waiting = list(dict.fromkeys(row for row in self._rows() if row not in self._known))
            if self._waiting:
                return
        self._select()
        fresh = fresh_rows(self._space, self._size, self._rng, set(self._known))
        # Continuous algorithms take back the points that they gave out and no others.
        self._generation = Population.new("X", fresh) if len(fresh) and not self._continuous else None
        self._waiting = list(map(tuple, fresh.tolist()))

    def _rows(self) -> list[tuple[int, ...]]:
        """The architectures of the present generation."""
        if self._generation is None or len(self._generation) == 0:
            return []
        x = self._generation.get("X")
        return list(map(tuple, (self._decoded(x) if self._continuous else x.astype(int)).tolist()))

    def _decoded(self, x: np.ndarray) -> np.ndarray:
        """The architectures (n, d) of points (n, d) in the unit cube."""
        cells = np.floor(x * self._space.cardinalities).astype(int)
        return self._space.canonical(np.clip(cells, 0, self._space.cardinalities - 1))

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
        # Some switch warnings off for the whole process; some divide by ranges that may be 0, and mend it after.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            self._algorithm.tell(infills=self._generation)
