"""The costs of any architecture as learnt from evaluations: what LINAS looks at when only a function is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from nas.cheap import CheapMetrics
from nas.objectives import Evaluation, Problem
from nas.searchers.protocol import CostModel
from predictors.categorical_gp import fit_categorical_gp
from search_spaces.space import INDEX, SearchSpace

_UNKNOWN = 1e30  # the violation of an architecture that has no cheap metrics: it is not in the table


def learn_costs(
    space: SearchSpace, problem: Problem, cheap: CheapMetrics | None
) -> Callable[[Sequence[Evaluation]], CostModel]:
    """From evaluations to the costs and violations of populations: cheap metrics asked, others predicted.

    On one thread: the matrices are small, and on a busy machine BLAS threads that wait for each other cost minutes.
    """
    learnt = sorted(problem.metrics - set(cheap.names if cheap else ()))

    def fit(evaluations: Sequence[Evaluation]) -> CostModel:
        rows = np.array([e.arch.indices for e in evaluations], dtype=INDEX)
        with threadpool_limits(1, user_api="blas"):
            fitted = {n: fit_categorical_gp(space, rows, np.array([e.values[n] for e in evaluations])) for n in learnt}

        def costs(population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with threadpool_limits(1, user_api="blas"):
                metrics = {name: predictor.predict_mean(population) for name, predictor in fitted.items()}
            return _costs(problem, {**metrics, **(cheap.of(population) if cheap else {})})

        return costs

    return fit


def _costs(problem: Problem, metrics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Costs (n, m) and violations (n,); architectures without cheap metrics count as worse than any other."""
    known = np.all([np.isfinite(values) for values in metrics.values()], axis=0)
    costs, violations = problem.costs({name: np.where(known, values, 0.0) for name, values in metrics.items()})
    return costs, np.where(known, violations, _UNKNOWN)
