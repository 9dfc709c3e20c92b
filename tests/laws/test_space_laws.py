"""Laws of spaces, moves and encodings: over small random spaces, and over every ready-made one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.catalog import SPACES
from search_spaces.encoding import one_hot, ordinal
from search_spaces.moves import crossover, mutate, mutate_one, neighbours
from search_spaces.network import find_space
from search_spaces.space import Equivalence, SearchSpace
from search_spaces.value import Choice, Condition
from tests.laws.entries import EVERY

LAW = settings(max_examples=80, deadline=None, derandomize=True, database=None)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", params=EVERY, ids="-".join)
def space(request):
    name, preset = request.param
    entry = SPACES[name]
    with torch.device("meta"):
        return find_space(entry.build(entry.presets[preset][0], 3, 10, preset))


@st.composite
def spaces(draw, most=6):
    """Spaces small enough to walk, with nested and overlapping conditions, also on first options."""
    choices = []
    for j in range(draw(st.integers(1, most))):
        clauses = []
        for _ in range(draw(st.integers(0, 3)) if j else 0):
            parents = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=3))
            subsets = [draw(st.sets(st.sampled_from(parent.options), min_size=1)) for parent in parents]
            clauses.append(tuple(Condition(p.name, tuple(s)) for p, s in zip(parents, subsets, strict=True)))
        choices.append(Choice(f"c{j}", tuple(range(10, 10 + draw(st.integers(1, 3)))), tuple(clauses)))
    return SearchSpace("random", choices)


def in_order(rows):
    """Rows are the same network where they have the same options, in whatever order, or any first option."""
    return np.sort(rows, axis=1) * (rows.min(axis=1, keepdims=True) > 0)


@st.composite
def merging_spaces(draw):
    """Spaces in which several rows of some choices are the same network, and other choices depend on them."""
    options = draw(st.integers(2, 3))
    free = [Choice(f"a{j}", tuple(range(options))) for j in range(draw(st.integers(2, 3)))]
    others = []
    for j in range(draw(st.integers(0, 3))):
        parents = draw(st.lists(st.sampled_from([*free, *others]), max_size=2, unique=True))
        clause = tuple(Condition(p.name, tuple(draw(st.sets(st.sampled_from(p.options), min_size=1)))) for p in parents)
        others.append(Choice(f"b{j}", (1, 2), (clause,) if clause else ()))
    choices = [*free, *others] if draw(st.booleans()) else [free[0], Choice("between", (0, 1)), *free[1:], *others]
    return SearchSpace("merging", choices, Equivalence(tuple(c.name for c in free), in_order))


def is_active(choice, values):
    """The slow twin: whether a choice matters, given the values of the active choices before it."""
    return not choice.when or any(all(values.get(c.choice) in c.options for c in clause) for clause in choice.when)


def every_architecture(space):
    """The slow twin of `enumerate`: all rows, each made canonical by hand."""
    found = set()
    for options in itertools.product(*(choice.options for choice in space.choices)):
        values = {}
        for choice, option in zip(space.choices, options, strict=True):
            if is_active(choice, values):
                values[choice.name] = option
        found.add(tuple(c.index(values[c.name]) if c.name in values else 0 for c in space.choices))
    return found


# -- over random spaces ------------------------------------------------------------------------------


@LAW
@given(spaces())
def test_enumeration_is_complete_without_duplicates_and_counted(space):
    rows = [arch.indices for arch in space.enumerate()]
    assert rows == sorted(every_architecture(space))
    assert space.size == len(rows)


@LAW
@given(spaces())
def test_active_choices_are_those_whose_conditions_hold(space):
    for arch in space.enumerate():
        values = {}
        for choice in space.choices:
            if is_active(choice, values):
                values[choice.name] = arch[choice.name]
        assert arch.values == values
        assert space.architecture(values) == arch


@LAW
@given(spaces(), SEEDS)
def test_canonical_rows_are_the_points_of_the_space(space, seed):
    rows = np.random.default_rng(seed).integers(space.cardinalities, size=(50, len(space)))
    canonical = space.canonical(rows)
    assert {tuple(row) for row in canonical.tolist()} <= every_architecture(space)
    assert np.array_equal(space.canonical(canonical), canonical)
    active = space.active(canonical)
    assert np.array_equal(canonical, rows * active)


@LAW
@given(spaces(), SEEDS, st.floats(0, 1))
def test_moves_of_random_spaces_return_points(space, seed, rate):
    check_moves(space, 40, seed, rate)


@LAW
@given(spaces(most=4))
def test_features_of_random_spaces_tell_all_architectures_apart(space):
    population = np.array([arch.indices for arch in space.enumerate()])
    for features in (one_hot(space, population), ordinal(space, population)):
        assert len(np.unique(features, axis=0)) == space.size
    check_features(space, population)


@LAW
@given(spaces())
def test_neighbours_are_one_active_choice_apart(space):
    points = every_architecture(space)
    for arch in itertools.islice(space.enumerate(), 10):
        found = {tuple(row) for row in neighbours(arch).tolist()}
        assert len(found) == len(neighbours(arch)) and found <= points - {arch.indices}
        assert len(found) == sum(len(c.options) - 1 for c in space.choices if c.name in arch.values)


@LAW
@given(merging_spaces(), SEEDS)
def test_equivalent_architectures_are_one(space, seed):
    plain = SearchSpace(space.name, space.choices)
    every = np.array(list(itertools.product(*(range(k) for k in space.cardinalities))))
    merged = [space.choices.index(c) for c in space.choices if c.name in space.equivalence.choices]
    by_hand = every.copy()
    by_hand[:, merged] = [sorted(row) if min(row) else [0] * len(row) for row in every[:, merged].tolist()]
    assert np.array_equal(space.canonical(every), plain.canonical(by_hand))
    rows = [arch.indices for arch in space.enumerate()]
    assert rows == sorted({tuple(row) for row in plain.canonical(by_hand).tolist()})
    assert space.size == len(rows)
    for arch in itertools.islice(space.enumerate(), 5):
        found = [tuple(row) for row in neighbours(arch).tolist()]
        assert len(set(found)) == len(found) and set(found) <= set(rows) - {arch.indices}
        assert space.architecture(arch.values) == arch
    check_moves(space, 40, seed, 0.5)
    check_features(space, np.array(rows))
    corners = space.smallest(), space.scaled(0.5), space.largest()
    assert all(arch.indices in set(rows) for arch in corners)


# -- over ready-made spaces --------------------------------------------------------------------------


def thinned(space, seed):
    """`space` with one random option of each choice but for those depended on and two others."""
    parents = {c.choice for choice in space.choices for clause in choice.when for c in clause}
    rng = np.random.default_rng(seed)
    free = [choice.name for choice in space.choices if choice.name not in parents]
    kept = parents | set(rng.choice(free, size=min(2, len(free)), replace=False))
    choices = [
        choice
        if choice.name in kept
        else Choice(choice.name, (choice.options[rng.integers(len(choice.options))],), choice.when)
        for choice in space.choices
    ]
    return SearchSpace(space.name, choices)


@pytest.mark.parametrize("seed", range(3))
def test_a_thinned_space_is_enumerated_and_counted(space, seed):
    small = thinned(space, seed)
    rows = [arch.indices for arch in small.enumerate()]
    assert rows == sorted(set(rows)) and len(rows) == small.size
    assert np.array_equal(small.canonical(rows), rows)


def test_architectures_are_made_again_from_their_values(space):
    for row in space.sample(30, np.random.default_rng(0)):
        arch = space.row(row)
        assert arch.indices == tuple(row)
        assert space.architecture(arch.values) == arch == space.architecture(arch.assignment)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_moves_return_points(space, rate):
    check_moves(space, 200, seed=0, rate=rate)
    arch = space.row(space.sample(1, np.random.default_rng(0))[0])
    found = neighbours(arch)
    assert np.array_equal(space.canonical(found), found)


def test_features_are_equal_where_architectures_are(space):
    check_features(space, space.sample(200, np.random.default_rng(0)))


def check_moves(space, n, seed, rate):
    rng = np.random.default_rng(seed)
    mothers, fathers = space.sample(n, rng), space.sample(n, rng)
    before = mothers.copy(), fathers.copy()
    mutated, child = mutate(space, mothers, rate, rng), crossover(space, mothers, fathers, rng)
    assert np.array_equal(mothers, before[0]) and np.array_equal(fathers, before[1])
    for rows in (mutated, child, mutate_one(space, mothers, rng)):
        assert rows.shape == mothers.shape and rows.dtype == mothers.dtype
        assert not np.shares_memory(rows, mothers) and not np.shares_memory(rows, fathers)
        assert np.array_equal(space.canonical(rows), rows)
    if space.equivalence:  # a child may stand for another one
        return
    # A child's choice that was active in a parent has the option of such a parent.
    from_mother = (child == mothers) & space.active(mothers)
    from_father = (child == fathers) & space.active(fathers)
    known = space.active(child) & (space.active(mothers) | space.active(fathers))
    assert (from_mother | from_father)[known].all()


def check_features(space, population):
    active = space.active(population)
    ones, scaled = one_hot(space, population), ordinal(space, population)
    again = space.canonical(population.tolist())
    assert np.array_equal(one_hot(space, again), ones) and np.array_equal(ordinal(space, again), scaled)
    blocks = np.split(ones, np.cumsum(space.cardinalities)[:-1], axis=1)
    for j, block in enumerate(blocks):
        assert np.array_equal(block.sum(axis=1), active[:, j])
        assert np.array_equal(block.argmax(axis=1)[active[:, j]], population[active[:, j], j])
    assert np.array_equal(scaled > 0, active) and scaled.max() <= 1
