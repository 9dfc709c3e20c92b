import numpy as np
import pytest

from predictors.committee import joined, left_out_folds, noise_of


@pytest.mark.parametrize(("n", "members", "expected"), [(10, 3, 3), (2, 5, 2), (7, 7, 7)])
def test_every_point_is_left_out_once_by_members_of_equal_size(n, members, expected):
    left_out = left_out_folds(n, members, np.random.default_rng(0))
    assert left_out.shape == (expected, n) and (left_out.sum(axis=0) == 1).all()
    assert np.ptp(left_out.sum(axis=1)) <= 1


def test_the_noise_is_what_disagreement_does_not_explain():
    left_out = np.array([[True, False], [False, True]])
    found = np.array([[3.0, 9.0], [1.0, 4.0]])  # left-out residuals 3 - 1 = 2 and 4 - 5 = -1; variances 1 and 6.25
    assert noise_of(found, left_out, np.array([1.0, 5.0])) == 1e-6
    assert noise_of(found, left_out, np.array([-3.0, 5.0])) == pytest.approx((36 + 1) / 2 - (1 + 6.25) / 2)


def test_members_are_joined():
    found = joined(np.array([[1.0, 2.0], [3.0, 2.0]]), 3.0)
    np.testing.assert_allclose(found.mean, [2, 2])
    np.testing.assert_allclose(found.std, [2, np.sqrt(3)])
