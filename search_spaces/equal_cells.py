"""Which cells of NAS-Bench-201 are the same function: 5,260 of the 15,625 remain.

A cell's output is a sum of terms: its input, a pool of a sum, or a convolution of a sum.  `none` adds no term, and so
does an operation on a sum without terms; `skip_connect` adds the terms of its source.  Two cells are equal where their
sums are, up to the order of terms and the names of the convolutions' weights: x + x is not x, and two convolutions of
one input are not one that is used twice.

The paper counts 6,466 (Dong and Yang, arXiv:2001.00326, section 2.1), by texts built in the same way, which differ in
three points.  Zeros stay in a node's text as they are counted, and a node of two zeros counts as one that is not zero
(without that, 5,390); what `skip_connect` hands on is not sorted in with its neighbours (then 4,930); and convolutions
of the same kind with the same input are taken for one, though they have weights of their own (apart, 5,260).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")  # from the cheapest
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to), in the order of the table's strings
_NONE, _SKIP, _POOL = range(3)  # indices into `OPERATIONS`

_Term = tuple  # (operation, edge of its weights or -1, the terms it is applied to)
_INPUT: _Term = (-1, -1, ())


def representatives(rows: np.ndarray) -> np.ndarray:
    """The cells (n, 6), as indices into `OPERATIONS`, that stand for given ones: of equal ones, with the fewest edges.

    None of them has a dead edge, whose input is zero or whose output is not used: without it, there is one less.
    """
    return _table()[rows @ _places()]


def _places() -> np.ndarray:
    return len(OPERATIONS) ** np.arange(len(EDGES))[::-1]


@functools.cache
def _table() -> np.ndarray:
    """The representative (15625, 6) of every cell, in the order of rows."""
    cells = list(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES)))
    outputs = [_output(cell) for cell in cells]
    known = {output: _form(output) for output in set(outputs)}
    forms = [known[output] for output in outputs]
    best: dict[_Term, tuple[int, ...]] = {}
    for form, cell in sorted(zip(forms, cells, strict=True), key=lambda pair: (_edges(pair[1]), pair[1])):
        best.setdefault(form, cell)
    table = np.array([best[form] for form in forms], dtype=np.int16)
    table.setflags(write=False)
    return table


def _edges(cell: tuple[int, ...]) -> int:
    return sum(operation != _NONE for operation in cell)


def _output(cell: tuple[int, ...]) -> tuple[_Term, ...]:
    """The terms of the last node."""
    nodes: list[tuple[_Term, ...]] = [(_INPUT,), (), (), ()]
    for edge, ((source, target), operation) in enumerate(zip(EDGES, cell, strict=True)):
        terms = nodes[source]
        if operation == _SKIP:
            nodes[target] += terms
        elif operation != _NONE and terms:
            nodes[target] += ((operation, -1 if operation == _POOL else edge, terms),)
    return nodes[3]


def _form(terms: tuple[_Term, ...]) -> tuple[_Term, ...]:
    """The same for equal sums: the first of all ways to number the weights of convolutions that are alike."""
    alike: dict[_Term, set[int]] = {}  # what is computed, to the edges that compute it
    left = list(terms)
    while left:
        kind, edge, inner = left.pop()
        left += inner
        if edge >= 0:
            alike.setdefault((kind, _shape(inner)), set()).add(edge)
    groups = [edges for _, edges in sorted(alike.items()) if len(edges) > 1]
    if not groups:
        return _shape(terms)
    orders = itertools.product(*map(itertools.permutations, groups))
    return min(_numbered(terms, {e: i for i, e in enumerate(itertools.chain(*order))}) for order in orders)


def _numbered(terms: tuple[_Term, ...], numbers: Mapping[int, int]) -> tuple[_Term, ...]:
    """The terms in order, each edge by its number, or -1 where it has none."""
    return tuple(sorted((kind, numbers.get(edge, -1), _numbered(inner, numbers)) for kind, edge, inner in terms))


@functools.cache
def _shape(terms: tuple[_Term, ...]) -> tuple[_Term, ...]:
    return tuple(sorted((kind, -1, _shape(inner)) for kind, _, inner in terms))
