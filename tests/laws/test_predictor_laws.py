"""Laws of every predictor in the catalog, and of the automatic choice."""

import functools

import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.catalog import PREDICTORS
from predictors.choose import choose_predictor
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2, 3))
SPACE = SearchSpace(
    "small",
    [
        DEPTH,
        Choice("kernel0", (3, 5, 7)),
        Choice("kernel1", (3, 5, 7), DEPTH.among(2, 3)),
        Choice("kernel2", (3, 5, 7), DEPTH.among(3)),
        Choice("activation", ("relu", "swish", "gelu")),
        Choice("width", (16, 24, 32, 48)),
    ],
)
METHODS = {
    **{name: entry.fit for name, entry in PREDICTORS.items()},
    "auto": functools.partial(lambda *given: choose_predictor(*given, methods=("gp", "ridge"))),
}
NOISE = 0.1


def rows(n, seed):
    return SPACE.sample(n, np.random.default_rng(seed))


def additive(population):
    x = population.astype(float)
    return 0.7 + 0.5 * x[:, 0] + 0.3 * x[:, 1:4].sum(axis=1) + np.array([0, 0.6, 0.5])[population[:, 4]] + 0.4 * x[:, 5]


def noisy(population, seed):
    return additive(population) + NOISE * np.random.default_rng(seed).normal(size=len(population))


@pytest.fixture(scope="module", params=METHODS)
def fit(request):
    return functools.partial(METHODS[request.param], SPACE)


@pytest.fixture(scope="module")
def fitted(fit):
    return fit(rows(60, 20), noisy(rows(60, 20), 21), 0)


def test_an_additive_function_is_recovered(fitted):
    found = fitted.predict(rows(300, 2))
    assert kendalltau(found.mean, additive(rows(300, 2))).statistic > 0.7
    assert np.sqrt(np.mean((found.mean - additive(rows(300, 2))) ** 2)) < 0.45 * additive(rows(300, 2)).std()


def test_a_stated_interval_covers_what_it_says(fitted):
    found = fitted.predict(rows(400, 3))
    assert found.mean.shape == found.std.shape == (400,) and (found.std > 0).all()
    inside = np.abs(noisy(rows(400, 3), 4) - found.mean) < found.half_width(0.9)
    assert inside.mean() >= 0.8
    assert found.std.mean() < additive(rows(400, 3)).std()  # not by saying nothing


def test_a_batch_equals_one_by_one_and_arguments_are_left_alone(fitted):
    batch = rows(12, 5)
    found, single = fitted.predict(batch), [fitted.predict(row[None]) for row in batch]
    np.testing.assert_allclose(found.mean, np.concatenate([p.mean for p in single]), rtol=1e-4)
    np.testing.assert_allclose(found.std, np.concatenate([p.std for p in single]), rtol=1e-3)
    assert np.array_equal(batch, rows(12, 5))


def test_the_order_of_the_data_does_not_matter(fit, fitted):
    order = np.random.default_rng(6).permutation(60)
    train, targets = rows(60, 20), noisy(rows(60, 20), 21)
    kept = train.copy(), targets.copy()
    found = fit(train[order], targets[order], 0).predict(rows(50, 7))
    np.testing.assert_allclose(found.mean, fitted.predict(rows(50, 7)).mean, rtol=1e-6)
    np.testing.assert_allclose(found.std, fitted.predict(rows(50, 7)).std, rtol=1e-5)
    assert np.array_equal(train, kept[0]) and np.array_equal(targets, kept[1])


def test_constant_targets_are_no_trouble(fit):
    found = fit(rows(9, 8), np.full(9, 0.25), 0).predict(rows(5, 9))
    np.testing.assert_allclose(found.mean, 0.25, atol=1e-3)
    assert (found.std < 0.01).all()


def test_one_value_far_off_hardly_changes_the_order(fit):
    train, targets = rows(60, 20), noisy(rows(60, 20), 21)
    for extreme in (1e8, -1e8):
        targets[7] = extreme
        found = fit(train, targets, 0).predict(rows(300, 2))
        assert kendalltau(found.mean, additive(rows(300, 2))).statistic > 0.6
        assert np.abs(found.mean).max() < 1e3


@pytest.mark.parametrize("name", METHODS)
def test_the_fewest_values_are_enough(name):
    least = 3 if name == "auto" else 2
    found = METHODS[name](SPACE, rows(least, 0), np.arange(least) + 1.0, 0).predict(rows(5, 1))
    assert np.isfinite(found.mean).all() and (found.std > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_fewer_values_than_folds_of_a_single_architecture_are_no_trouble(name):
    fixed = SearchSpace("fixed", [Choice("width", (8,))])
    rows = np.zeros((3, 1), dtype=int)
    found = METHODS[name](fixed, rows, np.array([2.0, 3.0, 4.0]), 0).predict(rows[:1])
    assert found.mean[0] == pytest.approx(3, abs=0.5) and 0.3 < found.std[0] < 10


def test_what_cannot_be_fitted_is_refused(fit):
    with pytest.raises(ValueError, match="must be finite, got nan at position 1"):
        fit(rows(4, 0), np.array([1.0, np.nan, 2.0, 3.0]), 0)
    with pytest.raises(ValueError, match=r"got 4 architectures and targets of shape \(3,\)"):
        fit(rows(4, 0), np.zeros(3), 0)
    with pytest.raises(ValueError, match="needs at least"):
        fit(rows(1, 0), np.zeros(1), 0)
