import numpy as np
import pytest

from nas.searchers.make import make_searcher
from nas.searchers.random_search import RandomSearch
from tests.nas.searchers.bowl import SPACE


def test_a_searcher_is_made_with_its_seed():
    rows = make_searcher("random", SPACE, 2, seed=4).ask(5)
    assert np.array_equal(rows, RandomSearch(SPACE, 4).ask(5))


@pytest.mark.parametrize(
    ("name", "objectives", "message"),
    [
        ("evolutoin", 2, "unknown searcher 'evolutoin' .did you mean 'evolution'"),
        ("random", 0, "searcher 'random' cannot weigh 0 objectives: give one at least"),
        ("ga", 2, "searcher 'ga' cannot weigh 2 objectives: take one of linas, random, .*nsga2"),
        ("sms-emoa", 1, "searcher 'sms-emoa' cannot weigh 1 objectives: take one of .*, ga"),
        ("linas", 2, "made by `nas search` and `nas.optimize`, which have the cost model that it needs"),
    ],
)
def test_what_cannot_be_made_is_refused(name, objectives, message):
    with pytest.raises(ValueError, match=message):
        make_searcher(name, SPACE, objectives, seed=0)
