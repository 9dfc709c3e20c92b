"""Optuna's samplers as ask/tell searchers (Akiba et al., arXiv:1907.10902).

Each architecture is a trial of an in-memory study.  Choices are asked for one by one in the order of the space, those
alone whose conditions hold, so that a sampler sees no option that does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.objectives import Evaluation
from nas.quiet import quiet
from nas.searchers.random_search import fresh_rows
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

_Row = tuple[int, ...]
_Constraints = Callable[[FrozenTrial], Sequence[float]]
_VIOLATION = "violation"
_POPULATION = 20

SAMPLERS: dict[str, Callable[[int, _Constraints | None], BaseSampler]] = {
    # With a constant liar: an architecture that is being evaluated keeps the next of a batch away.
    "tpe": lambda seed, bounds: TPESampler(seed=seed, constant_liar=True, constraints_func=bounds),
    "gp": lambda seed, bounds: GPSampler(seed=seed, constraints_func=bounds),
    "nsga2": lambda seed, bounds: NSGAIISampler(seed=seed, population_size=_POPULATION, constraints_func=bounds),
    "nsga3": lambda seed, bounds: NSGAIIISampler(seed=seed, population_size=_POPULATION, constraints_func=bounds),
}


class OptunaSearch:
    """The Optuna sampler of that name in `SAMPLERS`.

    A sampler that asks for what is known is told it once more, so that it goes on as it would in its own study.

    Args:
        tries: different known architectures that the sampler may ask for in a row, before a random one is taken.
    """

    def __init__(self, space: SearchSpace, objectives: int, seed: int, sampler: str, tries: int = 5) -> None:
        self._tries = tries
        self._space, self._objectives, self._seed, self._name = space, objectives, seed, sampler
        self._rng = np.random.default_rng(seed)
        self._asked: set[_Row] = set()
        self._known: dict[_Row, Evaluation] = {}
        self._open: dict[_Row, Trial] = {}  # asked for, and nothing told since
        self._bounded = False
        self._begin()

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d); random ones where the sampler has nothing new."""
        rows: list[_Row] = []
        with quiet():
            while len(rows) < n and len(self._asked) < self._space.size:
                found = self._new() or self._random()
                if not found:
                    break
                rows += found
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(self._space))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Ends the trials of what was asked: completed, or failed where nothing is told."""
        self._known.update({e.arch.indices: e for e in evaluations})
        self._asked.update(e.arch.indices for e in evaluations)
        with quiet():
            if not self._bounded and any(e.violation > 0 for e in evaluations):
                self._begin(bounded=True)
                return
            for evaluation in evaluations:
                row = evaluation.arch.indices
                self._end(self._open.pop(row, None) or self._placed(row), row)
            for row, trial in self._open.items():
                self._end(trial, row)
            self._open.clear()

    def _begin(self, bounded: bool = False) -> None:
        """Starts a study with what is known.

        A constraint that has never been broken is none: samplers would model it, and then trust only what is near.
        """
        self._bounded = bounded
        self._open.clear()
        with quiet():
            sampler = SAMPLERS[self._name](self._seed, _violation if bounded else None)
            self._study = optuna.create_study(directions=["minimize"] * self._objectives, sampler=sampler)
            for row in self._known:
                self._end(self._placed(row), row)

    def _new(self) -> list[_Row]:
        """One new architecture that the sampler asks for; none where it repeats itself."""
        known: set[_Row] = set()
        while len(known) < self._tries:
            trial = self._study.ask()
            row = self._suggested(trial)
            if row not in self._asked:
                self._asked.add(row)
                self._open[row] = trial
                return [row]
            self._end(trial, row)
            if row in known:
                break
            known.add(row)
        return []

    def _random(self) -> list[_Row]:
        """One new architecture by chance, or none where the space counts as used up."""
        rows: list[_Row] = list(map(tuple, fresh_rows(self._space, 1, self._rng, self._asked).tolist()))
        self._open.update({row: self._placed(row) for row in rows})
        return rows

    def _placed(self, row: _Row) -> Trial:
        """A trial of a given architecture."""
        active = self._space.active(np.array([row], dtype=INDEX))[0]
        self._study.enqueue_trial({c.name: i for c, i, on in zip(self._space.choices, row, active, strict=True) if on})
        trial = self._study.ask()
        self._suggested(trial)
        return trial

    def _suggested(self, trial: Trial) -> _Row:
        """The architecture of a trial, choice by choice."""
        row = np.zeros((1, len(self._space)), dtype=INDEX)
        for j, choice in enumerate(self._space.choices):
            active = self._space.active_column(row, j)
            if active is None or active[0]:
                row[0, j] = _suggest(trial, choice)
        return tuple(self._space.canonical(row)[0].tolist())  # the one that stands for all equivalent ones

    def _end(self, trial: Trial, row: _Row) -> None:
        """Tells the study what is known of the trial's architecture: failed where that is nothing."""
        evaluation = self._known.get(row)
        if evaluation is None:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr(_VIOLATION, evaluation.violation)
        self._study.tell(trial, evaluation.costs)


def _suggest(trial: Trial, choice: Choice) -> int:
    """The option index for a choice: an integer where options are growing numbers, else one of several names."""
    last = len(choice.options) - 1
    numbers = [o for o in choice.options if isinstance(o, (int, float)) and not isinstance(o, bool)]
    if len(numbers) == len(choice.options) and numbers == sorted(numbers):
        return trial.suggest_int(choice.name, 0, last)
    return int(trial.suggest_categorical(choice.name, range(last + 1)))


def _violation(trial: FrozenTrial) -> Sequence[float]:
    return (float(trial.user_attrs[_VIOLATION]),)
