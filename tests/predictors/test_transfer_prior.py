import numpy as np
import pytest

from predictors.transfer_prior import learn_from_sources

RNG = np.random.default_rng(0)
CODES = RNG.integers(4, size=(600, 5))
ONE_HOT = (CODES[:, :, None] == np.arange(4)).reshape(600, 20).astype(float)
SECONDS = 0.01 * np.exp(0.2 * ONE_HOT @ RNG.normal(size=(20, 6)) + 0.05 * RNG.normal(size=(600, 6)))
ROWS = np.arange(600)[:, None]


def prior_of(seconds, one_hot=ONE_HOT):
    return learn_from_sources(lambda rows: one_hot[rows[:, 0]], lambda rows: seconds[rows[:, 0]], ROWS)


def covariance(prior):
    terms = prior.terms(ROWS)
    return (terms * prior.weights(prior.sizes[:-1])) @ terms.T


@pytest.mark.parametrize("sources", [1, 2, 6])
def test_the_terms_of_a_part_have_a_mean_square_sum_of_one(sources):
    prior = prior_of(SECONDS[:, :sources])
    terms = prior.terms(ROWS)
    sums = [(terms[:, prior.kind == kind] ** 2).sum(axis=1).mean() for kind in range(5)]
    np.testing.assert_allclose(sums, [1, 1, 0 if sources == 1 else 1, 1, 1], atol=1e-6)


def test_the_unit_of_latency_and_the_order_of_devices_do_not_matter():
    expected = covariance(prior_of(SECONDS))
    np.testing.assert_allclose(covariance(prior_of(1000 * SECONDS)), expected, atol=1e-8)
    np.testing.assert_allclose(covariance(prior_of(SECONDS[:, ::-1])), expected, atol=1e-8)


def test_sizes_are_in_units_of_how_much_latency_varies():
    prior, wider = prior_of(SECONDS), prior_of(SECONDS**2)
    assert wider.unit == pytest.approx(2 * prior.unit)
    np.testing.assert_allclose(covariance(wider), covariance(prior), atol=1e-8)


def test_devices_that_differ_more_leave_more_open():
    alike = SECONDS[:, :1] * np.exp(0.01 * RNG.normal(size=(600, 6)))
    assert prior_of(alike).sizes[1] < 0.2 * prior_of(SECONDS).sizes[1]


def test_options_that_cost_alike_go_together():
    cost = np.tile([0.0, 0.0, 0.3, 0.6], 5)
    prior = prior_of(0.01 * np.exp(ONE_HOT @ cost)[:, None])
    alike = prior.of_features[:, : (prior.kind == 3).sum()]
    shared = alike @ alike.T
    correlation = shared / np.sqrt(np.outer(np.diag(shared), np.diag(shared)))
    assert correlation[0, 1] > 0.9 and correlation[0, 4] > 0.9 and correlation[0, 3] < 0.1


def test_an_outlier_of_a_source_is_clipped():
    broken = SECONDS.copy()
    broken[7, 2] *= 1e-4
    np.testing.assert_allclose(prior_of(broken).scale, prior_of(SECONDS).scale, rtol=0.1)


def test_constant_devices_and_features_are_no_trouble():
    seconds, one_hot = SECONDS.copy(), ONE_HOT.copy()
    seconds[:, 1], one_hot[:, 3] = 0.02, 1.0
    prior = prior_of(seconds, one_hot)
    assert prior.scale[1] == 1 and np.isfinite(covariance(prior)).all()
    assert np.isfinite(covariance(prior_of(np.full((600, 2), 0.02), np.ones((600, 1))))).all()


def test_what_cannot_be_learnt_from_is_refused():
    with pytest.raises(ValueError, match="at least 2 architectures, got 1"):
        learn_from_sources(lambda rows: ONE_HOT[:1], lambda rows: SECONDS[:1], ROWS[:1])
    with pytest.raises(ValueError, match=r"must give \(600, s\) seconds, got an array of shape \(600,\)"):
        prior_of(SECONDS[:, 0])
    for wrong in (0.0, -1.0, np.nan, np.inf):
        seconds = SECONDS.copy()
        seconds[5, 3] = wrong
        with pytest.raises(ValueError, match="source device 3 has latencies that are not positive"):
            prior_of(seconds)
