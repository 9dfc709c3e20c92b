"""Laws of allocation, over every method: budgets are kept, and exact methods find what trying all choices finds."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_search.allocate import METHODS, Pair, Problem, Table, allocate, dual, pareto

LAW = settings(max_examples=40, deadline=None, derandomize=True, database=None)
EXACT = [name for name, entry in METHODS.items() if entry.exact]
HEURISTIC = [name for name, entry in METHODS.items() if not entry.exact]
OPTIONS = ("W8A8", "W6A6", "W4A8", "W4A4")


# Amounts on a grid give ties and sums that are exactly a budget; others give neither.
def amounts(low, high):
    return st.one_of(st.integers(low, high).map(float), st.floats(low, high, allow_subnormal=False))


@st.composite
def problems(draw, paired=None, costs=None):
    """Up to five layers with one to four options; damage of either sign; budgets from too little up."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    n = len(sizes)
    paired = draw(st.booleans()) if paired is None else paired

    def pair(i, j):
        term = st.one_of(amounts(-2, 3), st.just(math.inf)) if draw(st.booleans()) else amounts(-2, 3)
        rows = st.lists(st.tuples(*[term] * sizes[j]), min_size=sizes[i], max_size=sizes[i])
        return Pair(i, j, tuple(draw(rows)))

    def table(name, low):
        rows = tuple(tuple(draw(st.tuples(*[amounts(low, 6)] * size))) for size in sizes)
        all_pairs = list(itertools.combinations(range(n), 2))
        chosen = draw(st.lists(st.sampled_from(all_pairs), max_size=3, unique=True)) if paired and all_pairs else []
        return Table(name, rows, tuple(pair(i, j) for i, j in chosen))

    tables = tuple(table(f"cost{k}", 0) for k in range(costs or draw(st.integers(1, 2))))
    budgets = {t.name: draw(amounts(0, 6)) * n for t in tables if draw(st.integers(0, 4))}
    options = tuple(OPTIONS[:size] for size in sizes)
    return Problem(tuple(f"layer{i}" for i in range(n)), options, table("damage", -3), tables, budgets)


def best_of_all(problem):
    """The slow twin: the least sum of all choices within the budgets; inf where there is none."""
    choices = itertools.product(*(range(len(options)) for options in problem.options))
    return min((problem.objective.total(choice) for choice in choices if problem.fits(choice)), default=math.inf)


def found_by(problem, method):
    """What a method finds; None where it says that there is nothing."""
    try:
        return allocate(problem, method)
    except ValueError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(("no choice keeps", "no single option keeps", "the pairs of"))
        return None


def places(problem, allocation):
    return [
        options.index(allocation.choice[layer]) for layer, options in zip(problem.layers, problem.options, strict=True)
    ]


def near(value, tolerance=1e-7):
    return pytest.approx(value, rel=0, abs=tolerance)


@pytest.mark.parametrize("method", EXACT)
@LAW
@given(problem=problems())
def test_exact_methods_find_the_best_of_all_choices(method, problem):
    best, found = best_of_all(problem), found_by(problem, method)
    assert (found is None) == (best == math.inf)
    if found is not None:
        assert found.damage == near(best)
        assert found.optimal
        assert found.gap == 0


@pytest.mark.parametrize("method", HEURISTIC)
@LAW
@given(problem=problems())
def test_exact_allocation_is_never_worse(method, problem):
    best, found = best_of_all(problem), found_by(problem, method)
    if found is None:
        assert method == "uniform" or best == math.inf
    else:
        assert found.damage >= best - 1e-9
        assert not found.optimal


@pytest.mark.parametrize("method", METHODS)
@LAW
@given(problem=problems())
def test_budgets_are_kept_and_sums_are_those_of_the_tables(method, problem):
    found = found_by(problem, method)
    if found is None:
        return
    choice = places(problem, found)
    assert problem.fits(choice)
    assert found.damage == problem.damage.total(choice)
    assert found.costs == {table.name: table.total(choice) for table in problem.costs}
    for name, budget in problem.budgets.items():
        assert found.costs[name] <= budget + 1e-6
    for table in problem.tables:
        assert math.isfinite(table.total(choice))


def reordered(problem, order):
    """The same problem with its layers in another order."""
    at = {old: new for new, old in enumerate(order)}

    def pair(p):
        i, j = at[p.first], at[p.second]
        return Pair(i, j, p.amounts) if i < j else Pair(j, i, tuple(zip(*p.amounts, strict=True)))

    def table(t):
        return Table(t.name, tuple(t.rows[i] for i in order), tuple(map(pair, t.pairs)))

    return dataclasses.replace(
        problem,
        layers=tuple(problem.layers[i] for i in order),
        options=tuple(problem.options[i] for i in order),
        damage=table(problem.damage),
        costs=tuple(map(table, problem.costs)),
    )


@pytest.mark.parametrize("method", [*EXACT, "uniform"])
@LAW
@given(problem=problems(), random=st.randoms(use_true_random=False))
def test_the_order_of_layers_does_not_matter(method, problem, random):
    order = random.sample(range(len(problem.layers)), len(problem.layers))
    found, other = (found_by(p, method) for p in (problem, reordered(problem, order)))
    assert (found is None) == (other is None)
    if found is not None:
        assert found.damage == near(other.damage)


@pytest.mark.parametrize("method", EXACT)
@LAW
@given(problem=problems(costs=1))
def test_the_dual_form_costs_no_more_than_what_it_turns_round(method, problem):
    found = found_by(problem, method)
    if found is not None:
        turned = dual(problem, "cost0", found.damage)
        back = allocate(turned, method)
        assert back.costs["cost0"] == near(best_of_all(turned))
        assert back.costs["cost0"] <= found.costs["cost0"] + 1e-7
        assert back.damage <= found.damage + 1e-6


@settings(parent=LAW, max_examples=10)
@given(problem=problems(costs=1), points=st.integers(2, 5))
def test_fronts_hold_choices_that_none_dominates(problem, points):
    choices = itertools.product(*(range(len(options)) for options in problem.options))
    sums = [(problem.costs[0].total(c), problem.damage.total(c)) for c in choices]
    possible = [pair for pair in sums if math.isfinite(sum(pair))]
    if not possible:
        return
    fronts = [pareto(problem, "cost0", points, method) for method in EXACT]
    for front in fronts:
        assert 1 <= len(front) <= points
        for found in front:
            cost, damage = found.costs["cost0"], found.damage
            clear = 1e-5  # by more than budgets are rounded
            assert not any(c < cost + clear and d < damage - clear for c, d in possible)
            assert not any(c < cost - clear and d < damage + clear / 100 for c, d in possible)
        assert front[0].costs["cost0"] == near(min(c for c, _ in possible), 1e-5)
        assert front[-1].damage == near(min(d for _, d in possible), 1e-5)
