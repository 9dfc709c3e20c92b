import itertools
import pickle

import numpy as np
import pytest

from search_spaces.cell import nas_bench_201
from search_spaces.equal_cells import EDGES, OPERATIONS, representatives
from search_spaces.network import find_blocks, find_space
from search_spaces.product import product, project
from search_spaces.value import Choice

CELLS = np.array(list(itertools.product(range(5), repeat=6)))
NONE, SKIP, POOL, SMALL, LARGE = range(5)


def published(cell):
    """The text by which the paper's code tells cells apart: its `to_unique_str`, zeros and skips considered."""
    nodes = ["0"]
    for target in (1, 2, 3):
        texts = []
        for (source, to), operation in zip(EDGES, cell, strict=True):
            if to == target:
                zero = operation == NONE or nodes[source] == "#"
                taken = nodes[source] if operation == SKIP else f"({nodes[source]})@{OPERATIONS[operation]}"
                texts.append("#" if zero else taken)
        nodes.append("+".join(sorted(texts)))
    return nodes[-1]


def terms(cell):
    """The slow twin: the output's terms, whatever the weights are called."""
    nodes = [("x",), (), (), ()]
    for (source, target), operation in zip(EDGES, cell, strict=True):
        inner = "+".join(sorted(nodes[source]))
        if operation == SKIP:
            nodes[target] += nodes[source]
        elif operation != NONE and inner:
            nodes[target] += (f"({inner})@{operation}",)
    return tuple(sorted(nodes[3]))


def test_cells_that_are_the_same_function_are_one():
    found = representatives(CELLS)
    assert np.array_equal(representatives(found), found)
    assert len(np.unique(found, axis=0)) == 5_260
    texts, forms = [published(cell) for cell in CELLS], [terms(cell) for cell in CELLS]
    assert len(set(texts)) == 6_466 and len(set(forms)) == 4_930
    assert all(terms(cell) == form for cell, form in zip(found, forms, strict=True))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((LARGE, NONE, NONE, NONE, NONE, LARGE), (NONE,) * 6),  # nothing arrives
        ((NONE, LARGE, POOL, NONE, LARGE, LARGE), (NONE, LARGE, NONE, NONE, NONE, LARGE)),  # from a zero
        ((LARGE, NONE, NONE, NONE, SKIP, NONE), (NONE, NONE, NONE, LARGE, NONE, NONE)),  # through a skip
        ((SKIP, NONE, SKIP, NONE, NONE, SKIP), (NONE, NONE, NONE, SKIP, NONE, NONE)),
    ],
)
def test_nothing_and_skips_are_simplified_away(cell, expected):
    assert tuple(representatives(np.array([cell]))[0]) == expected


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ((SKIP, NONE, NONE, SKIP, SKIP, NONE), (NONE, NONE, NONE, SKIP, NONE, NONE), False),  # x + x is not x
        ((SKIP, NONE, NONE, SKIP, SKIP, NONE), (NONE, SKIP, NONE, SKIP, NONE, SKIP), True),
        # a convolution used twice has half the weights of two
        ((LARGE, NONE, SKIP, NONE, SKIP, SKIP), (LARGE, LARGE, NONE, NONE, SKIP, SKIP), False),
        ((NONE, LARGE, NONE, SMALL, NONE, SKIP), (LARGE, NONE, NONE, SMALL, SKIP, NONE), True),  # renamed
        ((POOL, NONE, SKIP, NONE, SKIP, SKIP), (POOL, POOL, NONE, NONE, SKIP, SKIP), True),  # pools have no weights
    ],
)
def test_equal_cells(one, other, equal):
    rows = representatives(np.array([one, other]))
    assert np.array_equal(*rows) == equal


def test_the_space_its_product_and_their_copies_keep_to_it():
    space = find_space(nas_bench_201(8, 1, 10))
    assert space.size == 5_260
    joint = product(
        "joint", space, [Choice("stage1.precision", ("int8", "fp32"), space.choices[0].among(OPERATIONS[4]))]
    )
    rows = joint.sample(200, np.random.default_rng(0))
    assert np.array_equal(rows[:, :6], representatives(rows[:, :6]))
    assert project(joint.row(rows[0]), space).indices == tuple(rows[0, :6])
    with_choice = sum(row[0] == LARGE for row in np.unique(representatives(CELLS), axis=0))
    assert joint.size == 5_260 + with_choice
    again = pickle.loads(pickle.dumps(joint))  # noqa: S301
    assert again == joint and hash(again) == hash(joint) and again.equivalence == space.equivalence
    assert type(space)(space.name, space.choices) != space
    assert find_blocks(nas_bench_201(8, 1, 10))[1].weighted_when
