import numpy as np

from predictors.boosting import fit_boosting


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(4, size=(n, 5))


def target(x):
    return np.where(x[:, 0] > 1, x[:, 1], 3 - x[:, 1]) + 0.1 * x[:, 2]


def test_an_interaction_is_learnt():
    found = fit_boosting(np.asarray, rows(200), target(rows(200)), seed=0, members=4).predict(rows(200, 1)).mean
    assert np.corrcoef(found, target(rows(200, 1)))[0, 1] > 0.9


def test_members_and_trees_are_as_many_as_asked_for_and_a_seed_decides():
    a, b, c = (fit_boosting(np.asarray, rows(40), target(rows(40)), seed, members=3, trees=7) for seed in (0, 0, 1))
    assert len(a.members) == 3 and all(len(member.estimators_) == 7 for member in a.members)
    means = [model.predict(rows(9)).mean for model in (a, b, c)]
    assert np.array_equal(means[0], means[1]) and not np.array_equal(means[0], means[2])


def test_a_member_of_one_point_says_its_value():
    found = fit_boosting(np.asarray, rows(2), np.array([1.0, 3.0]), seed=0).predict(rows(4, 1))
    np.testing.assert_allclose(found.mean, 2.0)
    assert (found.std > 1).all()


def test_noise_widens_the_deviation():
    noise = 2 * np.random.default_rng(0).normal(size=100)
    quiet, loud = (
        fit_boosting(np.asarray, rows(100), y, seed=0, members=3, trees=50).predict(rows(50, 1)).std.mean()
        for y in (target(rows(100)), target(rows(100)) + noise)
    )
    assert loud > 2 * quiet and 1.2 < loud < 4
