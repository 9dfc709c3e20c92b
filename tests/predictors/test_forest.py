import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.tree import ExtraTreeRegressor

from predictors.forest import _moments, fit_forest
from predictors.warp import fit_warp


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(4, size=(n, 5))


def target(x):
    return np.where(x[:, 0] > 1, x[:, 1], 3 - x[:, 1]) + 0.1 * x[:, 2]


def test_an_interaction_is_learnt():
    found = fit_forest(np.asarray, rows(300), target(rows(300)), seed=0).predict(rows(200, 1)).mean
    assert np.corrcoef(found, target(rows(200, 1)))[0, 1] > 0.95


def test_the_mean_is_scikit_learns():
    model = fit_forest(np.asarray, rows(80), target(rows(80)), seed=3, trees=20)
    order = np.lexsort((target(rows(80)), *rows(80).T[::-1]))
    x, y = rows(80)[order], target(rows(80))[order]
    warp = fit_warp(y)
    theirs = (
        ExtraTreesRegressor(20, min_samples_leaf=2, bootstrap=True, random_state=3)
        .fit(x, warp.forward(y))
        .predict(rows(50, 1))
    )
    np.testing.assert_allclose(warp.forward(model.predict(rows(50, 1)).mean), theirs, atol=1e-9)


def test_the_deviation_is_the_spread_of_all_trees_leaves():
    x = np.zeros((40, 1), dtype=int)  # nothing to split on: every tree is one leaf
    noise = np.random.default_rng(0).normal(5, 2, size=40)
    found = fit_forest(np.asarray, x, noise, seed=0, trees=50).predict(x[:1])
    assert found.mean[0] == pytest.approx(np.median(noise), abs=0.5)
    assert found.std[0] == pytest.approx(noise.std(), rel=0.35)


def test_a_seed_decides():
    a, b, c = (
        fit_forest(np.asarray, rows(50), target(rows(50)), seed, trees=5).predict(rows(9)).mean for seed in (0, 0, 1)
    )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_nodes_know_mean_and_mean_square_of_their_targets():
    tree = ExtraTreeRegressor(max_leaf_nodes=2, random_state=0).fit(rows(40), target(rows(40)))
    reached = tree.apply(rows(40))
    for node in (1, 2):
        inside = target(rows(40))[reached == node]
        np.testing.assert_allclose(_moments(tree)[node], [inside.mean(), np.mean(inside**2)])
