"""The pure parts of the pipeline; the whole of it is run by test_cli.py."""

import errno
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from nas.objectives import Problem, maximize, minimize
from nas.pipeline import (
    _faster_policy,
    _searchers,
    _uniform_policies,
    check_disk,
    choose_finalists,
    hypervolumes,
    unmet,
)
from nas.record import importance
from nas.searchers.catalog import SEARCHERS
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("toy", [Choice("a", (0, 1, 2, 3)), Choice("b", (0, 1)), Choice("x.precision", ("int8", "fp32"))])
RNG = np.random.default_rng(0)
PROBLEM = Problem((maximize("val_accuracy"), minimize("latency_s")))


def evaluation(row, accuracy, latency_s):
    return PROBLEM.evaluation(SPACE.row(row), {"val_accuracy": accuracy, "latency_s": latency_s}, "verified")


def test_finalists_are_the_front_and_then_what_is_behind_it():
    first = [evaluation((i, 0, 0), 0.5 + 0.1 * i, 1.0 + i) for i in range(3)]
    second = [evaluation((i, 1, 0), 0.45 + 0.1 * i, 1.1 + i) for i in range(3)]
    assert choose_finalists(first + second, 1) == first
    assert choose_finalists(second + first, 5) == [*first, second[0], second[2]]
    assert choose_finalists([], 4) == []


def test_one_box_serves_all_groups():
    good = [evaluation((0, 0, 0), 0.9, 1.0), evaluation((1, 0, 0), 0.95, 2.0)]
    volumes = hypervolumes({"search": good, "random": [evaluation((2, 0, 0), 0.8, 2.5)], "uniform": []})
    assert volumes["search"] > volumes["random"] >= volumes["uniform"] == 0.0
    assert hypervolumes({"search": []}) == {"search": 0.0}


def test_uniform_policies_fix_precisions_and_nothing_else():
    assert [v.tolist() for v in _uniform_policies(SPACE)] == [[-1, -1, 0], [-1, -1, 1]]


@pytest.mark.parametrize("faster", [0, 1])
def test_uniform_scaling_is_in_the_precision_that_is_faster(faster):
    seconds = np.array([2.0, 2.0])
    seconds[faster] = 1.0
    table = SimpleNamespace(predict=lambda rows: SimpleNamespace(mean=seconds[[row[2] for row in rows]]))
    anatomy = SimpleNamespace(placed_rows=lambda rows: rows)
    found = _faster_policy(SimpleNamespace(space=SPACE, anatomy=anatomy), SimpleNamespace(table=table))
    assert found.tolist() == [-1, -1, faster]


def test_what_could_not_be_met_names_the_best_found():
    settings = SimpleNamespace(
        problem=Problem(PROBLEM.objectives, (SimpleNamespace(metric="latency_s", limit=0.5, at_least=False),))
    )
    text = unmet([evaluation((0, 0, 0), 0.9, 1.0), evaluation((1, 0, 0), 0.95, 2.0)], settings)
    assert "latency_s ≤ 0.5 (best possible found: 1)" in text


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(OSError, match="less than 200 MB free") as caught:
        check_disk(tmp_path / "deep" / "run")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name, entry in SEARCHERS.items() if entry.most_objectives is None])
def test_every_searcher_of_the_catalog_searches(name):
    settings = SimpleNamespace(
        searcher=name, problem=PROBLEM, seed=0, evaluations=30, baselines=False, precisions=("fp32", "int8")
    )
    watched, inherited = SimpleNamespace(cost_model=None), SimpleNamespace(population=SPACE.sample(3, RNG))
    made = _searchers(SimpleNamespace(settings=settings, space=SPACE), None, watched, inherited)
    assert list(made) == ["search"] and made["search"].ask(2).shape[1] == len(SPACE)


def test_importance_finds_the_choice_that_decides():
    rng = np.random.default_rng(0)
    rows = SPACE.sample(200, rng)
    found = [evaluation(r, 0.5 + 0.1 * r[0] + 0.001 * rng.random(), 1.0 + r[1] + 0.01 * rng.random()) for r in rows]
    shares = {entry["choice"]: entry for entry in importance(SPACE, found, PROBLEM.names)}
    assert shares["a"]["val_accuracy"] > 0.95 and shares["b"]["val_accuracy"] < 0.1
    assert shares["b"]["latency_s"] > 0.95 and shares["a"]["latency_s"] < 0.1
