import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from supernet import rank_correlation
from supernet.rank_correlation import _resampled, correlations


def tied(n=30, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 6, n)
    return x.astype(float), (x + rng.integers(0, 6, n)).astype(float)


def test_values_are_scipys_with_ties_too():
    x, y = tied()
    tau, rho = correlations(x, y)
    assert tau.value == kendalltau(x, y).statistic
    assert rho.value == spearmanr(x, y).statistic
    assert -1 < tau.low < tau.value < tau.high < 1


def test_every_resample_has_scipys_correlations(monkeypatch):
    monkeypatch.setattr(rank_correlation, "_BLOCK", 7)
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 20)
    x, y = tied()
    taus, rhos = _resampled(x, y, np.random.default_rng(3))
    weights = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=20)
    drawn = [np.repeat(np.arange(30), w) for w in weights]
    assert taus == pytest.approx([kendalltau(x[i], y[i]).statistic for i in drawn])
    assert rhos == pytest.approx([spearmanr(x[i], y[i]).statistic for i in drawn])


def test_intervals_cover_the_true_correlations(monkeypatch):
    """Of bivariate normal values: tau = 2 / π asin r, and Spearman's rho = 6 / π asin (r / 2)."""
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 1000)
    rng, correlation = np.random.default_rng(0), 0.7
    truth = 2 / np.pi * np.arcsin(correlation), 6 / np.pi * np.arcsin(correlation / 2)
    covered = np.zeros(2)
    for seed in range(200):
        x, noise = rng.normal(size=(2, 16))
        found = correlations(x, correlation * x + np.sqrt(1 - correlation**2) * noise, seed)
        covered += [c.low <= t <= c.high for c, t in zip(found, truth, strict=True)]
    assert (covered >= 0.9 * 200).all() and (covered <= 0.99 * 200).all()


def test_more_items_make_a_narrower_interval():
    widths = [c.high - c.low for n in (15, 60, 240) for c in correlations(*tied(n))[:1]]
    assert widths == sorted(widths, reverse=True) and widths[-1] < widths[0] / 2


def test_a_seed_draws_the_same_and_swapping_changes_nothing():
    x, y = tied()
    assert correlations(x, y, 4) == correlations(x, y, 4) != correlations(x, y, 5)
    for one, other in zip(correlations(x, y), correlations(y, x), strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_constant_values_order_nothing():
    for found in (*correlations([1, 1, 1], [1, 2, 3]), *correlations([1, 2, 3], [5, 5, 5])):
        assert (found.value, found.low, found.high) == (0, -1, 1)


def test_a_perfect_order_of_few_is_not_certain():
    ends = [correlations(range(n), np.exp(range(n)))[0] for n in (3, 10, 40)]
    assert [tau.value for tau in ends] == pytest.approx([1, 1, 1])
    assert [tau.high for tau in ends] == [1, 1, 1]
    assert [tau.low for tau in ends] == pytest.approx([2 * 0.025 ** (1 / pairs) - 1 for pairs in (1, 5, 20)])
    tau, rho = correlations(range(40), range(0, -40, -1))
    assert (tau.value, tau.low, tau.high) == pytest.approx((-1, -1, -ends[2].low))
    assert rho.low == -1 < rho.high == pytest.approx(-(3 * ends[2].low - 1) / 2)


def test_resamples_without_an_order_are_left_out():
    for resampled in _resampled(np.array([0.0, 0, 1]), np.array([0.0, 1, 1]), np.random.default_rng(0)):
        assert np.isfinite(resampled).all() and 0.2 < len(resampled) / rank_correlation.RESAMPLES < 0.9


def test_no_number_is_ever_missing():
    rng = np.random.default_rng(0)
    for n in (3, 4, 5):
        for _ in range(10):
            for found in correlations(*rng.integers(0, 2, (2, n))):
                assert -1 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, 3], [1, 2], r"two equally long rows of at least 3, got \(3,\) and \(2,\)"),
        ([1, 2], [1, 2], "of at least 3"),
        ([1, 2, np.nan], [1, 2, 3], "needs finite values"),
        ([1, 2, 3], [1, np.inf, 3], "leave out what failed"),
    ],
)
def test_what_has_no_rank_correlation_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        correlations(x, y)
