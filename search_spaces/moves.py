"""Vectorised moves over populations: mutation, crossover, neighbours.

Every move takes canonical rows and returns new canonical rows; its arguments are left as they were.  Where
architectures are equivalent, a row may move to one that the same row stands for, and so stay as it is.
"""

from __future__ import annotations

import numpy as np

from search_spaces.space import INDEX, Architecture, SearchSpace


def mutate(space: SearchSpace, population: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Each *active* choice of each row (n, d) changes with probability `rate` to another of its options.

    A choice with a single option never changes.  Choices that a mutation wakes up are drawn afresh.

    Raises:
        ValueError: `rate` outside 0 to 1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a mutation rate lies between 0 and 1, got {rate}")
    rows = np.array(population, dtype=INDEX, order="F")
    before = space.active(rows)
    hit = (rng.random(rows.shape) < rate) & before
    return _moved(space, rows, before, hit, rng)


def mutate_one(space: SearchSpace, population: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One active choice of each row (n, d) changes to another of its options, all choices and options alike.

    Choices that the mutation wakes up are drawn afresh.  A row whose active choices have a single option each
    stays as it is.
    """
    rows = np.array(population, dtype=INDEX, order="F")
    before = space.active(rows)
    lots = rng.random(rows.shape) * (before & (space.cardinalities > 1))
    hit = (lots == lots.max(axis=1, keepdims=True)) & (lots > 0)
    return _moved(space, rows, before, hit, rng)


def _moved(
    space: SearchSpace, rows: np.ndarray, before: np.ndarray, hit: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`rows` with the choices that are `hit` at another option; all masks (n, d), `before` the active choices."""
    # Adding 1..k-1 modulo k reaches every other option with equal chance.
    step = 1 + (rng.random(rows.shape) * np.maximum(space.cardinalities - 1, 1)).astype(INDEX)
    moved = ((rows + step) % space.cardinalities).astype(INDEX)
    fresh = space._draw(len(rows), rng)
    rows = np.where(hit, moved, np.where(before, rows, fresh))
    return space._canonical_(np.asfortranarray(rows))


def crossover(space: SearchSpace, mothers: np.ndarray, fathers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform crossover: each choice of each child (n, d) comes from either parent with equal chance.

    A choice that is active in only one of the parents comes from that parent; one that is active in the child
    but was in neither parent is drawn afresh.

    Raises:
        ValueError: populations of different shapes.
    """
    if mothers.shape != fathers.shape:
        raise ValueError(f"each mother needs one father, got shapes {mothers.shape} and {fathers.shape}")
    in_mother, in_father = space.active(mothers), space.active(fathers)
    from_mother = (rng.random(mothers.shape) < 0.5) & in_mother | ~in_father
    child = np.where(from_mother, mothers, fathers)
    rows = np.where(in_mother | in_father, child, space._draw(len(child), rng))
    return space._canonical_(np.array(rows, dtype=INDEX, order="F"))


def neighbours(arch: Architecture) -> np.ndarray:
    """Every architecture that differs from `arch` in one active choice (n, d), in the order of rows.

    Choices that the change wakes up stand at their first option.
    """
    space = arch.space
    row = np.array(arch.indices, dtype=INDEX)
    active = space.active(row[None])[0]
    changes = [(j, i) for j in np.flatnonzero(active) for i in range(space.cardinalities[j]) if i != row[j]]
    rows = np.repeat(row[None], len(changes), axis=0)
    for position, (j, i) in enumerate(changes):
        rows[position, j] = i
    if not changes:
        return rows.reshape(0, len(space))
    found = np.unique(space.canonical(rows), axis=0)
    return found[(found != row).any(axis=1)]  # but for changes to an equivalent one
