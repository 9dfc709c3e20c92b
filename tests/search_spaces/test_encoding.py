import numpy as np

from search_spaces.encoding import one_hot, ordinal
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2))
SPACE = SearchSpace("s", (DEPTH, Choice("kernel", (3, 5, 7), DEPTH.among(2)), Choice("act", ("relu",))))
ROWS = SPACE.canonical([[0, 0, 0], [1, 0, 0], [1, 2, 0]])


def test_one_hot_has_a_column_per_option_and_none_set_where_inactive():
    assert one_hot(SPACE, ROWS).tolist() == [
        [1, 0, 0, 0, 0, 1],
        [0, 1, 1, 0, 0, 1],
        [0, 1, 0, 0, 1, 1],
    ]


def test_one_hot_is_column_major_in_the_type_asked_for():
    features = one_hot(SPACE, ROWS, np.float64)
    assert features.flags.f_contiguous and features.dtype == np.float64
    assert one_hot(SPACE, ROWS).dtype == np.float32


def test_ordinal_leaves_zero_for_inactive_choices():
    assert np.allclose(ordinal(SPACE, ROWS), [[1 / 2, 0, 1], [1, 1 / 3, 1], [1, 1, 1]])


def test_no_architectures_have_no_features():
    assert one_hot(SPACE, ROWS[:0]).shape == (0, 6)
    assert ordinal(SPACE, ROWS[:0]).shape == (0, 3)
