import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors import mlp_training
from predictors.mlp import Statistics, fit_mlp


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(4, size=(n, 12)).astype(float)


WORTH = np.random.default_rng(9).normal(size=12)


def target(x):
    return np.exp(x @ WORTH / 3)


@pytest.mark.parametrize("loss", ["hinge", "kendall"])
def test_losses_of_order_come_back_in_the_metrics_unit(loss):
    train = rows(120)
    found = fit_mlp(np.asarray, train, target(train), seed=0, loss=loss, members=4, steps=100).predict(rows(200, 1))
    assert kendalltau(found.mean, target(rows(200, 1))).statistic > 0.85
    error = np.abs(np.log(found.mean.clip(1e-3)) - np.log(target(rows(200, 1))))
    assert np.median(error) < 0.5


@pytest.mark.parametrize(("points", "seen"), [(512, 512), (600, 512)])
def test_losses_of_order_see_a_bounded_number_of_points_a_step_and_others_all(monkeypatch, points, seen):
    steps = []
    for name, loss in mlp_training.LOSSES.items():

        def spy(scores, targets, weights, loss=loss):
            steps.append((scores, targets, weights))
            return loss(scores, targets, weights)

        monkeypatch.setitem(mlp_training.LOSSES, name, spy)
    for loss in ("hinge", "kendall", "squared"):
        steps.clear()
        fit_mlp(np.asarray, rows(points), target(rows(points)), seed=0, loss=loss, members=3, steps=2)
        count = points if loss == "squared" else seen
        assert [(s.shape, t.shape, w.shape) for s, t, w in steps] == [((3, count), (count,), (3, count))] * 2
        assert (steps[0][1].tolist() == steps[1][1].tolist()) == (count == points)  # other points in each step


def test_more_points_than_a_step_sees_are_learnt_from_and_a_seed_decides():
    a, b, c = (
        fit_mlp(np.asarray, rows(700), target(rows(700)), seed, "hinge", members=2, steps=60).predict(rows(200, 1)).mean
        for seed in (0, 0, 1)
    )
    assert kendalltau(a, target(rows(200, 1))).statistic > 0.9
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_free_statistics_of_many_architectures_help_where_values_are_few():
    many, train, test = rows(400, 5), rows(10), rows(300, 1)
    statistics = Statistics(many, np.column_stack([many @ WORTH + 0.3 * many[:, 0], many.sum(axis=1)]))
    plain, taught = (
        kendalltau(
            fit_mlp(np.asarray, train, target(train), 0, statistics=given, members=4, steps=100).predict(test).mean,
            target(test),
        ).statistic
        for given in (None, statistics)
    )
    assert taught > plain + 0.1


@pytest.mark.parametrize(
    ("columns", "words"),
    [(np.zeros(3), "columns"), (np.zeros((2, 1)), "columns"), (np.full((3, 1), np.inf), "finite")],
)
def test_statistics_are_finite_columns_of_their_architectures(columns, words):
    with pytest.raises(ValueError, match=words):
        Statistics(np.zeros((3, 2)), columns)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="squared, hinge, kendall, got 'cubed'"):
        fit_mlp(np.asarray, rows(5), np.arange(5.0), 0, loss="cubed")


def test_importing_loads_no_torch():
    code = "import sys, predictors.choose; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
