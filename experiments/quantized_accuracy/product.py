"""Architecture and policy searched at once (SimQ-NAS, arXiv:2312.13301), or one after the other, in a table.

The table is a model: `nas search`'s predictor of accuracy fitted to everything that was collected (real inherited
accuracies and real files), so that any point of the joint space has a truth.  What a point costs is counted: bytes of
its weights, or bit operations.  Both ways search with LINAS as `nas search` does, which does not know the model's
parameters, and have as many look-ups; the costs are known to both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.quantized_accuracy.collect import Points
from nas.objectives import Evaluation, Problem, cost_array, minimize
from nas.pareto import non_dominated, relative_hypervolume, shared_box
from nas.predict import AccuracyPredictor, accuracies_of, fit_accuracy, logits_of
from nas.searchers.linas import LINAS
from nas.searchers.protocol import CostModel
from predictors.quantized import fit_around_drop
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

PROBLEM = Problem((minimize("error"), minimize("cost")))
_BATCH, _INITIAL = 24, 24
Lift = Callable[[np.ndarray], np.ndarray]
"""From rows of a space that is searched to rows of the joint space."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Error and cost of every point of the joint space.

    Args:
        cost: `size` (bytes of all parameters) or `bits` (bit operations).
    """

    points: Points
    accuracy: AccuracyPredictor
    cost: str

    def costs(self, rows: np.ndarray) -> np.ndarray:
        """Of joint rows (n, d): their cost (n,)."""
        anatomy = self.points.anatomy
        if self.cost == "bits":
            return anatomy.bit_operations(rows)
        found: np.ndarray = anatomy.counts(rows)[:, 2:4].sum(axis=1)
        return found

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Error and cost (n, 2)."""
        return np.column_stack([1 - self.accuracy.predict(rows), self.costs(rows)])


def truth_of(points: Points, cost: str) -> Truth:
    """The model fitted to all that was collected."""
    rows = np.concatenate([points.inherited[0], points.files[0]])
    accuracy = fit_accuracy(points.anatomy, rows, np.concatenate([points.inherited[1], points.files[1]]))
    return Truth(points, accuracy, cost)


def searched(
    truth: Truth, space: SearchSpace, lift: Lift, budget: int, seed: int, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What LINAS looks up in `space` (n, d) within a budget, and its costs (n, 2); errors are predicted as in a search.

    Args:
        start: rows to begin with, instead of random ones.
    """
    anatomy = truth.points.anatomy

    def fit(evaluations: Sequence[Evaluation]) -> CostModel:
        rows = lift(np.array([e.arch.indices for e in evaluations], dtype=INDEX))
        accuracy = 1 - cost_array(list(evaluations))[:, 0]
        known = fit_around_drop(anatomy.space, anatomy.policy_columns, rows, logits_of(accuracy))

        def model(population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            joint = lift(population)
            errors = 1 - accuracies_of(known.predict_off(joint, 0.0))
            return np.column_stack([errors, truth.costs(joint)]), np.zeros(len(joint))

        return model

    def told(rows: np.ndarray) -> None:
        asked.append(rows)
        values = truth.of(lift(rows))
        searcher.tell(
            [
                PROBLEM.evaluation(space.row(row), {"error": float(e), "cost": float(c)}, "evaluated")
                for row, (e, c) in zip(rows, values, strict=True)
            ]
        )

    searcher, asked = LINAS(space, fit, 2, seed, 0 if start is not None else _INITIAL, known=start), list[np.ndarray]()
    if start is not None:
        told(start)
    while (left := budget - sum(map(len, asked))) > 0 and len(rows := searcher.ask(min(_BATCH, left))):
        told(rows)
    found = np.concatenate(asked)
    return found, truth.of(lift(found))


def at_once(truth: Truth, budget: int, seed: int) -> np.ndarray:
    """The costs (n, 2) of all look-ups of one search of the product, a third of them in full precision first."""
    points = truth.points
    plain = np.unique(points.architectures.sample(budget // 3, np.random.default_rng(seed)), axis=0)
    start = points.anatomy.in_most_bits(plain)
    return searched(truth, points.anatomy.space, lambda rows: rows, budget, seed, start)[1]


def one_after_the_other(truth: Truth, budget: int, seed: int, networks: int) -> np.ndarray:
    """The same of architectures in full precision, then policies of so many of their front, half of the look-ups each.

    With one network, it is the most accurate one.
    """
    anatomy, space = truth.points.anatomy, truth.points.architectures
    rows, costs = searched(truth, space, anatomy.in_most_bits, budget // 2, seed)
    front = np.flatnonzero(non_dominated(costs))
    front = front[np.argsort(costs[front, 0])]
    chosen = rows[front[np.unique(np.linspace(0, len(front) - 1, networks).round().astype(int))]]
    policies, lift = policies_of(truth.points, chosen)
    return np.concatenate([costs, searched(truth, policies, lift, budget - len(rows), seed)[1]])


def policies_of(points: Points, architectures: np.ndarray) -> tuple[SearchSpace, Lift]:
    """The space of some architectures (k, d') with any policy, and its rows as joint ones."""
    joint = points.anatomy.space
    active = joint.active(points.anatomy.in_most_bits(architectures))
    which = Choice("network", tuple(range(len(architectures))))
    choices = [which]
    for j in points.anatomy.policy_columns:
        there = tuple(np.flatnonzero(active[:, j]).tolist())
        if there:
            when = () if len(there) == len(architectures) else (which.among(*there),)
            choices.append(Choice(joint.choices[j].name, joint.choices[j].options, *when))
    space = SearchSpace("policies", choices)
    names = {choice.name: i for i, choice in enumerate(choices)}

    def lift(rows: np.ndarray) -> np.ndarray:
        full = points.anatomy.in_most_bits(architectures[rows[:, 0]])
        for j in points.anatomy.policy_columns:
            if (i := names.get(joint.choices[j].name)) is not None:
                full[:, j] = rows[:, i]
        return joint.canonical(full)

    return space, lift


def volumes(truth: Truth, budget: int, seed: int, networks: Sequence[int]) -> dict[str, float]:
    """The share of one common box that each way dominates; costs on a logarithmic scale, as networks are compared."""
    ways = {"at once": at_once(truth, budget, seed)}
    ways |= {f"then the policies of {k}": one_after_the_other(truth, budget, seed, k) for k in networks}
    scaled = {name: np.column_stack([costs[:, 0], np.log(costs[:, 1])]) for name, costs in ways.items()}
    ideal, reference = shared_box(list(scaled.values()))
    return {name: relative_hypervolume(costs, ideal, reference) for name, costs in scaled.items()}
