import numpy as np
from sklearn.linear_model import BayesianRidge

from predictors.ridge import fit_ridge
from predictors.warp import fit_warp


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(4, size=(n, 5)).astype(float)


def test_mean_and_deviation_are_scikit_learns_on_the_warped_scale():
    y = rows(50) @ np.array([1.0, -0.5, 0.2, 0.0, 0.4]) + 0.1 * np.random.default_rng(1).normal(size=50)
    order = np.lexsort((y, *rows(50).T[::-1]))
    warp = fit_warp(y[order])
    theirs = BayesianRidge(max_iter=300).fit(rows(50)[order], warp.forward(y[order]))
    mean, std = theirs.predict(rows(20, 2), return_std=True)
    found = fit_ridge(np.asarray, rows(50), y).predict(rows(20, 2))
    np.testing.assert_allclose(warp.forward(found.mean), mean, atol=1e-6)
    np.testing.assert_allclose(found.std, (warp.back(mean + std) - warp.back(mean - std)) / 2, rtol=1e-4)


def test_more_features_than_points_are_shrunk():
    wide = np.random.default_rng(3).normal(size=(260, 100))
    y = wide[:, 0] + wide[:, 1]
    found = fit_ridge(np.asarray, wide[:60], y[:60]).predict(wide[60:])
    assert np.corrcoef(found.mean, y[60:])[0, 1] > 0.5
