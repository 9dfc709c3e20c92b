import warnings

import numpy as np
import optuna
import pytest

from nas.searchers.optuna_sampler import OptunaSearch
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from tests.nas.searchers.bowl import SPACE, TARGET, evaluate, tuples

GATE = Choice("gate", ("closed", "open"))
GATED = SearchSpace("gated", [GATE, Choice("inner", (1, 2, 4), GATE.among("open")), Choice("mixed", (3, 1, 2))])


def trials(searcher):
    return searcher._study.trials


def test_a_trial_has_the_active_choices_alone_and_numbers_in_their_order():
    searcher = OptunaSearch(GATED, 1, 0, "tpe")
    rows = searcher.ask(12)
    running = [t for t in trials(searcher) if t.state.name == "RUNNING"]  # the others repeated one of them
    for row, trial in zip(tuples(rows), running, strict=True):
        assert ("inner" in trial.params) == (row[0] == 1)
        assert [trial.params.get(name, 0) for name in ("gate", "inner", "mixed")] == list(row)
    kinds = {name: type(d).__name__ for trial in trials(searcher) for name, d in trial.distributions.items()}
    categorical = "CategoricalDistribution"
    assert kinds == {"gate": categorical, "inner": "IntDistribution", "mixed": categorical}


def test_trials_end_as_they_were_told():
    searcher = OptunaSearch(SPACE, 1, 0, "tpe")
    rows = searcher.ask(3)
    searcher.tell(evaluate(rows[1:]))
    searcher.tell(evaluate(np.array([TARGET])))
    assert [t.state.name for t in trials(searcher)] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [t.value for t in trials(searcher)][1:] == [e.costs[0] for e in evaluate(np.array([*rows[1:], TARGET]))]


def test_what_the_sampler_repeats_is_told_again():
    searcher = OptunaSearch(SPACE, 1, 0, "tpe")
    known = np.array([arch.indices for arch in SPACE.enumerate() if arch.indices != TARGET])
    searcher.tell(evaluate(known))
    assert tuples(searcher.ask(5)) == [TARGET]
    states = [t.state.name for t in trials(searcher)[len(known) :]]
    assert states[:-1] == ["COMPLETE"] * (len(states) - 1) and states[-1] == "RUNNING" and 1 <= len(states) <= 6


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_bounds_begin_to_count_with_the_first_that_is_broken(name):
    searcher = OptunaSearch(SPACE, 1, 0, name)
    for bounds in ((100.0,), (1.0,)):
        searcher.tell(evaluate(searcher.ask(4), bounds=bounds))
    found = trials(searcher)
    violations = [t.user_attrs["violation"] for t in found]
    assert len(found) == 8 and violations[:4] == [0.0] * 4 and max(violations) > 0
    assert [t.system_attrs["constraints"] for t in found] == [(v,) for v in violations]


def test_optuna_keeps_silent_and_its_settings_stay(capfd):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher = OptunaSearch(SPACE, 2, 0, "tpe")
        searcher.tell(evaluate(searcher.ask(12), objectives=2, bounds=[0.5]))
        searcher.ask(2)
    after = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "") and after == optuna.logging.INFO
