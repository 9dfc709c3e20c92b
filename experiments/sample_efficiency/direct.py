"""pymoo, Optuna and a 15-line loop as somebody would use them by hand, with their own defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import optuna
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from sklearn.ensemble import ExtraTreesRegressor

from experiments.sample_efficiency.tasks import Task, costs_of
from nas.pareto import non_dominated
from search_spaces.encoding import one_hot
from search_spaces.space import INDEX

Direct = Callable[[Task, int, int], np.ndarray]
"""From a task, a budget and a seed to the architectures asked (n, d), in order."""


def pymoo_nsga2(task: Task, budget: int, seed: int) -> np.ndarray:
    """pymoo's NSGA-II over rounded integers, population 20."""
    space, asked = task.benchmark.space, []

    class Table(PymooProblem):
        def __init__(self) -> None:
            super().__init__(n_var=len(space), n_obj=2, xl=0, xu=space.cardinalities - 1, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, np.ndarray], *_: object, **__: object) -> None:
            rows = space.canonical(x.astype(INDEX))
            asked.extend(rows)
            out["F"] = costs_of(task.benchmark, rows)

    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=SBX(vtype=float, repair=RoundingRepair()),
        mutation=PM(vtype=float, repair=RoundingRepair()),
    )
    minimize(Table(), algorithm, ("n_eval", budget), seed=seed)
    return np.array(asked[:budget])


def optuna_study(make: Callable[[int], optuna.samplers.BaseSampler]) -> Direct:
    """`study.optimize` one trial at a time, with categorical choices, of which only active ones are suggested."""

    def search(task: Task, budget: int, seed: int) -> np.ndarray:
        space, asked = task.benchmark.space, []

        def objective(trial: optuna.Trial) -> tuple[float, ...]:
            row = np.zeros((1, len(space)), dtype=INDEX)
            for j, choice in enumerate(space.choices):
                active = space.active_column(row, j)
                if active is None or active[0]:
                    row[0, j] = trial.suggest_categorical(choice.name, tuple(range(len(choice.options))))
            asked.append(row[0])
            return tuple(costs_of(task.benchmark, row)[0])

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(directions=["minimize"] * 2, sampler=make(seed))
            study.optimize(objective, n_trials=budget)
        return np.array(asked)

    return search


def trees_loop(task: Task, budget: int, seed: int) -> np.ndarray:
    """30 random, then extremely randomised trees and ten of their predicted front at a time; costs are known."""
    benchmark, rng = task.benchmark, np.random.default_rng(seed)
    rows = benchmark.rows
    costs, features = costs_of(benchmark, rows), one_hot(benchmark.space, rows)
    order = list(rng.choice(len(rows), 30, replace=False))
    while len(order) < budget:
        model = ExtraTreesRegressor(100, random_state=seed).fit(features[order], costs[order, 0])
        left = np.setdiff1d(np.arange(len(rows)), order)
        predicted = np.column_stack([model.predict(features[left]), costs[left, 1]])
        order += list(rng.permutation(left[non_dominated(predicted)])[:10])
    return rows[order[:budget]]


DIRECT: dict[str, Direct] = {
    "pymoo NSGA-II": pymoo_nsga2,
    "Optuna TPE": optuna_study(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "Optuna NSGA-II": optuna_study(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "Optuna GP": optuna_study(lambda seed: optuna.samplers.GPSampler(seed=seed)),
    "15-line loop": trees_loop,  # only where all architectures are listed
}
