import numpy as np
import pytest
from scipy.stats import skew

from predictors.protocol import Prediction
from predictors.warp import fit_warp, winsorised

HEAVY = 0.94 - np.random.default_rng(0).lognormal(-3, 1, size=200)  # a long tail of bad values


def test_a_long_tail_becomes_nearly_normal():
    warped = fit_warp(HEAVY).forward(HEAVY)
    assert abs(skew(warped)) < 0.5 < 1.5 < abs(skew(HEAVY))
    assert warped.mean() == pytest.approx(0, abs=0.01) and warped.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("unit", [1.0, 100.0, 1e-6])
def test_the_way_back_is_exact_also_beyond_the_data_and_in_any_unit(unit):
    values = HEAVY * unit
    warp = fit_warp(values)
    beyond = np.linspace(values.min() - np.ptp(values), values.max() + np.ptp(values), 301)
    np.testing.assert_allclose(warp.back(warp.forward(beyond)), beyond, rtol=1e-9)
    assert (np.diff(warp.forward(beyond)) > 0).all()
    np.testing.assert_allclose(warp.forward(values), fit_warp(HEAVY).forward(HEAVY), rtol=1e-6, atol=1e-9)


def test_normal_values_stay_as_they_are():
    values = np.random.default_rng(1).normal(3, 2, size=1000)
    np.testing.assert_allclose(fit_warp(values).forward(values), (values - values.mean()) / values.std(), atol=0.15)


def test_an_interval_keeps_its_width():
    warp = fit_warp(HEAVY)
    found = warp.unwarp(Prediction(np.array([0.3]), np.array([0.2])))
    ends = warp.back(np.array([0.1, 0.3, 0.5]))
    assert found.mean[0] == ends[1] and found.std[0] == pytest.approx((ends[2] - ends[0]) / 2)


@pytest.mark.parametrize("value", [0.0, 0.25, -1e9])
def test_constant_values_have_a_way_back(value):
    warp = fit_warp(np.full(5, value))
    np.testing.assert_allclose(warp.forward(np.full(3, value)), 0, atol=1e-6)
    np.testing.assert_allclose(warp.back(np.zeros(2)), value)
    assert (warp.unwarp(Prediction(np.zeros(1), np.ones(1))).std <= 1e-8 * max(1, abs(value))).all()


def test_only_what_is_beyond_the_fences_is_moved_and_to_there():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])  # quartiles 1 and 3, fences at -59 and 63
    np.testing.assert_array_equal(winsorised(np.array([-60.0, 1.0, 2.0, 3.0, 64.0])), [-59, 1, 2, 3, 63])
    for kept in (values, np.array([-59.0, 1.0, 2.0, 3.0, 63.0]), HEAVY):
        np.testing.assert_array_equal(winsorised(kept), kept)


@pytest.mark.parametrize("values", [[5.0, 5.0, 5.0, 5.0, 1e8], [0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2, 0.3, 0.9]])
def test_where_half_of_the_values_are_equal_all_stay(values):
    np.testing.assert_array_equal(winsorised(np.array(values)), values)
