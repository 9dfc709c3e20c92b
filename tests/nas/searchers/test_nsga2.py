import numpy as np
import pytest

from nas.objectives import Problem, minimize
from nas.searchers.nsga2 import NSGA2
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice(f"c{j}", (0, 1, 2, 3)) for j in range(8)])


def evaluate(rows, objectives=2):
    """Costs that conflict: the sum of the indices against its distance from the end, then zeros."""
    problem = Problem(tuple(minimize(f"m{k}") for k in range(objectives)))
    found = []
    for row in rows.tolist():
        metrics = {f"m{k}": v for k, v in enumerate((sum(row), (24 - sum(row)) ** 2 + row[0], row[1])[:objectives])}
        found.append(problem.evaluation(Architecture(SPACE, tuple(row)), metrics, "verified"))
    return found


def model(rows):
    return np.column_stack([rows.sum(axis=1), (24 - rows.sum(axis=1)) ** 2 + rows[:, 0]]), np.zeros(len(rows))


def parents(searcher):
    return {tuple(row) for row in searcher._algorithm.pop.get("X").astype(int).tolist()}


def test_asking_and_telling_in_pieces_is_asking_and_telling_whole():
    whole, pieces = NSGA2(SPACE, 2, 0, population=8), NSGA2(SPACE, 2, 0, population=8)
    for _ in range(4):
        rows = whole.ask(8)
        first = pieces.ask(3)
        pieces.tell(evaluate(first))
        parts = [first, pieces.ask(3), pieces.ask(8)]
        assert np.array_equal(np.concatenate(parts), rows)
        pieces.tell(evaluate(np.concatenate(parts[1:])[::-1]))
        whole.tell(evaluate(rows))


def test_nothing_is_asked_while_a_whole_generation_waits_to_be_told():
    searcher = NSGA2(SPACE, 2, 0, population=8)
    rows = searcher.ask(8)
    assert len(rows) == 8 and len(searcher.ask(8)) == 0
    searcher.tell(evaluate(rows))
    assert len(searcher.ask(8)) > 0


def test_what_was_not_told_counts_as_dominated_by_everything():
    searcher = NSGA2(SPACE, 2, 0, population=8)
    failed = []
    for _ in range(6):
        rows = searcher.ask(8)
        failed += map(tuple, rows[1::2].tolist())
        searcher.tell(evaluate(rows[::2]))
    searcher.ask(1)
    assert not parents(searcher) & set(failed)


def test_a_late_tell_takes_a_failure_back():
    late, prompt = NSGA2(SPACE, 2, 0, population=8), NSGA2(SPACE, 2, 0, population=8)
    rows = late.ask(8)
    late.tell(evaluate(rows[:5]))
    late.tell(evaluate(rows[5:]))
    prompt.tell(evaluate(prompt.ask(8)))
    assert np.array_equal(late.ask(8), prompt.ask(8))


def test_the_first_generation_starts_with_the_given_architectures():
    start = SPACE.sample(3, np.random.default_rng(9))
    before = start.copy()
    rows = NSGA2(SPACE, 2, 0, population=8, start=np.concatenate([start, start])).ask(8)
    assert np.array_equal(rows[:3], start) and len(np.unique(rows, axis=0)) == 8
    assert np.array_equal(start, before)


@pytest.mark.parametrize(("objectives", "reached"), [(1, 3), (3, 6)])
def test_any_number_of_objectives(objectives, reached):
    searcher = NSGA2(SPACE, objectives, 0, population=8)
    for _ in range(10):
        rows = searcher.ask(8)
        searcher.tell(evaluate(rows, objectives))
    assert min(sum(row) for row in parents(searcher)) <= reached
