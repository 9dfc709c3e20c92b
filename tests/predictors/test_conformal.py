import numpy as np
import pytest

from predictors.conformal import deviation_factor, fit_conformal
from predictors.protocol import Prediction


class Overconfident:
    """Says the mean of its targets, with a tenth of their deviation."""

    def __init__(self, rows, targets):
        self.mean, self.std = targets.mean(), targets.std() / 10

    def predict(self, rows):
        return Prediction(np.full(len(rows), self.mean), np.full(len(rows), self.std))


def test_the_factor_is_the_ranked_residual():
    left_out = Prediction(np.zeros(19), np.ones(19))
    residuals = np.arange(1.0, 20)  # the ceil(20 * 0.9) = 18th is 18
    assert deviation_factor(left_out, residuals) == pytest.approx(18 / 1.6448536)
    assert deviation_factor(Prediction(np.zeros(3), np.ones(3)), np.array([1.0, -5.0, 2.0])) == pytest.approx(
        5 / 1.6448536
    )


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_new_points_are_inside_as_often_as_said(share):
    inside = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows, targets, fresh = rng.integers(5, size=(60, 2)), rng.standard_t(4, size=60), rng.standard_t(4, size=500)
        found = fit_conformal(Overconfident, rows, targets, share, seed=seed).predict(np.zeros((500, 2)))
        inside.append(np.mean(np.abs(fresh - found.mean) < found.half_width(share)))
    assert share - 0.03 < np.mean(inside) < share + 0.05


def test_a_share_is_between_0_and_1():
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        deviation_factor(Prediction(np.zeros(3), np.ones(3)), np.ones(3), share=1)
