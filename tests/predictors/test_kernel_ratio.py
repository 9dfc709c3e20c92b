import numpy as np

from predictors.kernel_ratio import RatioModel, fit_ratio
from predictors.kernel_work import Work


def works(n, seed, low=1.0, high=100.0):
    sizes = np.exp(np.random.default_rng(seed).uniform(np.log(low), np.log(high), (n, 2)))
    return [Work("k", "f", (1.0, a, b), (float(np.log(a)), float(np.log(b)))) for a, b in sizes]


def cost(work):
    """Five microseconds, two and three for the amounts, and a third more where the first size is large."""
    _, a, b = work.amounts
    return 1e-6 * (5 + 2 * a + 3 * b) * (1 + 0.33 / (1 + np.exp(3 - work.logs[0])))


def test_a_smooth_ratio_to_prices_is_recovered_and_extrapolates():
    seen = works(120, 0)
    model = fit_ratio(seen, np.array([cost(w) for w in seen]))
    for other, tolerance in ((works(50, 1), 0.03), (works(50, 2, 100, 400), 0.2)):
        times, doubt = model.seconds(other)
        truth = np.array([cost(w) for w in other])
        assert np.abs(times / truth - 1).max() < tolerance
        assert (doubt > 0).all()
    assert model.seconds(works(50, 2, 100, 400))[1].mean() > model.seconds(works(50, 1))[1].mean()


def test_a_saved_model_predicts_the_same():
    seen = works(30, 0)
    model = fit_ratio(seen, np.array([cost(w) for w in seen]))
    loaded = RatioModel.of(model.plain())
    np.testing.assert_array_equal(loaded.seconds(seen), model.seconds(seen))


def test_equal_kernels_count_once():
    seen = works(30, 0)
    times = np.array([cost(w) for w in seen])
    once, twice = fit_ratio(seen, times), fit_ratio([*seen, *seen], np.concatenate([times, times]))
    np.testing.assert_allclose(once.seconds(seen)[0], twice.seconds(seen)[0], rtol=1e-6)
