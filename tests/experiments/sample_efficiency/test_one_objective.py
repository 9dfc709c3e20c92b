import json

import numpy as np
import pytest
from tiny_task import tiny_task

from experiments.sample_efficiency import one_objective
from experiments.sample_efficiency.one_objective import FEASIBLE, bounded, until_optimum
from experiments.tables import COST
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

TASK = tiny_task()


def within(limit):
    """The accuracies, in points, of what keeps to a bound."""
    return 100 * np.array([0.9 * sum(row) / 14 for row in TASK.benchmark.rows.tolist() if 1e-3 * sum(row) <= limit])


@pytest.mark.parametrize("searcher", [FEASIBLE, "random", "linas"])
def test_the_bound_is_the_seeds_and_regret_is_of_the_best_within(searcher):
    found = bounded(TASK, searcher, 5)
    share = np.random.default_rng(5).uniform(0.02, 0.9)
    costs = TASK.benchmark.values(TASK.benchmark.rows)[COST]
    assert found["limit"] == pytest.approx(np.quantile(costs, share))
    assert found["regret"] == pytest.approx(0, abs=1e-9)  # 100 evaluations list 64 architectures


def test_random_feasible_draws_so_many_within_the_bound(monkeypatch):
    monkeypatch.setattr(one_objective, "BUDGET", 1)
    regrets = []
    for seed in range(200):
        found = bounded(TASK, FEASIBLE, seed)
        accuracies = within(found["limit"])
        regret = accuracies.max() - accuracies
        assert np.isclose(found["regret"], regret).any()
        regrets.append((found["regret"], regret.mean(), regret.std()))
    drawn, mean, deviation = np.array(regrets).T
    error = np.sqrt((deviation**2).sum())
    assert abs((drawn - mean).sum()) < 4 * error  # uniform
    assert len(np.unique(drawn)) > 5


def test_random_feasible_draws_without_repeats(monkeypatch):
    monkeypatch.setattr(one_objective, "BUDGET", 64)
    line = tiny_task(SearchSpace("line", [Choice("a", tuple(range(64)))]))  # where one is the best
    assert all(bounded(line, FEASIBLE, seed)["regret"] == 0 for seed in range(20))


def test_evaluations_until_the_optimum_are_counted():
    assert 1 <= until_optimum(TASK, "random", 0)["evaluations"] <= 64


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["one_objective", *map(str, arguments)])
    one_objective.main()


def test_only_the_part_with_bounds_has_the_feasible_baseline(tmp_path, monkeypatch):
    monkeypatch.setattr(one_objective, "task", lambda data, name: TASK)
    monkeypatch.setattr(one_objective, "SEARCHERS", ("random",))
    out = tmp_path / "rows.jsonl"
    for part in ("bounds", "optimum", "bounds"):  # the last finds all done
        call(monkeypatch, "--out", out, "--part", part, "--tasks", "tiny", "--seeds", 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["part"], r["searcher"]) for r in rows] == [
        ("bounds", "random"),
        ("bounds", FEASIBLE),
        ("optimum", "random"),
    ]
    assert [set(r) for r in rows] == [{"part", "task", "searcher", "seed", *found} for found in (
        ("limit", "regret"), ("limit", "regret"), ("evaluations",)
    )]  # fmt: skip


def test_the_feasible_baseline_is_refused_without_a_bound(tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.jsonl"
    with pytest.raises(SystemExit) as refused:
        call(monkeypatch, "--out", out, "--part", "optimum", "--searchers", FEASIBLE)
    assert refused.value.code == 2
    assert "needs a bound" in capsys.readouterr().err
    assert not out.exists()
