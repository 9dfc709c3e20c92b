import numpy as np
import optuna
import pytest
from tiny_task import tiny_task

from experiments.sample_efficiency.direct import DIRECT, optuna_study
from experiments.sample_efficiency.tasks import costs_of
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2, 3))
SECOND = Choice("second", (3, 5), DEPTH.among(2, 3))
SPACE = SearchSpace("conditional", [DEPTH, SECOND, Choice("third", (3, 5, 7), SECOND.among(3))])
SAMPLERS = [name for name in DIRECT if name.startswith("Optuna")]


class Watched(optuna.samplers.RandomSampler):
    """Random search that keeps what each trial was suggested."""

    def __init__(self, seed):
        super().__init__(seed)
        self.suggested = []

    def after_trial(self, study, trial, state, values):
        self.suggested.append(trial.params)


def test_only_active_choices_are_suggested():
    sampler = Watched(seed=0)
    rows = optuna_study(lambda seed: sampler)(tiny_task(SPACE), 200, 0)
    assert len(rows) == len(sampler.suggested) == 200
    assert len(np.unique(rows, axis=0)) == SPACE.size
    for row, params in zip(rows, sampler.suggested, strict=True):
        active = SPACE.active(row[None])[0]
        assert params == {c.name: i for c, i, on in zip(SPACE.choices, row.tolist(), active, strict=True) if on}


@pytest.mark.parametrize("name", SAMPLERS)
def test_architectures_of_a_conditional_space_are_canonical(name):
    rows = DIRECT[name](tiny_task(SPACE), 12, 1)  # the process begins after ten
    assert rows.shape == (12, 3)
    assert np.array_equal(rows, SPACE.canonical(rows))


def test_without_conditions_every_choice_is_suggested_as_by_hand():
    task = tiny_task()
    space, asked = task.benchmark.space, []

    def objective(trial):
        asked.append([trial.suggest_categorical(c.name, tuple(range(len(c.options)))) for c in space.choices])
        return tuple(costs_of(task.benchmark, np.array(asked[-1:]))[0])

    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.TPESampler(seed=2))
    study.optimize(objective, n_trials=30)
    assert DIRECT["Optuna TPE"](task, 30, 2).tolist() == asked


def test_the_others_ask_for_the_budget_too():
    for name in DIRECT.keys() - set(SAMPLERS):
        assert DIRECT[name](tiny_task(), 40, 0).shape == (40, 2)
