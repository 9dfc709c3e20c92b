"""A flat space and evaluations whose best architectures are known."""

from nas.objectives import Bound, Problem, minimize
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("bowl", [Choice(f"c{j}", (0, 1, 2, 3)) for j in range(4)])
TARGET = (3, 0, 2, 1)


def distance(row, target=TARGET):
    return float(sum(abs(a - b) for a, b in zip(row, target, strict=True)))


def evaluate(rows, objectives=1, bounds=()):
    """Costs: the distance from the target, and from the largest architecture."""
    problem = Problem(tuple(minimize(f"m{k}") for k in range(objectives)), tuple(Bound("m0", b) for b in bounds))
    return [
        problem.evaluation(
            Architecture(SPACE, tuple(row)), {"m0": distance(row), "m1": distance(row, (3, 3, 3, 3))}, "verified"
        )
        for row in rows.tolist()
    ]


def tuples(rows):
    return list(map(tuple, rows.tolist()))
