import numpy as np
import pytest

from nas.advantage import advantage, advantages

RNG = np.random.default_rng(0)
CHANCE = RNG.random((40, 2)) + 0.5


def test_a_search_against_itself_has_no_advantage():
    found = advantage(CHANCE, CHANCE)
    assert found.ratio == 1 and found.low < 1 < found.high and not found.sure


def test_a_better_one_has_and_a_worse_one_has_not():
    better = advantage(CHANCE - 0.4, CHANCE)
    assert better.sure and 1 < better.low <= better.ratio <= better.high
    worse = advantage(CHANCE, CHANCE - 0.4)
    assert not worse.sure and worse.high < 1


def test_one_lucky_evaluation_is_no_sure_advantage():
    lucky = np.concatenate([CHANCE, CHANCE.min(axis=0, keepdims=True) - 0.1])
    found = advantage(lucky, CHANCE)
    assert found.ratio > 1.1 and not found.sure


def test_groups_are_compared_where_both_have_costs():
    groups = {"search": CHANCE - 0.4, "random": CHANCE, "uniform": CHANCE[:0]}
    assert set(advantages(groups)) == {"random"}
    assert advantages({**groups, "search": CHANCE[:0]}) == advantages({"random": CHANCE}) == {}
    assert advantages(groups)["random"]["interval"][0] > 1
    with pytest.raises(ValueError, match="got 0 and 40"):
        advantage(CHANCE[:0], CHANCE)
