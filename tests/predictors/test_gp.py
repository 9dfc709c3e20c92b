import numpy as np
import pytest

from predictors.gp import fit_gaussian_process


def rows(n, seed=0, d=6, options=4):
    return np.random.default_rng(seed).integers(options, size=(n, d))


def linear(population):
    return population @ np.array([0.5, -0.2, 0.1, 0.0, 0.3, -0.4]) + 3


def test_a_linear_function_is_recovered():
    train, test = rows(60), rows(200, seed=1)
    predicted = fit_gaussian_process(np.asarray, train, linear(train)).predict(test)
    np.testing.assert_allclose(predicted.mean, linear(test), atol=0.01)
    assert predicted.mean.shape == predicted.std.shape == (200,)
    assert (predicted.std < 0.05 * linear(test).std()).all()
    beyond = fit_gaussian_process(np.asarray, train, linear(train)).predict(test + 2).mean
    np.testing.assert_allclose(beyond, linear(test + 2), atol=0.05)


def test_a_smooth_deviation_from_it_too():
    def function(x):
        return linear(x) + 0.3 * np.sin(x[:, 0] * x[:, 1] / 3)

    train, test = rows(200), rows(200, seed=1)
    predicted = fit_gaussian_process(np.asarray, train, function(train)).predict(test).mean
    error = np.sqrt(np.mean((predicted - function(test)) ** 2))
    assert error < 0.3 * np.std(function(test) - linear(test))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_intervals_cover_new_observations_as_often_as_they_say(noise):
    inside = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        train, test = rows(100, seed), rows(500, seed + 100)
        predicted = fit_gaussian_process(np.asarray, train, linear(train) + noise * rng.normal(size=100)).predict(test)
        observed = linear(test) + noise * rng.normal(size=500)
        inside.append(np.abs(observed - predicted.mean) < 1.96 * predicted.std)
        assert np.sqrt(np.mean((predicted.mean - linear(test)) ** 2)) < 0.5 * noise
    assert 0.90 < np.mean(inside) < 0.98


def test_the_deviation_grows_away_from_the_data():
    model = fit_gaussian_process(np.asarray, rows(60), linear(rows(60)))
    near, far = model.predict(rows(60)).std.mean(), model.predict(rows(60) + 20).std.mean()
    assert far > 2 * near


def test_the_order_of_the_data_does_not_matter():
    train, test = rows(80), rows(50, seed=1)
    targets = linear(train) + 0.1 * np.random.default_rng(0).normal(size=80)
    order = np.random.default_rng(1).permutation(80)
    a = fit_gaussian_process(np.asarray, train, targets).predict(test)
    b = fit_gaussian_process(np.asarray, train[order], targets[order]).predict(test)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-3)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-2)


def test_a_batch_equals_one_by_one_and_arguments_are_left_alone():
    train, test = rows(50), rows(20, seed=1)
    targets = linear(train)
    before = train.copy(), targets.copy(), test.copy()
    model = fit_gaussian_process(np.asarray, train, targets)
    batch, single = model.predict(test), [model.predict(row[None]) for row in test]
    np.testing.assert_allclose(batch.mean, np.concatenate([p.mean for p in single]), rtol=1e-9)
    np.testing.assert_allclose(batch.std, np.concatenate([p.std for p in single]), rtol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, (train, targets, test), strict=True))


def test_constant_features_and_constant_targets_are_no_trouble():
    train = rows(30)
    train[:, 2] = 7
    predicted = fit_gaussian_process(np.asarray, train, linear(train)).predict(train)
    np.testing.assert_allclose(predicted.mean, linear(train), atol=0.02)
    constant = fit_gaussian_process(np.asarray, train, np.full(30, 0.25)).predict(rows(9, seed=1))
    np.testing.assert_allclose(constant.mean, 0.25, atol=1e-3)
    same = fit_gaussian_process(np.asarray, np.ones((3, 2)), np.array([1.0, 2.0, 3.0])).predict(np.ones((1, 2)))
    np.testing.assert_allclose(same.mean, 2.0, atol=1e-3)


def test_features_are_what_is_regressed_on():
    train, test = rows(60), rows(60, seed=1)
    model = fit_gaussian_process(lambda p: np.log1p(p[:, :1]), train, np.log1p(train[:, 0]))
    np.testing.assert_allclose(model.predict(test).mean, np.log1p(test[:, 0]), atol=0.01)


@pytest.mark.parametrize(("points", "targets"), [(1, 1), (0, 0), (3, 2)])
def test_too_few_points_or_targets_are_refused(points, targets):
    with pytest.raises(ValueError, match=f"at least 2 points and as many targets, got {points} and {targets}"):
        fit_gaussian_process(np.asarray, rows(points), np.zeros(targets))
