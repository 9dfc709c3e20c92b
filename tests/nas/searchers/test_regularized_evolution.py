import numpy as np

from nas.searchers.random_search import RandomSearch
from nas.searchers.regularized_evolution import RegularizedEvolution
from tests.nas.searchers.bowl import SPACE, distance, evaluate, tuples


def changes(row, parent):
    return sum(a != b for a, b in zip(row, parent, strict=True))


def test_the_first_population_is_random():
    rows = RegularizedEvolution(SPACE, 3, population=12).ask(12)
    assert tuples(rows) == tuples(RandomSearch(SPACE, 3).ask(12))


def test_a_child_is_one_change_away_from_the_best_of_a_tournament():
    searcher = RegularizedEvolution(SPACE, 0, population=8, tournament=100)  # nearly surely everyone is drawn
    found = evaluate(searcher.ask(8))
    searcher.tell(found)
    best = min(e.costs for e in found)
    winners = [e.arch.indices for e in found if e.costs == best]
    assert all(min(changes(row, winner) for winner in winners) == 1 for row in tuples(searcher.ask(5)))


def test_the_oldest_one_dies_however_good_it_is():
    searcher = RegularizedEvolution(SPACE, 0, population=3, tournament=100)
    best = (3, 0, 2, 1)
    searcher.tell(evaluate(np.array([best])))
    searcher.tell(evaluate(np.array([[0, 3, 0, 3], [0, 3, 0, 2]])))
    assert changes(tuples(searcher.ask(1))[0], best) == 1
    searcher.tell(evaluate(np.array([[0, 3, 0, 1]])))
    assert changes(tuples(searcher.ask(1))[0], best) > 1


def test_of_several_objectives_the_non_dominated_win():
    searcher = RegularizedEvolution(SPACE, 0, population=4, tournament=100)
    ends, dominated = [(3, 0, 2, 1), (3, 3, 3, 3)], [(0, 0, 0, 0), (1, 0, 0, 0)]
    searcher.tell(evaluate(np.array([*dominated, *ends]), objectives=2))
    assert all(min(changes(row, end) for end in ends) == 1 for row in tuples(searcher.ask(8)))


def test_it_finds_the_target():
    searcher = RegularizedEvolution(SPACE, 0, population=10, tournament=5)
    nearest = []
    for _ in range(20):
        rows = searcher.ask(5)
        searcher.tell(evaluate(rows))
        nearest.append(min(map(distance, tuples(rows))))
    assert min(nearest) == 0
