import itertools

import numpy as np
import pytest
from small_tables import SPACES, random_table

from search_spaces.mbconv import mbconv
from search_spaces.network import find_space
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from supernet.relaxed.best import best_architectures, fastest_cost
from supernet.relaxed.cost_table import CostTable
from supernet.relaxed.levels import negative


def random_logits(space, seed):
    rng = np.random.default_rng(seed)
    return {choice.name: rng.normal(size=len(choice.options)) for choice in space.choices}


def log_probabilities(space, logits, rows):
    """Of architectures (n,): of the most probable row that stands for each, with inactive choices drawn as well."""
    every = np.array(list(itertools.product(*map(range, space.cardinalities))))
    taken = [logits[choice.name][every[:, j]] for j, choice in enumerate(space.choices)]
    normal = sum(np.logaddexp.reduce(logits[choice.name]) for choice in space.choices)
    found = {}
    for row, value in zip(map(tuple, space.canonical(every).tolist()), (sum(taken) - normal).tolist(), strict=True):
        found[row] = max(found.get(row, -np.inf), value)
    return np.array([found[tuple(row)] for row in rows.tolist()])


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


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", SPACES)
def test_a_bound_holds_to_the_last_digit(name, sign):
    space, logits, table = SPACES[name], random_logits(SPACES[name], 0), random_table(SPACES[name], 0)
    table = table if sign > 0 else negative(table)
    rows = np.array([arch.indices for arch in space.enumerate()])
    costs, worth = table.costs(space, rows), log_probabilities(space, logits, rows)
    for bound in np.sort(costs)[1 :: len(costs) // 12]:
        for limit in (bound, np.nextafter(bound, -np.inf)):
            found = best_architectures(logits, space, table, float(limit))
            assert table.costs(space, found) <= limit
            assert log_probabilities(space, logits, found) == pytest.approx(worth[costs <= limit].max())


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


DEPTH = Choice("depth", (1, 2, 3))
BLOCKS = SearchSpace(
    "blocks",
    [DEPTH, *(Choice(f"kernel{i}", (3, 5), DEPTH.among(*range(i, 4)) if i > 1 else ()) for i in (1, 2, 3))],
)
KERNELS = {"kernel1": np.array([1.0, 0.0]), "kernel2": np.array([0.0, 0.2]), "kernel3": np.array([0.0, 0.1])}


@pytest.mark.parametrize(
    ("depth", "bound", "expected"),
    [
        ({}, None, [2, 0, 1, 1]),
        ({"depth": np.array([0.0, 0.1, 0.2])}, None, [2, 0, 1, 1]),
        ({}, 3.0, [1, 0, 1, 0]),  # rather than a deep one with the wrong kernels
        ({"depth": np.array([0.0, 5.0, 9.0])}, 4.0, [2, 0, 0, 0]),
    ],
)
def test_networks_are_not_improbable_for_their_many_blocks(depth, bound, expected):
    """The kernels of one more block make it less probable only where they are not the most probable ones."""
    table = CostTable(0.0, {"depth": [0, 1, 2], "kernel2": [1, 2], "kernel3": [1, 2]})
    assert best_architectures(KERNELS | depth, BLOCKS, table, bound).tolist() == [expected]


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
    worth = worths(space, logits, found)
    assert table.costs(space, found).max() <= bound and worth.tolist() == sorted(worth, reverse=True)
    sample = space.sample(20_000, rng)
    sample = sample[table.costs(space, sample) <= bound]
    assert worth[0] >= worths(space, logits, sample).max()


def worths(space, logits, rows):
    """`log_probabilities` (n,) but for a constant, in a space without equal networks."""
    lost = [(logits[c.name] - logits[c.name].max())[rows[:, j]] for j, c in enumerate(space.choices)]
    return np.where(space.active(rows), np.stack(lost, 1), 0).sum(1)
