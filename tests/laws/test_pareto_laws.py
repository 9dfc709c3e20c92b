"""Laws of Pareto fronts and hypervolumes, against their definitions on small costs with ties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.objectives import Evaluation
from nas.pareto import front, hypervolume, non_dominated, ranks, relative_hypervolume, shared_box
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

LAW = settings(max_examples=120, deadline=None, derandomize=True, database=None)
ARCHS = list(SearchSpace("s", [Choice("a", tuple(range(8))), Choice("b", (1, 2))]).enumerate())


@st.composite
def cost_arrays(draw, most=12):
    m = draw(st.integers(1, 4))
    rows = draw(st.lists(st.tuples(*[st.integers(0, 4)] * m), min_size=1, max_size=most))
    return np.array(rows, dtype=float)


def dominates(a, b):
    return (a <= b).all() and (a < b).any()


def brute_force(costs):
    """The slow twin: no other row dominates it, and no earlier one equals it."""
    return [
        not any(dominates(other, row) for other in costs) and not any((other == row).all() for other in costs[:i])
        for i, row in enumerate(costs)
    ]


def covered_cells(costs, reference):
    """The slow twin of the hypervolume of whole numbers: unit cells that some row covers."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return sum(any((row <= np.array(cell)).all() for row in costs) for cell in cells)


@LAW
@given(cost_arrays())
def test_the_front_is_that_of_brute_force(costs):
    assert non_dominated(costs).tolist() == brute_force(costs)


@LAW
@given(cost_arrays(), st.integers(1, 5))
def test_hypervolume_counts_the_covered_cells(costs, side):
    reference = np.full(costs.shape[1], side)
    assert hypervolume(costs, reference.astype(float)) == pytest.approx(covered_cells(costs, reference), abs=1e-9)


@LAW
@given(cost_arrays(), st.randoms(use_true_random=False))
def test_order_does_not_matter(costs, random):
    evaluations = [
        Evaluation(arch, {}, tuple(row), float(i % 3 == 2), "verified")
        for i, (arch, row) in enumerate(zip(ARCHS, costs.tolist(), strict=False))
    ]
    shuffled = random.sample(evaluations, len(evaluations))
    assert front(evaluations) == front(shuffled)
    order = [evaluations.index(e) for e in shuffled]
    reference = np.full(costs.shape[1], 3.0)
    assert hypervolume(costs[order], reference) == pytest.approx(hypervolume(costs, reference))


@LAW
@given(cost_arrays(), cost_arrays())
def test_shares_of_a_shared_box_lie_between_0_and_1(first, second):
    m = min(first.shape[1], second.shape[1])
    groups = [first[:, :m], second[:, :m]]
    ideal, reference = shared_box(groups)
    assert (ideal < reference).all()
    both = relative_hypervolume(np.concatenate(groups), ideal, reference)
    for group in groups:
        assert 0 <= relative_hypervolume(group, ideal, reference) <= both + 1e-12
    assert 0 < both <= 1 + 1e-12


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_hypervolume_of_a_unit_staircase(n):
    steps = np.array([[i, n - 1 - i] for i in range(n)], dtype=float)
    assert hypervolume(steps, np.array([n, n], dtype=float)) == n * (n + 1) / 2


@LAW
@given(cost_arrays())
def test_ranks_peel_one_front_after_the_other(costs):
    expected, left = np.full(len(costs), -1), list(range(len(costs)))
    for rank in range(len(costs)):
        best = [i for i in left if not any(dominates(costs[j], costs[i]) for j in left)]
        expected[best] = rank
        left = [i for i in left if i not in best]
    assert ranks(costs).tolist() == expected.tolist()
    assert ranks(costs[:0]).shape == (0,)
