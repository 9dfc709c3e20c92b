import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.catalog import PREDICTORS
from predictors.choose import METHODS, _tau, choose_predictor
from predictors.option_features import option_features
from predictors.ridge import fit_ridge
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

CELLS = SearchSpace("cells", [Choice(f"edge{j}", ("a", "b", "c")) for j in range(5)])


def rows(n, seed=0):
    return CELLS.sample(n, np.random.default_rng(seed))


def parity(population):
    """Nothing that a hyperplane could see."""
    return (population[:, 0] == population[:, 1]) * 2.0 + (population[:, 2] == population[:, 3])


def test_the_method_that_orders_best_is_taken_with_all_scores():
    found = choose_predictor(CELLS, rows(120), parity(rows(120)), methods=("ridge", "gp"))
    assert found.name == "gp" and list(found.scores) == ["ridge", "gp"]
    assert found.scores["gp"] > found.scores["ridge"] + 0.3
    assert kendalltau(found.predict(rows(200, 1)).mean, parity(rows(200, 1))).statistic > 0.7


def test_the_first_of_equals_is_taken():
    linear = rows(60) @ np.array([1.0, 2.0, -1.0, 0.5, 0.1])
    for methods in (("ridge", "gp"), ("gp", "ridge")):
        assert choose_predictor(CELLS, rows(60), linear, methods=methods).name == methods[0]


def test_beyond_200_points_only_some_are_compared_on_but_all_are_fitted():
    train = rows(230)
    found, again = (choose_predictor(CELLS, train, parity(train), methods=("ridge",)) for _ in range(2))
    everything = fit_ridge(option_features(CELLS), train, parity(train))
    assert np.array_equal(found.predict(rows(9, 1)).mean, everything.predict(rows(9, 1)).mean)
    assert again.scores == found.scores != choose_predictor(CELLS, train, parity(train), 1, ("ridge",)).scores


@pytest.mark.parametrize("methods", [METHODS, *((name,) for name in PREDICTORS)])
def test_three_points_are_enough(methods):
    found = choose_predictor(CELLS, rows(3), np.array([1.0, 2.0, 4.0]), methods=methods)
    assert np.isfinite(found.predict(rows(5, 1)).mean).all() and set(found.scores) == set(methods)


def test_constant_values_have_no_order():
    assert _tau(np.ones(3), np.arange(3.0)) == 0.0 and _tau(np.arange(3.0), np.arange(3.0)) == 1.0


@pytest.mark.parametrize("methods", [(), ("gp", "oracle")])
def test_unknown_methods_are_refused(methods):
    with pytest.raises(ValueError, match=r"expected methods among ridge, gp, .*, got (none|oracle)"):
        choose_predictor(CELLS, rows(9), parity(rows(9)), methods=methods)
