"""Laws of every method in the catalog that learns from networks in full precision and quantized ones."""

import functools

import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.catalog import QUANTIZED
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

BITS = ("w2a8", "w4a8", "int8", "fp32")
DEPTH = Choice("depth", (1, 2, 3))
WHEN = (None, DEPTH.among(2, 3), DEPTH.among(3))
BLOCKS = [Choice(f"block{i}.precision", BITS, *([] if w is None else [w])) for i, w in enumerate(WHEN)]
SPACE = SearchSpace("joint", [DEPTH, Choice("kernel", (3, 5, 7)), Choice("width", (16, 24, 32, 48)), *BLOCKS])
COLUMNS = (3, 4, 5)
LOST = np.array([[2.0, 0.6, 0.1, 0.0], [1.0, 0.3, 0.0, 0.0], [3.0, 1.0, 0.2, 0.0]])


def rows(n, seed, plain=False):
    found = SPACE.sample(n, np.random.default_rng(seed))
    if plain:
        found[:, COLUMNS] = len(BITS) - 1
    return SPACE.canonical(found)


def whole(population):
    return -2 - 0.4 * population[:, 0] - 0.2 * population[:, 1] - 0.3 * population[:, 2]


def target(population):
    active = SPACE.active(population)
    lost = sum(LOST[i][population[:, j]] * active[:, j] for i, j in enumerate(COLUMNS))
    return whole(population) + lost


def noisy(population, seed):
    return target(population) + 0.05 * np.random.default_rng(seed).normal(size=len(population))


TRAIN = np.concatenate([rows(60, 0, plain=True), rows(30, 1)])
KNOWN = noisy(TRAIN, 2)


@pytest.fixture(scope="module", params=QUANTIZED)
def fit(request):
    return functools.partial(QUANTIZED[request.param].fit, SPACE, COLUMNS)


@pytest.fixture(scope="module")
def fitted(fit):
    return fit(TRAIN, KNOWN, 0)


def test_quantized_networks_are_ordered_after_few_of_them(fitted):
    judged = rows(300, 3)
    found = fitted.predict(judged)
    assert kendalltau(found.mean, target(judged)).statistic > 0.5
    assert np.abs(found.mean - target(judged)).mean() < 0.6 * target(judged).std()
    assert (found.std > 0).all() and found.std.mean() < target(judged).std()


def test_networks_in_full_precision_alone_are_enough(fit):
    train, judged = rows(60, 0, plain=True), rows(100, 4, plain=True)
    found = fit(train, noisy(train, 5), 0).predict(judged).mean
    assert kendalltau(found, target(judged)).statistic > 0.75


def test_quantized_networks_alone_are_enough(fit):
    train = rows(60, 6)
    train = train[(train[:, COLUMNS[0]] < len(BITS) - 1)]
    found = fit(train, noisy(train, 7), 0).predict(rows(200, 8)).mean
    assert kendalltau(found, target(rows(200, 8))).statistic > 0.4


def test_a_batch_equals_one_by_one_and_arguments_are_left_alone(fitted):
    batch = rows(8, 9)
    found, single = fitted.predict(batch), [fitted.predict(row[None]) for row in batch]
    np.testing.assert_allclose(found.mean, np.concatenate([p.mean for p in single]), rtol=1e-3, atol=1e-4)
    assert np.array_equal(batch, rows(8, 9))


def test_the_order_of_the_data_does_not_matter(fit, fitted):
    order = np.random.default_rng(10).permutation(len(TRAIN))
    found = fit(TRAIN[order], KNOWN[order], 0).predict(rows(50, 11))
    np.testing.assert_allclose(found.mean, fitted.predict(rows(50, 11)).mean, rtol=1e-4, atol=1e-4)


def test_constant_targets_are_no_trouble(fit):
    found = fit(TRAIN[50:70], np.full(20, 0.25), 0).predict(rows(5, 12))
    np.testing.assert_allclose(found.mean, 0.25, atol=1e-3)


def test_what_cannot_be_fitted_is_refused(fit):
    with pytest.raises(ValueError, match="must be finite, got nan at position 1"):
        fit(rows(4, 0), np.array([1.0, np.nan, 2.0, 3.0]), 0)
    with pytest.raises(ValueError, match=r"got 4 architectures and targets of shape \(3,\)"):
        fit(rows(4, 0), np.zeros(3), 0)
