"""One after the other: what each stage may change."""

import numpy as np

from experiments.joint.staged import Staged, in_sequence
from nas.objectives import Problem, maximize, minimize
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2))
BLOCKS = ("a", "b")
SPACE = SearchSpace(
    "toy",
    [
        DEPTH,
        *(Choice(f"{b}.width", (1, 2, 3, 4)) for b in BLOCKS),
        *(Choice(f"{b}.density", (0.5, 1.0), () if b == "a" else DEPTH.among(2)) for b in BLOCKS),
        *(Choice(f"{b}.precision", ("int8", "fp32"), () if b == "a" else DEPTH.among(2)) for b in BLOCKS),
    ],
)
PROBLEM = Problem((maximize("good"), minimize("cost")))


def evaluation(row):
    arch = SPACE.row(row)
    v = arch.values
    size = sum(v[f"{b}.width"] * v.get(f"{b}.density", 0) for b in BLOCKS)
    speed = sum(v.get(f"{b}.precision") == "int8" for b in BLOCKS)
    return PROBLEM.evaluation(arch, {"good": size - 0.01 * speed, "cost": size * (1 - 0.2 * speed)}, "verified")


def fit(_):
    return lambda rows: PROBLEM.costs(
        {name: np.array([evaluation(r).values[name] for r in rows]) for name in ("good", "cost")}
    )


def test_each_stage_changes_its_own_choices_and_goes_on_from_the_front():
    searcher = Staged(
        SPACE,
        in_sequence(12),
        fit,
        SPACE.largest(),
        np.array([SPACE.largest().indices]),
        SPACE.sample(4, np.random.default_rng(0)),
        0,
    )
    stages, told = [], []
    while len(rows := searcher.ask(3)):
        found = [evaluation(row) for row in rows.tolist()]
        searcher.tell(found)
        told += found
        stages.append(found)
    assert len(told) <= 12 and len({e.arch for e in told}) == len(told)
    kept = [
        [{n: v for n, v in e.arch.values.items() if n.endswith(end)} for e in told] for end in ("density", "precision")
    ]
    dense = [set(values.values()) == {1.0} for values in kept[0]]
    exact = [set(values.values()) == {"fp32"} for values in kept[1]]
    assert all(dense[:4]) and all(exact[:4])  # the architecture
    assert not all(dense[4:8]) and all(exact[4:8])  # then channels
    assert not all(exact[8:]) and len(told) > 8  # then precisions
    parents = {tuple(v for n, v in e.arch.assignment.items() if "density" not in n) for e in told[:4]}
    assert {tuple(v for n, v in e.arch.assignment.items() if "density" not in n) for e in told[4:8]} <= parents
