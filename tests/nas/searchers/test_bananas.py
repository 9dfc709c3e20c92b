import numpy as np

from nas.searchers.bananas import Bananas
from nas.searchers.random_search import RandomSearch
from tests.nas.searchers.bowl import SPACE, TARGET, distance, evaluate, tuples


def searched(budget, objectives=1, bounds=(), seed=0):
    searcher, seen = Bananas(SPACE, seed, networks=3), []
    while len(seen) < budget:
        rows = searcher.ask(5)
        searcher.tell(evaluate(rows, objectives, bounds))
        seen += tuples(rows)
    return searcher, seen


def test_the_first_ones_are_random():
    assert tuples(Bananas(SPACE, 3).ask(50)) == tuples(RandomSearch(SPACE, 3).ask(10))


def test_candidates_are_new_and_one_or_two_changes_from_the_best():
    searcher, seen = searched(20)
    best = sorted(seen, key=distance)[:10]
    worst = max(map(distance, best))
    best = [row for row in seen if distance(row) <= worst]  # and those as good as the last of them
    rows = tuples(searcher._candidates())
    assert rows and not set(rows) & set(seen)
    assert all(min(sum(a != b for a, b in zip(row, one, strict=True)) for one in best) <= 2 for row in rows)


def test_the_ensemble_learns_what_it_was_told_and_is_less_sure_elsewhere():
    searcher, seen = searched(40)
    targets = np.array([[distance(row), 0.0] for row in seen])
    said = searcher._predictions(targets, np.array(seen))
    assert said.shape == (3, 40, 2)
    assert np.abs(said.mean(axis=0)[:, 0] - targets[:, 0]).mean() < 0.2
    unseen = np.array([arch.indices for arch in SPACE.enumerate() if arch.indices not in set(seen)])
    assert searcher._predictions(targets, unseen).std(axis=0)[:, 0].mean() > said.std(axis=0)[:, 0].mean()


def test_it_finds_the_target_and_of_two_objectives_the_ends():
    assert TARGET in searched(40)[1]
    assert {TARGET, (3, 3, 3, 3)} <= set(searched(50, objectives=2)[1])


def test_a_predicted_violation_nearer_to_none_than_to_the_smallest_known_is_none(monkeypatch):
    searcher = Bananas(SPACE, 0)
    searcher.tell(evaluate(np.array([TARGET, (3, 0, 2, 0), (0, 0, 0, 0)]), bounds=[0.5]))  # violations 0, 1 and 11
    said = np.array([[1.0, 0.4], [1.0, 0.6], [1.0, -3.0]])
    monkeypatch.setattr(searcher, "_predictions", lambda targets, rows: np.array([said] * 2))
    costs, violations = searcher._drawn(np.zeros((3, 4), dtype=int))
    assert costs.tolist() == [[1.0]] * 3 and violations.tolist() == [0.0, 0.6, 0.0]


def test_bounds_lead_to_what_meets_them():
    assert TARGET in searched(40, bounds=[0.5])[1]
