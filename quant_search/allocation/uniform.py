"""The same option in every layer: what an allocation has to beat."""

from __future__ import annotations

from quant_search.allocation.problem import Allocation, Problem


def choices(problem: Problem) -> dict[str, list[int]]:
    """Option to its place in each layer, for options that all layers have; a layer with one option keeps that."""
    free = [options for options in problem.options if len(options) > 1] or list(problem.options)
    shared = [name for name in free[0] if all(name in options for options in free)]
    return {name: [options.index(name) if name in options else 0 for options in problem.options] for name in shared}


def solve(problem: Problem) -> Allocation | None:
    """The best option for all layers that keeps the budgets; None where none does."""
    fitting = [choice for choice in choices(problem).values() if problem.fits(choice)]
    return problem.allocation(min(fitting, key=problem.objective.total)) if fitting else None
