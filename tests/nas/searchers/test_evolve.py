import numpy as np
import pytest

from nas.searchers.evolve import evolve
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice(f"c{j}", (0, 1, 2, 3)) for j in range(8)])
NOTHING = np.zeros((0, 8), dtype=INDEX)


def model(rows):
    """Every sum of indices from 0 to 24 is on the front, and only sums count."""
    total = rows.sum(axis=1).astype(float)
    return np.column_stack([total, 24 - total]), np.zeros(len(rows))


def test_the_front_of_a_cost_model_is_found():
    final = evolve(SPACE, model, NOTHING, 40, 60, np.random.default_rng(0))
    assert final.dtype == INDEX and np.array_equal(SPACE.canonical(final), final)
    assert len(set(final.sum(axis=1).tolist())) >= 23


def test_what_it_begins_with_is_kept_where_it_is_best():
    corners = np.array([[0] * 8, [3] * 8], dtype=INDEX)
    final = evolve(SPACE, model, corners, 6, 2, np.random.default_rng(0)).tolist()
    assert [0] * 8 in final and [3] * 8 in final and len(final) == 6


def test_violations_come_before_costs():
    def strict(rows):
        return model(rows)[0], np.abs(rows.sum(axis=1) - 7.0)

    final = evolve(SPACE, strict, NOTHING, 20, 30, np.random.default_rng(0))
    assert set(final.sum(axis=1).tolist()) == {7}


def test_costs_that_are_no_numbers_are_refused():
    for bad in (
        lambda rows: (model(rows)[0] * np.nan, np.zeros(len(rows))),
        lambda r: (model(r)[0], np.full(len(r), np.inf)),
    ):
        with pytest.raises(ValueError, match="finite costs"):
            evolve(SPACE, bad, NOTHING, 8, 3, np.random.default_rng(0))
