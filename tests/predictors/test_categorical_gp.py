import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.categorical_gp import _LEAST_NOISE, _factors, _Unlikeliness, fit_categorical_gp
from predictors.option_features import option_features
from search_spaces.encoding import one_hot
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

OPERATIONS = ("none", "skip", "conv1", "conv3")
CELLS = SearchSpace("cells", [Choice(f"edge{j}", OPERATIONS) for j in range(6)])
WORTH = np.array([-1.0, 0.2, 0.6, 0.8])


def rows(n, seed=0):
    return CELLS.sample(n, np.random.default_rng(seed))


def worth(population):
    """A sum over the edges, and a loss where the first two carry nothing."""
    return WORTH[population].sum(axis=1) - 2.0 * ((population[:, 0] == 0) & (population[:, 1] == 0))


def test_the_slope_is_that_of_the_value():
    features = option_features(CELLS)
    x = features(rows(30)).astype(float)
    start = np.random.default_rng(0).normal(size=_factors(features, x.shape[1]).shape[1] + 3)
    unlikely = _Unlikeliness(x - x.mean(axis=0), worth(rows(30)), _factors(features, x.shape[1]), start)
    at = start + 0.2
    numeric = [(unlikely(at + 1e-5 * e)[0] - unlikely(at - 1e-5 * e)[0]) / 2e-5 for e in np.eye(len(at))]
    np.testing.assert_allclose(unlikely(at)[1], numeric, rtol=1e-4, atol=1e-5)


def test_what_one_choice_teaches_of_an_option_carries_over_to_the_others():
    test = rows(300, seed=1)
    gains = []
    for seed in range(4):
        train = rows(20, 10 + seed)
        found = fit_categorical_gp(CELLS, train, worth(train)).predict(test).mean
        x, y = one_hot(CELLS, train).astype(float), worth(train)
        apart = one_hot(CELLS, test) @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - y.mean()))
        gains.append(kendalltau(found, worth(test)).statistic - kendalltau(apart, worth(test)).statistic)
    assert np.mean(gains) > 0.1


def test_interactions_are_learnt():
    test = rows(500, seed=1)
    found = fit_categorical_gp(CELLS, rows(150), worth(rows(150))).predict(test).mean
    assert kendalltau(found, worth(test)).statistic > 0.95


def test_predictions_without_single_precision_are_the_textbooks():
    model = fit_categorical_gp(CELLS, rows(60), worth(rows(60)))
    test = rows(40, seed=1)
    x, known = model.features(test) - model.center, model.known.astype(float)
    inverse = np.linalg.inv(model.kernel(known, known) + model.noise * np.eye(60))
    shared = model.kernel(x, known)
    variance = model.kernel.variance(x) - np.einsum("ij,jk,ik->i", shared, inverse, shared) + model.noise
    order = np.lexsort(rows(60).T[::-1])
    found = model.predict(test)
    mean = shared @ inverse @ model.warp.forward(worth(rows(60))[order])
    np.testing.assert_allclose(model.warp.forward(found.mean), mean, atol=2e-3)
    np.testing.assert_allclose(
        found.std,
        (model.warp.back(mean + np.sqrt(variance)) - model.warp.back(mean - np.sqrt(variance))) / 2,
        rtol=0.02,
    )


def test_a_point_left_out_is_predicted_from_the_others():
    model = fit_categorical_gp(CELLS, rows(40), worth(rows(40)))
    order = np.lexsort(rows(40).T[::-1])
    y = model.warp.forward(worth(rows(40)))
    known = np.empty_like(model.known, dtype=float)
    known[order] = model.known
    for i in (0, 7, 39):
        others = np.arange(40) != i
        covariance = model.kernel(known[others], known[others]) + model.noise * np.eye(39)
        mean = model.kernel(known[i : i + 1], known[others]) @ np.linalg.solve(covariance, y[others])
        assert model.warp.forward(model.left_out.mean)[i] == pytest.approx(mean[0], abs=2e-3)


@pytest.mark.parametrize("extreme", [1e4, 1e8, -1e8])
def test_one_value_far_off_does_not_rule(extreme):
    def truth(population):
        return (population**1.5).sum(axis=1)

    targets, test = truth(rows(100)) + np.random.default_rng(2).normal(size=100), rows(300, seed=1)
    targets[7] = extreme
    found = fit_categorical_gp(CELLS, rows(100), targets).predict(test)
    assert kendalltau(found.mean, truth(test)).statistic > 0.8
    assert np.median(found.std) < truth(test).std()


def test_extra_columns_are_used_and_must_come_again():
    train, test = rows(60), rows(100, seed=1)
    seconds = np.random.default_rng(2).normal(size=(160, 1)) + 1e9  # far from zero, where single precision is coarse
    truth = worth(np.concatenate([train, test])) + 3 * np.sin(seconds[:, 0] - 1e9)
    model = fit_categorical_gp(CELLS, train, truth[:60], extra=seconds[:60])
    assert kendalltau(model.predict(test, seconds[60:]).mean, truth[60:]).statistic > 0.75
    assert kendalltau(fit_categorical_gp(CELLS, train, truth[:60]).predict(test).mean, truth[60:]).statistic < 0.5
    with pytest.raises(ValueError, match="fitted with 1 extra columns, got 0"):
        model.predict(test)
    with pytest.raises(ValueError, match="belong to 100 architectures"):
        model.predict(test, seconds)
    with pytest.raises(ValueError, match="must be finite"):
        fit_categorical_gp(CELLS, train, truth[:60], extra=np.full((60, 1), np.nan))


def test_many_points_take_their_factors_from_some_first():
    train, test = rows(300), rows(300, seed=1)
    model = fit_categorical_gp(CELLS, train, worth(train))
    assert kendalltau(model.predict(test).mean, worth(test)).statistic > 0.95
    assert model.noise >= _LEAST_NOISE and len(model.known) == 300


def test_means_alone_are_those_of_predictions():
    extra = worth(rows(60))[:, None]
    test, beside = rows(40, seed=1), worth(rows(40, seed=1))[:, None]
    for given, asked in ((None, None), (extra, beside)):
        model = fit_categorical_gp(CELLS, rows(60), worth(rows(60)), given)
        assert np.array_equal(model.predict_mean(test, asked), model.predict(test, asked).mean)


def test_a_mean_moved_by_deviations_leaves_the_noise_out():
    train, far = rows(60), rows(200, seed=9)
    noisy = worth(train) + np.random.default_rng(3).normal(0, 0.3 * worth(train).std(), 60)
    model = fit_categorical_gp(CELLS, train, noisy)
    np.testing.assert_array_equal(model.predict_off(far, 0.0), model.predict_mean(far))
    up, down = model.predict_off(far, 1.0), model.predict_off(far, -1.0)
    assert (down < model.predict_mean(far)).all() and (model.predict_mean(far) < up).all()
    assert ((up - down) / 2 < model.predict(far).std).all()
