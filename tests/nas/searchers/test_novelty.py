import numpy as np

from nas.searchers.novelty import novel_rows
from search_spaces.space import INDEX
from tests.nas.searchers.bowl import SPACE, tuples


def test_proposals_come_as_they_are_proposed_without_what_is_known():
    proposals = iter(np.array([[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 1], [0, 0, 0, 3]], dtype=INDEX))
    asked = {(0, 0, 0, 2)}
    rows = novel_rows(SPACE, 2, lambda: next(proposals), np.random.default_rng(0), asked)
    assert tuples(rows) == [(0, 0, 0, 1), (0, 0, 0, 3)]
    assert asked == {(0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 0, 3)}


def test_where_proposals_repeat_themselves_random_ones_follow_until_the_space_is_used_up():
    same = np.zeros(4, dtype=INDEX)
    rows = novel_rows(SPACE, 1000, lambda: same, np.random.default_rng(0), set())
    assert tuples(rows)[0] == (0, 0, 0, 0) and len(set(tuples(rows))) == SPACE.size
