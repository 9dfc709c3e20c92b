"""What a differentiable search hands on, with latencies made up."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nas.candidates import check_timed, choose, wanted
from nas.config import Settings
from nas.errors import CannotBeDone
from nas.guide import Guide, random_range_rows
from nas.progress import SilentReporter
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from supernet.relaxed.cost_table import CostTable

SPACE = SearchSpace("toy", [Choice(f"c{i}", (0, 1, 2)) for i in range(6)])
STEPS = np.random.default_rng(5).uniform(0.5e-5, 1.5e-5, (6, 2)).cumsum(1)
TABLE = CostTable(1e-5, {f"c{i}": np.array([0.0, *STEPS[i]]) for i in range(6)}, error=0.1)
LOGITS = {f"c{i}": np.array([0.0, 0.1 * i, 1.0]) for i in range(6)}
POOL = np.unique(random_range_rows(SPACE, 300, np.random.default_rng(0)), axis=0)
COSTS = TABLE.costs(SPACE, POOL)
GUIDE = Guide(SPACE, TABLE, "fp32", POOL, COSTS, float(COSTS.min()), profile_error=0.0)
ANATOMY = SimpleNamespace(joined=lambda arch, precision: arch)
BOUND = 6e-5


def chosen(folder, truth=1.0, bound=BOUND, seen=None, slow=(), **settings):
    def latency(arch):
        if seen is not None:
            seen.append(arch)
        return (9 if arch.indices[0] in slow else 1) * truth * float(TABLE.costs(SPACE, np.array([arch.indices]))[0])

    settings = Settings(precisions=("fp32",), max_latency_s=bound, evaluations=10, **settings)
    with SilentReporter().stage("choose") as stage:
        return choose(LOGITS, GUIDE, settings, ANATOMY, latency, folder, stage)


def costs(rows):
    return TABLE.costs(SPACE, rows)


@pytest.mark.parametrize("truth", [0.7, 1.0, 1.6, 3.0])
def test_what_is_handed_on_keeps_to_the_bound_as_timed(truth, tmp_path):
    found = chosen(tmp_path, truth).groups
    for rows in found.values():
        assert len(rows) == len(found["search"]) >= (1 if truth > 2 else 5)
        assert truth * costs(rows).max() <= BOUND
    both = set(map(tuple, found["search"].tolist())) & set(map(tuple, found["random"].tolist()))
    assert len(both) <= 2  # the very fastest has none beside it


def test_random_ones_that_break_the_bound_are_replaced(tmp_path):
    found = chosen(tmp_path, slow=(1,)).groups  # which the search hardly found, as improbable as it is
    assert 1 in POOL[COSTS < BOUND][:, 0] and 1 not in found["search"][:, 0]
    assert len(found["random"]) >= len(found["search"]) - 1 and 1 not in found["random"][:, 0]


def test_random_ones_take_as_long_as_those_found(tmp_path):
    found = chosen(tmp_path).groups
    assert np.abs(np.log(np.sort(costs(found["random"])) / np.sort(costs(found["search"])))).max() < 0.25


def test_without_a_bound_nothing_is_timed_and_all_costs_are_there(tmp_path):
    found = chosen(tmp_path, bound=None, seen=(seen := [])).groups["search"]
    assert not seen and costs(found).min() == pytest.approx(1e-5) and costs(found).max() > 1e-4


def test_a_bound_that_nothing_timed_keeps_to_names_the_fastest(tmp_path):
    with pytest.raises(CannotBeDone, match=r"takes at most 60 µs: the fastest of .* takes 70 µs; raise --max-latency"):
        chosen(tmp_path, truth=7.0)


@pytest.mark.parametrize(("slower", "bound"), [(1.0, 1.05), (1.2, 1.5), (0.9, 0.95)])
def test_only_a_bound_near_the_fastest_is_timed_before_the_search(slower, bound, tmp_path):
    timed = checked(tmp_path, slower, bound)
    assert len(timed) == (0 if bound > 1.1 else 4)


def test_a_bound_near_the_fastest_is_refused_before_the_search(tmp_path):
    with pytest.raises(CannotBeDone, match=r"takes at most 10.5 µs: the fastest of 4 takes 12 µs; raise --max-latency"):
        checked(tmp_path, 1.2, 1.05)
    (tmp_path / "candidates.json").touch()  # of a run that goes on: they were timed
    assert not checked(tmp_path, 1.2, 1.05)


def checked(folder, slower, bound):
    """What was timed, with files that much slower than predicted, for a bound as a share of the least latency."""
    guide, timed = replace(GUIDE, profile_error=0.1), []

    def latency(arch):
        timed.append(arch)
        return slower * float(costs(np.array([arch.indices]))[0])

    with SilentReporter().stage("table") as stage:
        check_timed(guide, bound * guide.fastest_s, ANATOMY, latency, folder, stage)
    return timed


def test_they_are_read_again_and_without_baselines_no_random_ones(tmp_path):
    first = chosen(tmp_path, seen=(seen := []), baselines=False)
    assert list(first.groups) == ["search"] and seen
    again = chosen(tmp_path, truth=9.0, seen=(more := []), baselines=False)
    assert not more and np.array_equal(again.groups["search"], first.groups["search"])


def test_rows_for_training_are_all_candidates_once_from_the_cheapest(tmp_path):
    found = chosen(tmp_path)
    rows = found.by_cost(GUIDE)
    assert set(rows) == {tuple(row) for group in found.groups.values() for row in group.tolist()}
    assert len(set(rows)) == len(rows) and (np.diff(costs(np.array(rows))) >= 0).all()


@pytest.mark.parametrize(
    ("evaluations", "precisions", "sizes"),
    [(28, ("fp32", "int8"), (7, 2)), (4, ("fp32", "int8"), (2, 1)), (5, ("fp32",), (5, 1)), (99, ("fp32",), (7, 2))],
)
def test_evaluations_are_divided_among_levels_and_precisions(evaluations, precisions, sizes):
    assert wanted(Settings(evaluations=evaluations, precisions=precisions)) == sizes
