"""NSGA-II on predictions, whole generations at a time: the inner search of LINAS.

Deb et al. 2002, with the moves of the space.  Nothing but arrays: a search predicts thousands of generations, and an
object for each architecture takes longer than its prediction (`python -m experiments.bench inner_search`).
"""

from __future__ import annotations

import numpy as np

from nas.searchers.fitness import order
from nas.searchers.protocol import CostModel
from search_spaces.moves import crossover, mutate
from search_spaces.space import SearchSpace

LEAST_RATE = 0.05  # of mutation, so that large spaces change in more than one choice


def evolve(
    space: SearchSpace,
    model: CostModel,
    start: np.ndarray,
    population: int,
    generations: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The last population (≤ population, d), the best first, of a search that begins with `start` (j, d).

    Raises:
        ValueError: the model gives costs or violations that are not finite.
    """
    rows = np.unique(np.concatenate([start, space.sample(population, rng)]), axis=0)
    costs, violations = _asked(model, rows)
    rate = max(LEAST_RATE, 1 / len(space))
    for generation in range(generations + 1):
        best = order(costs, violations)[:population]
        rows, costs, violations = rows[best], costs[best], violations[best]
        if generation == generations:
            break
        # The rows are in order: of two drawn at random, the earlier one is the fitter.
        parents = rng.integers(len(rows), size=(2, 2, population)).min(axis=0)
        children = mutate(space, crossover(space, rows[parents[0]], rows[parents[1]], rng), rate, rng)
        children = _new(children, rows)
        if len(children):
            more_costs, more_violations = _asked(model, children)
            rows = np.concatenate([rows, children])
            costs, violations = np.concatenate([costs, more_costs]), np.concatenate([violations, more_violations])
    return rows


def _asked(model: CostModel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    costs, violations = model(rows)
    if not (np.isfinite(costs).all() and np.isfinite(violations).all()):
        raise ValueError("a cost model must give finite costs and violations: look at the data it was fitted on")
    return costs, violations


def _new(children: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The different rows of `children` (n, d) that are not in `known` (k, d)."""
    both = np.concatenate([known, children])
    first = np.sort(np.unique(both, axis=0, return_index=True)[1])
    return both[first[first >= len(known)]]
