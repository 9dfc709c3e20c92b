import re

import numpy as np
import pytest

from nas.objectives import Bound, Problem, maximize
from nas.searchers.robot import RoBoT, normalised_ranks
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice(f"c{j}", tuple(range(6))) for j in range(3)])
POOL = np.array([arch.indices for arch in SPACE.enumerate()], dtype=INDEX)
PROBLEM = Problem((maximize("accuracy"),))


def truth(rows):
    """Known accuracies: the first choice helps, the second hurts."""
    return 50.0 + 3 * rows[:, 0] - 2 * rows[:, 1] + rows[:, 2] * 0.1


def proxies():
    """One per choice, of which the second has to be turned round."""
    return POOL.astype(float)


def evaluate(rows, problem=PROBLEM):
    found = zip(rows, truth(rows), strict=True)
    return [problem.evaluation(SPACE.row(row), {"accuracy": float(value)}, "verified") for row, value in found]


def search(searcher, budget, batch=1):
    asked = np.zeros((0, 3), dtype=INDEX)
    while len(asked) < budget:
        rows = searcher.ask(min(batch, budget - len(asked)))
        searcher.tell(evaluate(rows))
        asked = np.concatenate([asked, rows])
    return asked


def test_the_first_architecture_is_the_best_by_equal_weights():
    assert RoBoT(POOL, proxies(), 0, rounds=5).ask(1).tolist() == [[5, 5, 5]]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_proxy_that_is_wrong_way_round_is_turned(seed, batch):
    asked = search(RoBoT(POOL, proxies(), seed, rounds=24), 24, batch)
    assert truth(asked).max() == truth(POOL).max()  # one of 216
    chance = np.random.default_rng(seed).permutation(POOL)[:24]
    assert truth(asked).mean() > truth(chance).mean()


def test_without_rounds_the_pool_is_asked_in_the_order_of_equal_weights():
    ranks = normalised_ranks(proxies()).sum(axis=1)
    asked = [POOL.tolist().index(row) for row in RoBoT(POOL, proxies(), 0, rounds=0).ask(30).tolist()]
    assert np.allclose(ranks[asked], np.sort(ranks)[::-1][:30])


def test_after_the_rounds_come_the_next_best_by_the_best_weights():
    searcher = RoBoT(POOL, proxies(), 1, rounds=30)
    search(searcher, 30)
    best = searcher._best()
    tried = {tuple(row) for row in POOL[list(searcher._known)].tolist()}
    order = map(tuple, POOL[np.argsort(-(searcher._ranks @ best), kind="stable")].tolist())
    expected = [row for row in order if row not in tried][:10]
    searcher._left = 0
    assert list(map(tuple, searcher.ask(10).tolist())) == expected


def test_the_best_weights_are_those_of_the_best_architecture():
    searcher = RoBoT(POOL, proxies(), 2, rounds=20)
    asked = search(searcher, 12)
    place = int(np.argmax(searcher._ranks @ searcher._best()))
    explored = [place for _, place in searcher._tried if place in searcher._known]
    assert truth(POOL[[place]])[0] == truth(POOL[explored]).max()
    assert len(asked) == 12


def test_what_failed_counts_as_the_worst():
    def rest(tells):
        searcher = RoBoT(POOL, proxies(), 0, rounds=20)
        first = searcher.ask(4)
        searcher.tell(tells(evaluate(first)))
        return searcher.ask(4)

    bad = Problem(PROBLEM.objectives, (Bound("accuracy", 1000.0, at_least=True),))
    failed = rest(lambda found: found[1:])
    infeasible = rest(lambda found: [bad.evaluation(found[0].arch, found[0].values, "verified"), *found[1:]])
    assert np.array_equal(failed, infeasible)
    assert not np.array_equal(failed, rest(lambda found: found))


def test_what_lies_outside_the_pool_is_no_matter():
    searcher, alone = (RoBoT(POOL[:100], proxies()[:100], 0, rounds=10) for _ in range(2))
    searcher.tell(evaluate(POOL[150:160]))
    assert np.array_equal(searcher.ask(5), alone.ask(5))


def test_ranks_are_centred_and_missing_scores_stand_in_the_middle():
    ranks = normalised_ranks(np.array([[1.0, np.nan], [1e9, 2.0], [1.0, -np.inf], [5.0, 1.0]]))
    assert ranks.tolist() == [[-0.25, 0.0], [0.375, 0.25], [-0.25, 0.0], [0.125, -0.25]]
    assert not normalised_ranks(np.full((3, 1), np.nan)).any()


@pytest.mark.parametrize(
    ("pool", "scores", "message"),
    [
        (POOL[:0], proxies()[:0], "a pool of different architectures, got 0"),
        (POOL[[0, 0]], proxies()[:2], "a pool of different architectures, got 2"),
        (POOL[:3], proxies()[:2], "expected scores (3, proxies)"),
        (POOL[:3], np.zeros((3, 0)), "expected scores (3, proxies)"),
    ],
)
def test_pools_and_scores_that_do_not_fit_are_refused(pool, scores, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RoBoT(pool, scores, 0, rounds=1)
