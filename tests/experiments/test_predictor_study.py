import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments import predictor_study
from experiments.predictor_study import Found, Truth, compared, shown, split, with_epochs
from experiments.tables import accel_measured
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DATA = Path(__file__).parents[2] / "../shared/data"
SPACE = SearchSpace("cells", [Choice(f"edge{j}", ("a", "b", "c")) for j in range(7)])
ROWS = np.unique(SPACE.sample(900, np.random.default_rng(0)), axis=0)
TRUTH = Truth("cells", SPACE, ROWS, ROWS.sum(axis=1) / 14, ROWS.sum(axis=1) + np.sin(np.arange(len(ROWS))))


def test_what_is_fitted_on_is_not_judged_by():
    train, test = split(TRUTH, 100, seed=3)
    assert len(train) == 100 and not set(train) & set(test) and len(test) == len(ROWS) - 100
    assert np.array_equal(split(TRUTH, 50, seed=3)[0], train[:50])


def test_methods_are_compared_on_every_size():
    found = list(compared(TRUTH, ["ridge", "gp-smooth"], [20, 60], seeds=1))
    assert [(f.method, f.size) for f in found] == [("ridge", 20), ("gp-smooth", 20), ("ridge", 60), ("gp-smooth", 60)]
    assert all(f.kendall > 0.9 and f.coverage > 0.5 and f.fit_s >= 0 for f in found)


def test_cheaper_values_are_compared_with_none(monkeypatch):
    monkeypatch.setattr(predictor_study, "_CHEAP", 80)
    found = {f.method: f.kendall for f in with_epochs(TRUTH, [6, 10_000], seeds=1)}
    assert list(found) == ["gp, 200 epochs only", "gp, and 12 epochs of 80"]
    assert found["gp, and 12 epochs of 80"] > found["gp, 200 epochs only"]


def test_a_table_shows_means_over_the_seeds():
    found = [Found("t", "gp", 20, seed, 0.5 + seed / 10, 0.9, 0.1) for seed in range(3)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(shown([*found, Found("t", "ridge", 50, 0, 0.7, 1.0, 2.0)], "title"))
    text = console.export_text()
    assert "0.600 (90%)" in text and "0.700 (100%)" in text and "2.00" in text


@pytest.mark.skipif(not (DATA / "accel_nasbench.csv.gz").exists(), reason="the table is not at ../shared/data")
def test_measured_networks_of_accel_nasbench():
    space, rows, accuracy, macs = accel_measured(DATA)
    assert rows.shape == (5125, len(space)) and len(np.unique(rows, axis=0)) == len(rows)
    assert 0.4 < accuracy.min() < accuracy.max() < 0.7 and 1e8 < np.median(macs) < 1e9
    assert np.array_equal(space.canonical(rows), rows)
