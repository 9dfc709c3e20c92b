"""Pareto fronts and hypervolume of cost arrays (n, m), lower is better; computed by moocore."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np

from nas.objectives import Evaluation, cost_array


def non_dominated(costs: np.ndarray) -> np.ndarray:
    """Which rows of `costs` (n, m) no other row dominates; of equal rows the first counts.  Bool (n,)."""
    if not len(costs):
        return np.zeros(0, dtype=bool)
    mask: np.ndarray = moocore.is_nondominated(np.asarray(costs, dtype=float))
    return mask


def ranks(costs: np.ndarray) -> np.ndarray:
    """The non-dominated sort of `costs` (n, m): the front (n,) each row is on, 0 the best; equal rows share theirs."""
    if not len(costs):
        return np.zeros(0, dtype=int)
    found: np.ndarray = moocore.pareto_rank(np.asarray(costs, dtype=float))
    return found


def front(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The feasible evaluations that no other feasible one dominates, by their last cost from low to high.

    Of equally good ones the first by architecture, so that the order of `evaluations` does not matter.
    """
    feasible = sorted((e for e in evaluations if e.violation == 0), key=lambda e: (e.costs[::-1], e.arch.indices))
    return [e for e, on in zip(feasible, non_dominated(cost_array(feasible)), strict=True) if on]


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """The volume dominated by `costs` (n, m) up to the reference point (m,); rows beyond it add nothing."""
    return float(moocore.hypervolume(np.asarray(costs, dtype=float), ref=reference)) if len(costs) else 0.0


def shared_box(groups: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The ideal and reference points (m,) for comparing several cost arrays fairly.

    The box of all their fronts together, its far corner moved out by a tenth, so that extreme points count.

    Raises:
        ValueError: no costs at all.
    """
    fronts = [g[non_dominated(g)] for g in groups if len(g)]
    if not fronts:
        raise ValueError("there are no costs to compare")
    points = np.concatenate(fronts)
    ideal, nadir = points.min(axis=0), points.max(axis=0)
    # Where all fronts have one value only, any width does that is seen beside the value itself.
    return ideal, nadir + 0.1 * np.maximum(nadir - ideal, 1e-9 * np.abs(nadir) + 1e-12)


def relative_hypervolume(costs: np.ndarray, ideal: np.ndarray, reference: np.ndarray) -> float:
    """The share of the box between `ideal` and `reference` that `costs` (n, m) dominate, 0 to 1."""
    return hypervolume(costs, reference) / float(np.prod(reference - ideal))
