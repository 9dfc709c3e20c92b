import csv
import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

from predictors.transfer import choose_samples, fit_transfer
from predictors.transfer_prior import learn_from_sources

OPTIONS, CHOICES, COUNT = 4, 8, 300
TABLE = Path(os.environ.get("HWNAS_DATA", "")) / "fbnet_latency.csv.gz"


def one_hot(population):
    return (population[:, :, None] == np.arange(OPTIONS)).reshape(len(population), -1).astype(float)


def devices(seed=0, count=8):
    """Devices that mix three costs of each option; the last is for the tests, the others are sources."""
    rng = np.random.default_rng(seed)
    costs = rng.gamma(2.0, size=(OPTIONS * CHOICES, 3)) @ rng.gamma(1.0, size=(3, count))
    return 1e-3 * costs / costs.mean(axis=0)


def population(count=COUNT, seed=1):
    return np.random.default_rng(seed).integers(OPTIONS, size=(count, CHOICES))


def prior_of(costs, pool):
    return learn_from_sources(one_hot, lambda archs: one_hot(archs) @ costs, pool)


POOL = population()
COSTS = devices()
PRIOR = prior_of(COSTS[:, :-1], POOL)
TRUTH = one_hot(POOL) @ COSTS[:, -1]


def rank(predicted, truth):
    return spearmanr(predicted, truth).statistic


def test_a_mix_of_the_sources_is_recovered_from_ten_measurements():
    measured = choose_samples(PRIOR, POOL, 10)
    unseen = population(seed=2)
    predicted = fit_transfer(PRIOR, POOL[measured], TRUTH[measured]).predict(unseen)
    truth = one_hot(unseen) @ COSTS[:, -1]
    assert predicted.mean.shape == predicted.std.shape == (COUNT,)
    assert rank(predicted.mean, truth) > 0.98
    np.testing.assert_allclose(predicted.mean, truth, rtol=0.06)


def test_it_beats_ridge_regression_without_sources():
    measured = choose_samples(PRIOR, POOL, 20)
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(one_hot(POOL[measured]), np.log(TRUTH[measured]))
    transferred = fit_transfer(PRIOR, POOL[measured], TRUTH[measured]).predict(POOL)
    assert 1 - rank(transferred.mean, TRUTH) < 0.2 * (1 - rank(ridge.predict(one_hot(POOL)), TRUTH))


def test_chosen_samples_are_worth_more_than_random_ones():
    noisy = TRUTH * np.exp(0.2 * np.random.default_rng(0).normal(size=COUNT))
    ranks = {"chosen": [], "random": []}
    for seed in range(4):
        picks = {"chosen": choose_samples(PRIOR, POOL, 10, seed), "random": np.arange(10) + 10 * seed}
        for name, picked in picks.items():
            ranks[name].append(rank(fit_transfer(PRIOR, POOL[picked], noisy[picked]).predict(POOL).mean, TRUTH))
    assert np.mean(ranks["chosen"]) > np.mean(ranks["random"])


def test_one_fitted_predictor_is_source_enough():
    """A retargeted search: the residual over what is predicted for another device is learnt."""
    prior = prior_of(COSTS[:, :1], POOL)
    other = COSTS[:, 0] * np.where(np.arange(OPTIONS * CHOICES) % OPTIONS == 2, 1.5, 1.0)  # one option is slower
    truth = one_hot(POOL) @ other
    picked = choose_samples(prior, POOL, 50)
    found = rank(fit_transfer(prior, POOL[picked], truth[picked]).predict(POOL).mean, truth)
    assert found > 0.95 and 1 - found < 0.5 * (1 - rank(one_hot(POOL) @ COSTS[:, 0], truth))


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_intervals_cover_new_measurements_as_often_as_they_say(noise):
    inside = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        costs = devices(seed)
        observed = one_hot(POOL) @ costs[:, -1] * np.exp(noise * rng.normal(size=COUNT))
        prior = prior_of(costs[:, :-1], POOL)
        picked = choose_samples(prior, POOL, 30, seed)
        predicted = fit_transfer(prior, POOL[picked], observed[picked]).predict(POOL)
        inside.append(np.abs(observed - predicted.mean) < 1.96 * predicted.std)
    assert 0.9 < np.mean(inside) < 0.995


def test_the_deviation_is_smaller_where_more_was_measured():
    picked = choose_samples(PRIOR, POOL, 50)
    few, many = (fit_transfer(PRIOR, POOL[picked[:k]], TRUTH[picked[:k]]) for k in (5, 50))
    assert many.predict(POOL).std.mean() < 0.7 * few.predict(POOL).std.mean()
    relative = [few.predict(POOL[rows]).std / few.predict(POOL[rows]).mean for rows in (picked[:5], picked[5:])]
    assert relative[0].mean() < 0.95 * relative[1].mean()


def test_a_measurement_that_went_wrong_hardly_counts():
    picked = choose_samples(PRIOR, POOL, 20)
    wrong = TRUTH[picked] * np.exp(0.01 * np.random.default_rng(0).normal(size=20))
    wrong[4] *= 3
    model = fit_transfer(PRIOR, POOL[picked], wrong)
    assert model.trust[4] < 0.1 and np.delete(model.trust, 4).min() > 0.2
    assert rank(model.predict(POOL).mean, TRUTH) > 0.97


def test_the_order_of_samples_does_not_matter():
    picked = choose_samples(PRIOR, POOL, 20)
    order = np.random.default_rng(0).permutation(20)
    noisy = TRUTH[picked] * np.exp(0.05 * np.random.default_rng(1).normal(size=20))
    a = fit_transfer(PRIOR, POOL[picked], noisy).predict(POOL)
    b = fit_transfer(PRIOR, POOL[picked[order]], noisy[order]).predict(POOL)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-4)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-3)


def test_a_batch_equals_one_by_one_and_arguments_are_left_alone():
    picked = choose_samples(PRIOR, POOL, 10)
    measured, seconds = POOL[picked], TRUTH[picked]
    before = measured.copy(), seconds.copy()
    model = fit_transfer(PRIOR, measured, seconds)
    batch, single = model.predict(POOL[:5]), [model.predict(row[None]) for row in POOL[:5]]
    np.testing.assert_allclose(batch.mean, np.concatenate([p.mean for p in single]), rtol=1e-9)
    np.testing.assert_allclose(batch.std, np.concatenate([p.std for p in single]), rtol=1e-6)
    assert np.array_equal(before[0], measured) and np.array_equal(before[1], seconds)


def test_seconds_scale_with_the_device():
    picked = choose_samples(PRIOR, POOL, 10)
    once, twice = (fit_transfer(PRIOR, POOL[picked], f * TRUTH[picked]).predict(POOL) for f in (1, 1000))
    np.testing.assert_allclose(twice.mean, 1000 * once.mean, rtol=1e-6)
    np.testing.assert_allclose(twice.std, 1000 * once.std, rtol=1e-4)


def test_equal_times_are_no_trouble():
    predicted = fit_transfer(PRIOR, POOL[:10], np.full(10, 0.25)).predict(POOL)
    assert np.isfinite(predicted.std).all() and (predicted.std > 0).all()
    np.testing.assert_allclose(predicted.mean, 0.25, rtol=0.05)


def test_samples_are_chosen_as_by_conditioning_from_scratch():
    pool, noise = POOL[:40], PRIOR.sizes[-1] ** 2
    terms = PRIOR.terms(pool) * np.sqrt(PRIOR.weights(PRIOR.sizes[:-1]))
    prior = terms @ terms.T
    expected = []
    for _ in range(6):

        def left(chosen):
            known = np.linalg.inv(prior[np.ix_(chosen, chosen)] + noise * np.eye(len(chosen)))
            posterior = np.eye(terms.shape[1]) - terms[chosen].T @ known @ terms[chosen]
            return ((terms[:, 1:] @ posterior[1:, 1:]) * terms[:, 1:]).sum()  # the first term is the level

        others = [i for i in range(40) if i not in expected]
        expected.append(min(others, key=lambda i: left([*expected, i])))
    assert sorted(choose_samples(PRIOR, pool, 6)) == sorted(expected)


def test_a_seed_chooses_always_the_same_and_another_one_others():
    pool = population(1200)
    first = choose_samples(PRIOR, pool, 20, seed=1)
    assert len(set(first)) == 20 and np.array_equal(first[:5], choose_samples(PRIOR, pool, 5, seed=1))
    assert set(first) != set(choose_samples(PRIOR, pool, 20, seed=2))
    assert sorted(choose_samples(PRIOR, POOL[:7], 7)) == list(range(7))


@pytest.mark.parametrize("count", [0, 8])
def test_more_samples_than_there_are_are_refused(count):
    with pytest.raises(ValueError, match=f"a count of 1 to 7 architectures to choose, got {count}"):
        choose_samples(PRIOR, POOL[:7], count)


def test_measurements_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 3 measured architectures and as many times, got 2"):
        fit_transfer(PRIOR, POOL[:2], TRUTH[:2])
    with pytest.raises(ValueError, match=r"as many times, got 5 and \(4,\)"):
        fit_transfer(PRIOR, POOL[:5], TRUTH[:4])
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="must be positive and finite"):
            fit_transfer(PRIOR, POOL[:4], np.array([1.0, wrong, 1.0, 1.0]))


@pytest.mark.skipif(not TABLE.is_file(), reason=f"no {TABLE.name} in a folder HWNAS_DATA of the environment")
def test_a_real_card_is_ranked_from_other_cards_processors_and_phones():
    with gzip.open(TABLE, "rt", newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), 600))
    operations = np.array([[int(row[f"op{i}"]) for i in range(22)] for row in rows])
    features = (operations[:, :, None] == np.arange(9)).reshape(len(rows), -1).astype(float)
    latency = {name: np.array([float(row[name]) / 1e3 for row in rows]) for name in rows[0] if name.startswith("lat_")}
    sources = np.column_stack([found for name, found in latency.items() if "titan" not in name])
    truth, archs = latency["lat_titan_rtx_64"], np.arange(len(rows))[:, None]
    prior = learn_from_sources(lambda a: features[a[:, 0]], lambda a: sources[a[:, 0]], archs)
    picked = choose_samples(prior, archs, 10)
    predicted = fit_transfer(prior, archs[picked], truth[picked]).predict(archs)
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(features[picked], np.log(truth[picked]))
    assert rank(predicted.mean, truth) > 0.95 > 0.7 > rank(ridge.predict(features), truth)
