import json
import math

import numpy as np
import pytest

from nas.advantage import SURE, advantage, advantages
from nas.objectives import Evaluation
from nas.pipeline import hypervolumes
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

RNG = np.random.default_rng(0)
CHANCE = RNG.random((30, 2)) + 0.5
ARCH = next(SearchSpace("s", [Choice("a", (1, 2))]).enumerate())


def evaluations(costs, violation=0.0):
    return [Evaluation(ARCH, {}, tuple(row), violation, "verified") for row in costs.tolist()]


def test_a_search_against_itself_has_no_advantage():
    found = advantage(CHANCE, CHANCE)
    assert found.ratio == 1 and found.low < 1 < found.high and found.chance > 0.3


def test_a_better_one_has_and_a_worse_one_has_not():
    better = advantage(CHANCE - 0.4, CHANCE)
    assert better.chance < SURE and 1 < better.low <= better.ratio <= better.high
    worse = advantage(CHANCE, CHANCE - 0.4)
    assert worse.chance > 0.9 and worse.high < 1


def test_one_lucky_evaluation_lies_within_its_interval():
    lucky = np.concatenate([CHANCE, CHANCE.min(axis=0, keepdims=True) - 0.3])
    for found, baseline in ((lucky, CHANCE), (CHANCE, lucky)):
        seen = advantage(found, baseline)
        assert seen.low <= seen.ratio <= seen.high


def test_a_baseline_that_chance_may_leave_empty_gives_an_interval_without_end():
    rare = np.concatenate([CHANCE[:1], np.full((9, 2), np.inf)])
    found = advantage(CHANCE - 0.4, rare)
    assert math.isfinite(found.ratio) and found.high == math.inf
    assert found.plain()["interval"][1] is None
    json.dumps(found.plain(), allow_nan=False)


def test_of_equal_searches_few_are_called_better():
    rng = np.random.default_rng(1)
    sure = [advantage(rng.normal(size=(12, 2)), rng.normal(size=(12, 2)), seed).chance <= 0.1 for seed in range(40)]
    assert sum(sure) <= 10


def test_what_breaks_a_bound_counts_as_an_evaluation_but_adds_nothing():
    lost = np.concatenate([CHANCE, np.full((60, 2), np.inf)])
    assert advantage(lost, CHANCE).ratio == 1
    assert advantage(CHANCE - 0.1, lost).chance < advantage(CHANCE - 0.1, CHANCE).chance + 0.05


def test_groups_are_compared_where_both_have_feasible_evaluations():
    groups = {"search": evaluations(CHANCE - 0.4), "random": evaluations(CHANCE), "uniform": evaluations(CHANCE, 1.0)}
    assert set(advantages(groups)) == {"random"}
    assert advantages({**groups, "search": []}) == {}
    assert advantages(groups)["random"]["interval"][0] > 1
    groups["uniform"] = evaluations(CHANCE + np.array([0.2, -0.3]))
    volumes, found = hypervolumes(groups), advantages(groups)
    assert [found[name]["ratio"] for name in found] == pytest.approx(
        [volumes["search"] / volumes[name] for name in found]
    )
    with pytest.raises(ValueError, match="got 0 and 30"):
        advantage(CHANCE[:0], CHANCE)
