import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.categorical_gp import fit_categorical_gp
from predictors.fidelity import fit_two_fidelities
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

CELLS = SearchSpace("cells", [Choice(f"edge{j}", ("none", "skip", "conv1", "conv3")) for j in range(8)])
WORTH = np.random.default_rng(0).normal(size=(8, 4))


def cheap(population):
    return WORTH[np.arange(8), population].sum(axis=1)


def full(population):
    return np.tanh(cheap(population) / 3) + 0.05 * population[:, 0]


def test_many_cheap_values_help_a_few_full_ones():
    many, few, test = (CELLS.sample(n, np.random.default_rng(n)) for n in (150, 12, 300))
    both = fit_two_fidelities(CELLS, many, cheap(many), few, full(few)).predict(test)
    alone = fit_categorical_gp(CELLS, few, full(few)).predict(test)
    found, without = (kendalltau(p.mean, full(test)).statistic for p in (both, alone))
    assert found > 0.9 and found > without + 0.2
    assert np.mean(np.abs(both.mean - full(test)) < both.half_width()) > 0.7
    assert np.corrcoef(both.mean, full(test))[0, 1] > 0.95


def test_too_few_values_of_either_are_refused():
    rows = CELLS.sample(5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 2"):
        fit_two_fidelities(CELLS, rows[:1], cheap(rows[:1]), rows, full(rows))
    with pytest.raises(ValueError, match="at least 2"):
        fit_two_fidelities(CELLS, rows, cheap(rows), rows[:1], full(rows[:1]))
