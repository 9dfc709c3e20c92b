from dataclasses import replace

import numpy as np

from nas.searchers.local_search import LocalSearch
from search_spaces.moves import neighbours
from tests.nas.searchers.bowl import SPACE, TARGET, distance, evaluate, tuples


def around(row):
    return set(tuples(neighbours(SPACE.row(row))))


def climb(searcher, bounds=(), objectives=1):
    """One ask as large as wanted, told."""
    rows = searcher.ask(1000)
    searcher.tell(evaluate(rows, objectives, bounds))
    return tuples(rows)


def test_from_the_best_of_the_first_to_its_neighbours_to_the_best_of_them():
    searcher = LocalSearch(SPACE, 0)
    first = climb(searcher)
    assert len(first) == 10
    start = min(first, key=distance)
    second = climb(searcher)
    assert set(second) == around(start) - set(first) and second != sorted(second)
    best = min(second, key=distance)
    assert distance(best) < distance(start) and set(climb(searcher)) == around(best) - set(first) - set(second)


def test_the_target_is_reached_uphill_all_the_way_and_a_new_climb_begins():
    searcher, rounds = LocalSearch(SPACE, 0, initial=1), []
    while TARGET not in {row for rows in rounds for row in rows}:
        rounds.append(climb(searcher))
    assert set(climb(searcher)) == around(TARGET) - {row for rows in rounds for row in rows}
    assert len(climb(searcher)) == 1  # a random one


def test_neighbours_are_asked_for_in_pieces_before_the_next_step():
    whole, pieces = LocalSearch(SPACE, 0), LocalSearch(SPACE, 0)
    for _ in range(3):
        rows, parts = climb(whole), []
        while len(parts) < len(rows):
            part = pieces.ask(4)
            pieces.tell(evaluate(part))
            parts += tuples(part)
        assert parts == rows


def test_nothing_is_asked_while_neighbours_wait_to_be_told():
    searcher = LocalSearch(SPACE, 0)
    searcher.ask(1000)
    assert searcher.ask(1).shape == (0, 4)


def test_what_was_told_before_is_climbed_from():
    searcher = LocalSearch(SPACE, 0, initial=1)
    searcher.tell(evaluate(np.array([[3, 0, 2, 0], [0, 0, 0, 0]])))
    assert set(climb(searcher)) == around((3, 0, 2, 0))


def test_a_plateau_is_a_local_optimum():
    searcher = LocalSearch(SPACE, 0, initial=1)
    level = evaluate(np.array([[3, 3, 3, 3], *tuples(neighbours(SPACE.row([3, 3, 3, 3])))]))
    searcher.tell([replace(e, costs=(1.0,)) for e in level])
    assert len(climb(searcher)) == 1


def test_of_two_objectives_every_non_dominated_one_is_looked_around():
    searcher = LocalSearch(SPACE, 0, initial=1)
    ends = [(3, 0, 2, 1), (3, 3, 3, 3)]
    searcher.tell(evaluate(np.array([*ends, (0, 0, 0, 0)]), objectives=2))
    rounds = [set(climb(searcher, objectives=2)) for _ in range(2)]
    assert any(rounds[0] == around(end) for end in ends)
    seen = set().union(*rounds)
    for _ in range(40):
        seen |= set(climb(searcher, objectives=2))
    assert set().union(*map(around, ends)) <= seen | set(ends)


def test_infeasible_ones_are_climbed_by_violation():
    searcher = LocalSearch(SPACE, 0, initial=1)
    searcher.tell(evaluate(np.array([[3, 0, 2, 3], [0, 3, 0, 3]]), bounds=[0.5]))
    assert set(climb(searcher, bounds=[0.5])) == around((3, 0, 2, 3))
