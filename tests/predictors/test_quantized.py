import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.categorical_gp import fit_categorical_gp
from predictors.quantized import fit_around_drop
from predictors.quantized_mlp import fit_quantized_mlp, inputs
from tests.laws.test_quantized_predictor_laws import COLUMNS, KNOWN, SPACE, TRAIN, rows, target

COSTS = np.random.default_rng(1).normal(size=(len(TRAIN), 2))


def test_few_quantized_networks_teach_more_with_a_drop_than_without():
    few = np.r_[0:60, 60:70]
    judged = rows(300, 20)
    around = fit_around_drop(SPACE, COLUMNS, TRAIN[few], KNOWN[few]).predict(judged).mean
    alone = fit_categorical_gp(SPACE, TRAIN[few], KNOWN[few]).predict(judged).mean
    errors = [np.abs(found - target(judged)).mean() for found in (around, alone)]
    assert errors[0] < 0.8 * errors[1]


def test_without_policies_it_is_the_process_alone():
    plain, y = TRAIN[:60], KNOWN[:60]
    found = fit_around_drop(SPACE, COLUMNS, plain, y, COSTS[:60])
    alone = fit_categorical_gp(SPACE, plain, y, COSTS[:60])
    judged, extra = rows(20, 21), np.zeros((20, 2))
    assert np.array_equal(found.predict(judged, extra).mean, alone.predict(judged, extra).mean)
    assert np.array_equal(found.predict_off(judged, -1.0, extra), alone.predict_off(judged, -1.0, extra))
    for columns, given in (((), TRAIN), (COLUMNS, TRAIN[60:])):  # no policies, and nothing in full precision
        assert not fit_around_drop(SPACE, columns, given, np.arange(len(given)) / 10.0).drop(judged).any()


def test_optimism_moves_the_process_and_leaves_the_drop():
    found = fit_around_drop(SPACE, COLUMNS, TRAIN, KNOWN)
    judged = rows(20, 22)
    low, mean = found.predict_off(judged, -1.0), found.predict_off(judged, 0.0)
    assert (low < mean).all()
    np.testing.assert_allclose(mean, found.predict(judged).mean, rtol=1e-4)
    np.testing.assert_allclose(mean - found.drop(judged), found.process.predict(judged).mean, rtol=1e-4, atol=1e-5)


def test_extra_columns_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"belong to 90 architectures, got an array of \(3, 2\)"):
        fit_around_drop(SPACE, COLUMNS, TRAIN, KNOWN, COSTS[:3])


def test_before_it_has_seen_a_policy_a_network_says_of_all_what_it_says_of_full_precision():
    found = fit_quantized_mlp(SPACE, COLUMNS, TRAIN[:60], KNOWN[:60], seed=0, members=3, steps=50)
    judged = rows(50, 23)
    same = found.predict(judged).mean, found.predict(found.policies.plain(judged)).mean
    assert np.array_equal(*same) and kendalltau(same[0], target(judged)).statistic > 0


def test_a_network_that_has_seen_policies_tells_them_apart():
    found = fit_quantized_mlp(SPACE, COLUMNS, TRAIN, KNOWN, seed=0, members=3, steps=100)
    judged = rows(50, 24)
    assert not np.allclose(found.predict(judged).mean, found.predict(found.policies.plain(judged)).mean)
    x = inputs(found.policies, found.features, found.center, found.scale, judged)
    assert x.shape == (50, len(found.center) + 9) and found.layers[0][0].shape[1] == x.shape[1]


def test_fewer_quantized_networks_than_members_are_no_trouble():
    for n in (61, 62, 63):
        found = fit_quantized_mlp(SPACE, COLUMNS, TRAIN[:n], KNOWN[:n], seed=0, members=4, steps=20)
        assert np.isfinite(found.predict(rows(9, 25)).mean).all() and (found.predict(rows(9, 25)).std > 0).all()
