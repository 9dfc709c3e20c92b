import numpy as np
import pytest
from small_tables import SPACES, random_table
from test_best import log_probabilities, random_logits

from supernet.relaxed.levels import along, cost_levels, dearest_cost


@pytest.mark.parametrize("name", SPACES)
def test_levels_go_from_the_fastest_to_the_bound_at_even_ratios(name):
    space, table = SPACES[name], random_table(SPACES[name], 1)
    costs = table.costs(space, np.array([arch.indices for arch in space.enumerate()]))
    assert dearest_cost(space, table) == pytest.approx(costs.max())
    for bound, top in ((None, costs.max()), (2 * costs.max(), costs.max()), (float(np.median(costs)),) * 2):
        levels = cost_levels(space, table, bound, 5)
        assert levels[0] == pytest.approx(costs.min()) and levels[-1] == pytest.approx(top)
        np.testing.assert_allclose(np.divide(levels[1:], levels[:-1]), levels[1] / levels[0])
    assert cost_levels(space, table, None, 1) == [pytest.approx(costs.max())]


@pytest.mark.parametrize("share", [None, 0.2, 0.7])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPACES)
def test_they_are_the_most_probable_of_their_level(name, seed, share):
    space, logits, table = SPACES[name], random_logits(SPACES[name], seed), random_table(SPACES[name], seed)
    rows = np.array([arch.indices for arch in space.enumerate()])
    costs, worth = table.costs(space, rows), log_probabilities(space, logits, rows)
    bound = None if share is None else float(np.quantile(costs, share))
    levels = cost_levels(space, table, bound, 5)
    found = along(logits, space, table, levels, 2, bound)
    own = table.costs(space, found)
    assert len(np.unique(found, axis=0)) == len(found) > 3
    assert (np.diff(own) >= 0).all() and own.max() <= levels[-1] * (1 + 1e-12)
    named = set(map(tuple, found.tolist()))
    mode = costs[np.argmax(np.where(costs <= levels[-1], worth, -np.inf))]
    assert share is None or mode <= bound
    for before, level in zip([0.0, *levels], levels, strict=False):
        inside = (costs <= level) & (costs >= (0.0 if before < mode else np.sqrt(level * before)))
        if inside.any():
            assert tuple(rows[np.argmax(np.where(inside, worth, -np.inf))].tolist()) in named
