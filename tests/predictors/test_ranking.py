import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from predictors.ranking import Agreement, agreement


def test_a_hand_case():
    found = agreement(np.array([1.1, 2.0, 3.6, 3.5]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.items == 4 and found.mape == pytest.approx((0.1 + 0 + 0.2 + 0.125) / 4)
    assert found.kendall == pytest.approx((5 - 1) / 6) and found.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_within_10_counts_ten_per_cent_itself():
    assert agreement(np.array([9.0, 11.0, 11.1, 10.0]), np.array([10.0] * 4)).within_10 == 0.75
    assert agreement(np.array([-9.5]), np.array([-10.0])) == Agreement(
        1, 0.05, 1.0, 1.0, *[pytest.approx(math.nan, nan_ok=True)] * 2
    )


def test_perfect_and_reversed_order():
    truth = np.array([3.0, 1.0, 2.0])
    same, reverse = agreement(truth, truth), agreement(-truth, truth)
    assert (same.mape, same.within_10, same.spearman, same.kendall) == pytest.approx((0, 1, 1, 1))
    assert (reverse.mape, reverse.within_10, reverse.spearman, reverse.kendall) == pytest.approx((2, 0, -1, -1))


def test_ties_follow_tau_b():
    predicted, truth = np.array([1, 1, 2, 3, 3]), np.array([1, 2, 2, 4, 3])
    found = agreement(predicted, truth)
    # 7 pairs in the same order, one the other way: none; ties in one of the two leave the count.
    assert found.kendall == pytest.approx(7 / math.sqrt(8 * 9)) == kendalltau(predicted, truth).statistic
    assert found.spearman == pytest.approx(spearmanr(predicted, truth).statistic)


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1, np.nan, 3], [1, 2, 3])],
)
def test_there_is_no_rank_correlation_of_too_little(predicted, truth):
    found = agreement(np.array(predicted), np.array(truth))
    assert math.isnan(found.spearman) and math.isnan(found.kendall) and found.items == len(truth)
    assert math.isnan(found.mape) == np.isnan(predicted).any()


@pytest.mark.parametrize(
    ("predicted", "truth", "words"),
    [([1.0], [1.0, 2.0], "equally many"), ([], [], "equally many"), ([1.0, 2.0], [1.0, 0.0], "other than zero")],
)
def test_what_cannot_be_compared_is_refused(predicted, truth, words):
    with pytest.raises(ValueError, match=words):
        agreement(np.array(predicted), np.array(truth))
