import warnings

import numpy as np

from nas.searchers.pymoo_algorithms import CONTINUOUS, GENETIC, NamedPymooSearch
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from tests.nas.searchers.bowl import SPACE, TARGET, evaluate, tuples

GATE = Choice("gate", (0, 1))
GATED = SearchSpace("gated", [GATE, Choice("inner", (0, 1, 2), GATE.among(1))])


def test_the_cells_of_the_unit_cube_are_the_options():
    searcher = NamedPymooSearch(GATED, 1, 0, "pso", population=4)
    points = np.array([[0.0, 0.9], [0.49, 0.1], [0.5, 0.34], [1.0, 1.0], [0.7, 0.32]])
    assert searcher._decoded(points).tolist() == [[0, 0], [0, 0], [1, 1], [1, 2], [1, 0]]


def test_every_one_finds_the_target():
    for name in set(GENETIC | CONTINUOUS) - {"sms-emoa"}:  # which needs two objectives
        searcher = NamedPymooSearch(SPACE, 1, 0, name, population=12)
        seen = []
        while len(seen) < 160:
            rows = searcher.ask(12)
            searcher.tell(evaluate(rows))
            seen += tuples(rows)
        assert TARGET in seen, name


def test_two_searches_do_not_disturb_each_other():
    def first_rows():
        searcher = NamedPymooSearch(SPACE, 2, 0, "spea2", population=8)
        for _ in range(4):
            rows = searcher.ask(8)
            searcher.tell(evaluate(rows, objectives=2))
        return tuples(searcher.ask(8))

    alone = first_rows()
    other = NamedPymooSearch(SPACE, 3, 1, "spea2", population=8)
    other.tell([])
    assert first_rows() == alone


def test_warnings_stay_as_they_are():
    before = list(warnings.filters)
    test_two_searches_do_not_disturb_each_other()
    assert warnings.filters == before
