import numpy as np
import pytest
from small_tables import SPACES, random_table

from search_spaces.mbconv import mbconv
from search_spaces.network import find_space
from supernet.relaxed.best import best_architectures, fastest_cost
from supernet.relaxed.cost_table import CostTable


def random_logits(space, seed):
    rng = np.random.default_rng(seed)
    return {choice.name: rng.normal(size=len(choice.options)) for choice in space.choices}


def log_probabilities(space, logits, rows):
    active, total = space.active(rows), np.zeros(len(rows))
    for j, choice in enumerate(space.choices):
        values = logits[choice.name]
        total += np.where(active[:, j], (values - np.log(np.exp(values).sum()))[rows[:, j]], 0)
    return total


@pytest.mark.parametrize("share", [None, 0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPACES)
def test_equals_brute_force(name, seed, share):
    space, logits, table = SPACES[name], random_logits(SPACES[name], seed), random_table(SPACES[name], seed)
    rows = np.array([arch.indices for arch in space.enumerate()])
    costs = table.costs(space, rows)
    bound = None if share is None else float(np.quantile(costs, share))
    allowed = rows if bound is None else rows[costs <= bound]
    allowed = allowed[np.argsort(-log_probabilities(space, logits, allowed))]
    for n in (1, 7, len(rows)):
        found = best_architectures(logits, space, table, bound, n)
        assert found.tolist() == allowed[:n].tolist()


@pytest.mark.parametrize("name", SPACES)
def test_a_bound_holds_to_the_last_digit(name):
    space, logits, table = SPACES[name], random_logits(SPACES[name], 0), random_table(SPACES[name], 0)
    rows = np.array([arch.indices for arch in space.enumerate()])
    costs = table.costs(space, rows)
    for bound in np.sort(costs)[1 :: len(costs) // 12]:
        for limit in (bound, np.nextafter(bound, 0)):
            best = log_probabilities(space, logits, rows[costs <= limit]).max()
            found = best_architectures(logits, space, table, float(limit))
            assert table.costs(space, found) <= limit
            assert log_probabilities(space, logits, found) == pytest.approx(best)


@pytest.mark.parametrize("name", SPACES)
def test_an_impossible_bound_names_the_fastest(name):
    space, table = SPACES[name], random_table(SPACES[name], 5)
    rows = np.array([arch.indices for arch in space.enumerate()])
    least = float(table.costs(space, rows).min())
    assert fastest_cost(space, table) == pytest.approx(least)
    assert len(best_architectures({}, space, table, fastest_cost(space, table)))  # the fastest itself is found
    with pytest.raises(ValueError, match=f"costs at most .* s: the fastest costs {least:g} s; raise max_cost"):
        best_architectures({}, space, table, 0.99 * least)


def test_choices_without_logits_take_the_last_option_that_the_bound_allows():
    space = SPACES["flat"]
    logits = {name: values for name, values in random_logits(space, 0).items() if name != "c2"}
    table = CostTable(0.0, {"c2": np.arange(4.0)})
    assert best_architectures(logits, space, table)[0, 2] == 3
    assert best_architectures(logits, space, table, 2.5)[0, 2] == 2


def test_other_arguments_are_refused():
    space = SPACES["flat"]
    with pytest.raises(ValueError, match="needs a cost table"):
        best_architectures({}, space, None, 1.0)
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        best_architectures({}, space, n=0)
    with pytest.raises(ValueError, match="has no choice 'c0' with 7 options"):
        best_architectures({"c0": np.zeros(7)}, space)


@pytest.mark.parametrize("longest", [20_000, 30], ids=["exact", "coarse"])
def test_a_large_space_keeps_to_its_bound(longest, monkeypatch):
    """More than 10^9 architectures: never dearer than the bound, and at least as probable as any of a large sample."""
    monkeypatch.setattr("supernet.relaxed.best._LONGEST", longest)
    space = find_space(mbconv(16, 1, 10))
    logits, rng = random_logits(space, 0), np.random.default_rng(0)
    table = CostTable(1.0, {c.name: np.sort(rng.uniform(0, 1, len(c.options))) for c in space.choices})
    bound = 0.4 * fastest_cost(space, table) + 0.6 * float(table.costs(space, space.sample(200, rng)).mean())
    found = best_architectures(logits, space, table, bound, 5)
    worth = log_probabilities(space, logits, found)
    assert table.costs(space, found).max() <= bound and worth.tolist() == sorted(worth, reverse=True)
    sample = space.sample(20_000, rng)
    sample = sample[table.costs(space, sample) <= bound]
    assert worth[0] >= log_probabilities(space, logits, sample).max()
