import itertools

import numpy as np
import pytest
import torch
from small_tables import SPACES, random_table

from search_spaces.cell import nas_bench_201
from search_spaces.network import find_space
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from supernet.relaxed.cost_table import CostTable, ExpectedCost
from supernet.relaxed.fit_table import fit_paired_table, fit_table

DEEP = SPACES["deep"]


def every(space):
    return np.array([arch.indices for arch in space.enumerate()])


def test_costs_count_what_is_active():
    table = CostTable(1.0, {"depth": [0.0, 10.0], "kernel2": [100.0, 200.0], ("width", "kernel2"): [[1, 2], [3, 4]]})
    names = [choice.name for choice in DEEP.choices]
    values = dict.fromkeys(names, 0) | {"width": 1, "kernel2": 1}
    rows = DEEP.canonical(np.array([[{**values, "depth": d}[name] for name in names] for d in (0, 1)]))
    assert table.costs(DEEP, rows).tolist() == [1.0, 1.0 + 10.0 + 200.0 + 4.0]


@pytest.mark.parametrize("name", SPACES)
def test_expected_cost_is_the_mean_over_all_rows(name):
    """Of rows with every choice drawn by itself, inactive or not: equal networks cost what their own rows do."""
    space, table = SPACES[name], random_table(SPACES[name], 0)
    rng = np.random.default_rng(1)
    logits = {c.name: torch.from_numpy(rng.normal(size=len(c.options))).requires_grad_() for c in space.choices[1:]}
    probabilities = {name: torch.softmax(values, 0) for name, values in logits.items()}
    cost = ExpectedCost(table, space)(probabilities)
    rows = np.array(list(itertools.product(*map(range, space.cardinalities))))
    apart = SearchSpace(space.name, space.choices)  # without the equivalence
    costs = torch.from_numpy(table.costs(space, apart.canonical(rows)))
    weights = torch.full((len(rows),), 1 / len(space.choices[0].options), dtype=torch.float64)  # it has no logits
    for j, choice in enumerate(space.choices[1:], start=1):
        weights = weights * probabilities[choice.name][rows[:, j]]
    expected = (weights * costs).sum()
    torch.testing.assert_close(cost, expected)
    leaves = list(logits.values())
    gradients = [torch.autograd.grad(y, leaves, retain_graph=True) for y in (cost, expected)]
    for found, true in zip(*gradients, strict=True):
        torch.testing.assert_close(found, true)


def test_the_expected_cost_of_one_cell_is_its_own():
    """An edge with an operation is dead where all others have none, but not where the others have one as well."""
    space = find_space(nas_bench_201(16, 1, 3, "tiny"))
    table = CostTable(0.0, {choice.name: np.arange(5.0) for choice in space.choices})
    last = {choice.name: torch.eye(5)[4] for choice in space.choices}
    assert float(ExpectedCost(table, space)(last)) == 24.0


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"height": [1.0]}, "has a choice 'height' that space 'deep' has not"),
        ({"depth": [1.0]}, r"the costs of depth must have shape \(2,\), got \(1,\)"),
        ({"depth": [1.0, np.nan]}, "the costs of depth must be finite"),
    ],
)
def test_tables_of_another_space_are_refused(tables, message):
    with pytest.raises(ValueError, match=message):
        CostTable(0.0, tables).costs(DEEP, every(DEEP))


def test_a_group_of_too_many_options_is_refused():
    space = SearchSpace("wide", [Choice(f"c{i}", tuple(range(16))) for i in range(5)])
    with pytest.raises(ValueError, match=r"c0, .* depends on 5 .* 1,048,576 combinations, .* fewer options"):
        ExpectedCost(CostTable(0.0, {tuple(c.name for c in space.choices): np.zeros((16,) * 5)}), space)


def test_equal_tables_are_equal_text():
    assert repr(random_table(DEEP, 0)) == repr(random_table(DEEP, 0)) != repr(random_table(DEEP, 1))


@pytest.mark.parametrize("name", SPACES)
def test_a_fit_recovers_a_table(name):
    space, true = SPACES[name], random_table(SPACES[name], 2)
    rows = np.unique(space.sample(400, np.random.default_rng(0)), axis=0)
    fitted = fit_table(space, rows, true.costs(space, rows), groups=list(true.tables))
    np.testing.assert_allclose(fitted.costs(space, rows), true.costs(space, rows), rtol=2e-3)
    assert fitted.error < 0.05
    assert all((entries >= 0).all() for entries in fitted.tables.values())


def test_the_error_is_of_architectures_that_were_not_fitted():
    rows = every(DEEP)
    noise = np.random.default_rng(0).uniform(1, 3, len(rows))
    assert fit_table(DEEP, rows, noise).error > 0.1
    with pytest.raises(ValueError, match="at least 10 positive latencies"):
        fit_table(DEEP, rows, -noise)


def test_pairs_have_a_table_where_they_add_other_costs_together():
    space = SearchSpace("flat", [Choice(f"c{i}", tuple(range(3))) for i in range(6)])
    rows = space.sample(400, np.random.default_rng(0))
    alone = CostTable(1.0, {f"c{i}": np.arange(3.0) for i in range(6)})
    together = CostTable(1.0, {**alone.tables, ("c1", "c4"): 3 * np.outer(np.arange(3.0), np.arange(3.0))})
    pairs = list(itertools.combinations([choice.name for choice in space.choices], 2))
    plain = fit_paired_table(space, rows, alone.costs(space, rows) * random_noise(400), pairs)
    assert all(len(names) == 1 for names in plain.tables)
    costs = together.costs(space, rows)
    paired = fit_paired_table(space, rows, costs, pairs)
    assert ("c1", "c4") in paired.tables and paired.error < 0.01 < fit_table(space, rows, costs).error


def random_noise(n):
    return np.random.default_rng(1).uniform(0.95, 1.05, n)
