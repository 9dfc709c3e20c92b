import numpy as np
import pytest

from predictors.drop import Policies, fit_drop, no_drop
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2))
BITS = ("w4a8", "int8", "fp32")
SPACE = SearchSpace("joint", [DEPTH, Choice("a.precision", BITS), Choice("b.precision", BITS, DEPTH.among(2))])
POLICIES = Policies(SPACE, (1, 2))
ROWS = SPACE.canonical(np.array([[1, 2, 2], [1, 1, 2], [1, 0, 2], [1, 2, 1], [1, 2, 0], [1, 0, 0], [0, 0, 0]]))


def test_a_block_that_is_not_there_lowers_nothing():
    assert POLICIES.lowered(ROWS).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 1],
        [1, 1, 1, 1],
        [1, 1, 0, 0],
    ]
    assert POLICIES.plain(ROWS).tolist() == [[1, 2, 2]] * 6 + [[0, 2, 0]]


def test_a_drop_is_found_and_rows_in_full_precision_have_none():
    lost = np.array([0.0, 0.5, 2.0, 0.0, 1.0, 3.0, 2.0])
    drop = fit_drop(POLICIES, np.repeat(ROWS, 20, axis=0), np.repeat(lost, 20))
    np.testing.assert_allclose(drop(ROWS), lost, atol=0.05)
    assert drop(ROWS)[0] == 0


def test_fewer_bits_never_cost_less_whatever_the_noise():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = SPACE.sample(12, rng)
        drop = fit_drop(POLICIES, rows, rng.normal(size=12))
        assert (drop.coefficients >= 0).all()
        assert drop(ROWS)[2] >= drop(ROWS)[1] >= drop(ROWS)[0] == 0 and drop(ROWS)[5] >= drop(ROWS)[4]


def test_one_observation_is_believed_in_part_and_shared():
    drop = fit_drop(POLICIES, ROWS[5:6], [2.0])
    assert 1 < drop(ROWS[5:6])[0] < 2 and 0 < drop(ROWS[3:4])[0] < 1


def test_nothing_known_is_no_drop():
    for drop in (no_drop(POLICIES), fit_drop(POLICIES, ROWS[:0], [])):
        assert drop(ROWS).tolist() == [0] * 7
    assert no_drop(Policies(SPACE, ()))(ROWS).tolist() == [0] * 7


def test_what_is_no_policy_and_no_drop_is_refused():
    for columns in ((3,), (-1,), (1, 1)):
        with pytest.raises(ValueError, match="space 'joint' has the choices 0 to 2"):
            Policies(SPACE, columns)
    for lost in ([1.0], [np.nan] * 7):
        with pytest.raises(ValueError, match="one finite number for each of 7 rows"):
            fit_drop(POLICIES, ROWS, lost)
