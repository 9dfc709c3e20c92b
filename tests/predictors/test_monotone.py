import numpy as np
import pytest

from predictors.monotone import fit_monotone


def test_plateaus_become_slopes_between_their_middles():
    warp = fit_monotone(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 2.5, 5.0]))
    np.testing.assert_allclose(warp.warped, [0, 2, 4])
    np.testing.assert_allclose(warp.metric, [1, 2.5, 5])
    assert (np.diff(warp.back(np.linspace(-2, 6, 50))) > 0).all()


def test_a_curve_is_followed():
    scores = np.random.default_rng(0).normal(size=200)
    np.testing.assert_allclose(fit_monotone(scores, np.exp(scores)).back(scores), np.exp(scores), rtol=1e-6)


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0], [2.0, 2.0, 2.0]])
def test_scores_that_order_nothing_keep_their_order_and_say_the_mean(values):
    found = fit_monotone(np.array([0.0, 1.0, 2.0]), np.array(values)).back(np.array([0.0, 1.0, 2.0]))
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, 2.0, atol=0.01)
