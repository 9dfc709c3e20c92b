"""A cost table fitted to measured or predicted latencies of whole architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import nnls

from search_spaces.space import SearchSpace
from supernet.relaxed.cost_table import CostTable, group_costs

_HELD_OUT = 0.2  # share of the architectures on which the error is taken
_RIDGE = 1e-6  # of the mean square: which of several tables that fit alike
_FINER = (4, 8, 16)  # pairs of choices that are tried besides single ones
_GAIN = 0.9  # of the error, to which it must fall for more pairs


def fit_table(
    space: SearchSpace,
    population: np.ndarray,
    latencies: np.ndarray,
    groups: Sequence[tuple[str, ...]] | None = None,
    seed: int = 0,
) -> CostTable:
    """Fit a table to the latencies (n,) in seconds of a canonical population (n, d), which are positive.

    Least squares of relative errors with no cost below 0 (Lawson and Hanson), since no option takes time away.
    `error` of the table is the mean relative one on a fifth of the architectures, by a fit to the others.

    Args:
        groups: choices with a table of their own for all their options together; each choice by itself by default.

    Raises:
        ValueError: latencies of another number, or not positive, fewer than ten, or a group with unknown choices.
    """
    latencies = np.asarray(latencies, float)
    if latencies.shape != (len(population),) or len(latencies) < 10 or not (latencies > 0).all():
        raise ValueError(
            f"a table is fitted to at least 10 positive latencies, one an architecture; got {latencies.shape} "
            f"for {len(population)} architectures"
        )
    names = [(choice.name,) for choice in space.choices] if groups is None else list(groups)
    features = _features(space, population, names)
    order = np.random.default_rng(seed).permutation(len(latencies))
    held, rest = np.split(order, [round(_HELD_OUT * len(order))])
    predicted = features[held] @ _solve(features[rest], latencies[rest])
    error = float(np.abs(predicted / latencies[held] - 1).mean())
    return replace(_table(space, names, _solve(features, latencies)), error=error)


def fit_paired_table(
    space: SearchSpace,
    population: np.ndarray,
    latencies: np.ndarray,
    pairs: Sequence[tuple[str, str]],
    seed: int = 0,
) -> CostTable:
    """As `fit_table`, with tables for those of `pairs` of choices whose options add other times together than apart.

    Pairs are ranked by what they explain of the errors of the table of single choices. The first 4, 8 and 16 are
    tried, and kept for as long as the error falls by a tenth each time.

    Raises:
        ValueError: as of `fit_table`.
    """
    single = [(choice.name,) for choice in space.choices]
    best = fit_table(space, population, latencies, single, seed)
    left = best.costs(space, population) / np.asarray(latencies, float) - 1
    explained = {pair: _explained(space, population, pair, left) for pair in pairs}
    ranked = sorted(pairs, key=lambda pair: -explained[pair])
    for n in (n for n in _FINER if n <= len(ranked) or n == _FINER[0]):
        finer = fit_table(space, population, latencies, [*single, *ranked[:n]], seed)
        if not ranked or (finer.error or 0.0) >= _GAIN * (best.error or 0.0):
            break
        best = finer
    return best


def _explained(space: SearchSpace, population: np.ndarray, pair: tuple[str, str], errors: np.ndarray) -> float:
    """The share of squared errors (n,) that the means over the options of two choices explain beyond chance."""
    columns = [j for j, choice in enumerate(space.choices) if choice.name in pair]
    on = space.active(population)[:, columns].all(1)
    cells = np.ravel_multi_index(tuple(population[:, columns].T.astype(int)), tuple(space.cardinalities[columns]))
    counts, sums = (np.bincount(cells[on], w) for w in (None, errors[on]))
    between = float((np.square(sums) / np.maximum(counts, 1)).sum())
    return between - np.count_nonzero(counts) * float(np.square(errors).mean())


def _empty(space: SearchSpace, names: Sequence[tuple[str, ...]]) -> CostTable:
    """The table of these groups that is 0 everywhere."""
    sizes = {choice.name: len(choice.options) for choice in space.choices}
    return CostTable(0.0, {group: np.zeros([sizes.get(name, 1) for name in group]) for group in names})


def _features(space: SearchSpace, population: np.ndarray, names: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Which entries of the tables each architecture adds up (n, 1 + entries), the base first."""
    active = space.active(population)
    columns = [np.ones((len(population), 1))]
    for group, table in _empty(space, names).groups(space):
        entry = np.arange(table.size).reshape(table.shape) + 1
        taken = group_costs(entry, group, population, active)  # 0 where the group is not there
        columns.append(taken[:, None] == np.arange(1, table.size + 1))
    return np.concatenate(columns, axis=1).astype(float)


def _solve(features: np.ndarray, latencies: np.ndarray) -> np.ndarray:
    """Entries (f,), none below 0, with the least squares of relative errors."""
    scaled = features / latencies[:, None]
    size = scaled.shape[1]
    ridge = np.sqrt(_RIDGE * np.square(scaled).sum() / size) * np.eye(size)
    entries, _ = nnls(np.vstack([scaled, ridge]), np.concatenate([np.ones(len(latencies)), np.zeros(size)]))
    return np.asarray(entries)


def _table(space: SearchSpace, names: Sequence[tuple[str, ...]], entries: np.ndarray) -> CostTable:
    tables, start = {}, 1
    for group, table in _empty(space, names).tables.items():
        tables[group] = entries[start : start + table.size].reshape(table.shape)
        start += table.size
    return CostTable(float(entries[0]), tables)
