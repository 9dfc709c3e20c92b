import numpy as np
import pytest

from nas.objectives import Bound, Problem, minimize
from nas.searchers.linas import LINAS
from nas.searchers.random_search import RandomSearch
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice(f"c{j}", (0, 1, 2, 3)) for j in range(6)])
PROBLEM = Problem((minimize("a"), minimize("b")))


def model(rows):
    """The front: all indices at 0 but for the first choice."""
    return np.column_stack([rows[:, 0] + rows[:, 1:].sum(axis=1), 3 - rows[:, 0] + rows[:, 1:].sum(axis=1)]), np.zeros(
        len(rows)
    )


def evaluate(rows, problem=PROBLEM):
    return [
        problem.evaluation(Architecture(SPACE, tuple(row)), {"a": a, "b": b}, "verified")
        for row, (a, b) in zip(rows.tolist(), model(rows)[0], strict=True)
    ]


def linas(fit=lambda _: model, initial=8):
    return LINAS(SPACE, fit, 2, 0, initial, generations=20, population=40)


def test_the_initial_architectures_are_those_of_random_search():
    searcher, chance = linas(), RandomSearch(SPACE, 0)
    pieces = []
    for n in (5, 5):
        pieces.append(searcher.ask(n))
        searcher.tell(evaluate(pieces[-1]))
    assert [len(p) for p in pieces] == [5, 3]
    assert np.array_equal(np.concatenate(pieces), chance.ask(8))


def test_then_come_the_best_by_prediction():
    searcher = linas()
    searcher.tell(evaluate(searcher.ask(8)))
    assert {tuple(row) for row in searcher.ask(4).tolist()} == {(i, 0, 0, 0, 0, 0) for i in range(4)}


def test_the_model_is_fitted_on_everything_told():
    seen = []
    searcher = linas(lambda found: seen.append(list(found)) or model)
    first = evaluate(searcher.ask(8))
    searcher.tell(first)
    second = evaluate(searcher.ask(3))
    searcher.tell(second)
    searcher.ask(3)
    assert seen == [first, first + second]


def test_random_ones_are_asked_until_two_succeed():
    called = []
    searcher = linas(lambda found: called.append(1) or model)
    rows = [searcher.ask(8)]
    searcher.tell([])
    rows.append(searcher.ask(8))
    assert not called and len(rows[1]) == 1
    for _ in range(2):
        searcher.tell(evaluate(rows[-1]))
        assert not called
        rows.append(searcher.ask(1))
    assert called


def test_infeasible_predictions_are_asked_by_violation():
    def strict(rows):
        costs, _ = model(rows)
        return costs, 1.0 + rows.sum(axis=1)

    tight = Problem(PROBLEM.objectives, (Bound("a", 0.5), Bound("b", 0.5)))
    searcher = linas(lambda _: strict)
    searcher.tell(evaluate(searcher.ask(8), tight))
    rows = searcher.ask(5)
    assert sorted(rows.sum(axis=1).tolist()) == [0, 1, 1, 1, 1]


def test_a_model_that_predicts_no_numbers_is_refused():
    searcher = linas(lambda _: lambda rows: (np.full((len(rows), 2), np.nan), np.zeros(len(rows))))
    searcher.tell(evaluate(searcher.ask(8)))
    with pytest.raises(ValueError, match="finite costs"):
        searcher.ask(4)


def test_known_architectures_are_always_candidates():
    best = np.array([[1, 2, 3, 3, 3, 3]], dtype=np.int16)

    def one_best(rows):
        good = (rows == best).all(axis=1)
        return np.column_stack([np.where(good, -9.0, 1.0), np.where(good, -9.0, 1.0)]), np.zeros(len(rows))

    for known, found in ((best, True), (None, False)):
        searcher = LINAS(SPACE, lambda _: one_best, 2, 0, 4, known=known, generations=2, population=8)
        searcher.tell(evaluate(searcher.ask(4)))
        assert (tuple(best[0].tolist()) in {tuple(row) for row in searcher.ask(2).tolist()}) == found


def test_what_was_measured_counts_as_predicted_where_it_is_noisy():
    told = []

    def choose(costs, known, n, rng):
        told.append(known)
        return list(range(n))

    for smooth in (False, True):
        searcher = LINAS(SPACE, lambda _: model, 2, 0, 8, choose=choose, smooth=smooth, population=20)
        rows = searcher.ask(8)
        lucky = [PROBLEM.evaluation(Architecture(SPACE, tuple(row)), {"a": -1, "b": -2}, "verified") for row in rows]
        searcher.tell(lucky)
        searcher.ask(2)
        assert np.array_equal(told[-1], model(rows)[0] if smooth else np.tile([-1.0, -2.0], (8, 1)))


def test_the_inner_search_goes_on_from_its_last_population():
    searcher = LINAS(SPACE, lambda _: model, 2, 0, 8, generations=3, population=40)
    searcher.tell(evaluate(searcher.ask(8)))
    best = []
    for _ in range(3):
        searcher.tell(evaluate(searcher.ask(1)))
        best.append(np.sort(model(searcher._last)[0].sum(axis=1))[:20].mean())
    assert best[2] < best[0]
    fresh = LINAS(SPACE, lambda _: model, 2, 0, 8, generations=3, population=40)
    fresh._last = searcher._last
    asked = []

    def watched(rows):
        asked.append({tuple(row) for row in rows.tolist()})
        return model(rows)

    fresh._searched(watched, np.zeros((0, 6), dtype=np.int16))
    assert {tuple(row) for row in searcher._last.tolist()} <= asked[0]
