"""How long a training is: the number of steps, decided once before the first."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from torch import nn

from search_spaces.space import SearchSpace
from supernet.batches import steps_per_epoch
from supernet.calibrate import inherited_accuracy
from supernet.data import Dataset
from supernet.distributed import first_says
from supernet.learner import Learner
from supernet.lesson import Costs
from supernet.recipe import Recipe
from supernet.strategy import Strategy

_WARM_UP_STEPS = 2
_PROBE_STEPS = 4000  # of the training that the probe takes some steps of
_PROBE_PLACES = (5, 20)  # in the course of it
_AT_A_PLACE = 9  # steps that are timed, at most
_PROBE_SHARE = 0.03
_STILL = 1e-12  # learning rate of the probe, which jumps to where the training's would be at its peak
_EVALUATION_SHARE = 0.1
_RESERVE = 0.03
_ENTRIES = 100
_LATENESS = 1.15  # times the time left that the remaining steps may take before the plan is cut

Clock = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """Number of steps and of evaluations after the start; evaluations are spread evenly, the last at the end."""

    total_steps: int
    evaluations: int

    def evaluates(self, step: int) -> bool:
        """Whether validation accuracies are taken after `step` steps."""
        return step in {round(i * self.total_steps / self.evaluations) for i in range(self.evaluations + 1)}

    def records(self, step: int) -> bool:
        """Whether the history gets an entry after `step` steps: about a hundred times, and at evaluations."""
        return step % max(1, self.total_steps // _ENTRIES) == 0 or self.evaluates(step)


def make_plan(
    network: nn.Module,
    space: SearchSpace,
    dataset: Dataset,
    recipe: Recipe,
    costs: Costs | None = None,
    clock: Clock = time.perf_counter,
) -> Plan:
    """Plan a training of `recipe.epochs`, of `recipe.steps` or of what fits in `recipe.budget_s` seconds: the least.

    The time of a step and of an evaluation are measured on a throwaway copy; `network` is not changed. The time
    this takes counts, and 3 % of the budget are kept in reserve. At least one step is planned.
    """
    epoch = steps_per_epoch(round(len(dataset.y_train) * (1 - recipe.strategy.held_out)), recipe.batch)
    epochs_steps = None if recipe.epochs is None else recipe.epochs * epoch
    steps = min((given for given in (recipe.steps, epochs_steps) if given is not None), default=None)
    if recipe.budget_s is None:
        return Plan(steps or 1, min(recipe.evaluations, steps or 1))
    start = clock()
    step_s, evaluation_s = _measure(copy.deepcopy(network), space, dataset, recipe, costs, clock)
    evaluations = max(1, min(recipe.evaluations, int(_EVALUATION_SHARE * recipe.budget_s / evaluation_s)))
    left_s = recipe.budget_s * (1 - _RESERVE) - (clock() - start) - (evaluations + 1) * evaluation_s
    fitting = max(1, int(left_s / step_s))
    steps = fitting if steps is None else min(steps, fitting)
    return Plan(steps, min(evaluations, steps))


def shortened(plan: Plan, step: int, step_s: float, left_s: float) -> Plan:
    """`plan` cut to the steps that fit in the `left_s` seconds after `step`, where they have become clearly slower.

    A machine shared with others may be half as fast as it was when the plan was made.
    """
    fitting = step + max(1, int(left_s / step_s))
    remaining = plan.total_steps - step
    if remaining <= 1 or (fitting - step) * _LATENESS >= remaining:
        return plan
    return replace(plan, total_steps=fitting)


def evaluate(network: nn.Module, space: SearchSpace, dataset: Dataset, strategy: Strategy) -> tuple[float, float]:
    """Validation accuracies of the strategy's largest and smallest architecture, extracted and calibrated."""
    largest, smallest = (inherited_accuracy(network, arch, dataset) for arch in strategy.ends(space))
    return largest, smallest


def _measure(
    scratch: nn.Module, space: SearchSpace, dataset: Dataset, recipe: Recipe, costs: Costs | None, clock: Clock
) -> tuple[float, float]:
    """Mean seconds of a step and of an evaluation, above zero; steps for about 3 % of the budget.

    They are taken at places spread evenly over a training, since those of many strategies change in its course.
    """
    learner = Learner(scratch, space, dataset, replace(recipe, lr=_STILL), _PROBE_STEPS, costs)
    for t in range(_WARM_UP_STEPS):
        learner.step(t)
    start = clock()
    learner.step(_WARM_UP_STEPS)
    share_s = _PROBE_SHARE * (recipe.budget_s or 0.0)
    places = first_says(int(np.clip(share_s / max(3 * (clock() - start), 1e-9), *_PROBE_PLACES)))
    apart = _PROBE_STEPS // places
    found = [_seconds_at(learner, i * apart + apart // 2, share_s / places, clock) for i in range(places)]
    middle = clock()
    evaluate(learner.averaged, space, dataset, recipe.strategy)
    return max(fmean(found), 1e-9), max(clock() - middle, 1e-9)


def _seconds_at(learner: Learner, t: int, share_s: float, clock: Clock) -> float:
    """Mean seconds of a step after step `t`, which may do what is done once: for `share_s`, one to nine of them."""
    start = clock()
    learner.step(t)
    first, taken = clock(), 0
    while first_says(taken == 0 or (taken < _AT_A_PLACE and clock() - start < share_s)):
        taken += 1
        learner.step(t + taken)
    return (clock() - first) / taken
