"""By how much a search did better than a baseline of as many evaluations, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.objectives import Evaluation
from nas.pareto import relative_hypervolume, shared_box

_RESAMPLES = 500
_RELABELLED = 1000
_SHARE = 0.95
SURE = 0.025
"""The chance below which an advantage is no chance."""


@dataclass(frozen=True)
class Advantage:
    """The ratio of two hypervolumes.

    Args:
        low, high: its 95 % bootstrap interval; it describes how much hangs on single evaluations, and is too narrow
            for a test, since a maximum is.
        chance: of a ratio as high, had search and baseline drawn from the same architectures.
    """

    ratio: float
    low: float
    high: float
    chance: float

    def plain(self) -> dict[str, Any]:
        """As JSON, which has no infinity: None where the interval has no end, since the baseline has nearly nothing."""
        ends = [end if math.isfinite(end) else None for end in (self.low, self.high)]
        return {"ratio": self.ratio, "interval": ends, "chance": self.chance}


def advantage(found: np.ndarray, baseline: np.ndarray, seed: int = 0, others: Sequence[np.ndarray] = ()) -> Advantage:
    """Compares the costs (n, m) of a search with those (k, m) of a baseline, in a common box.

    The interval draws evaluations of both with replacement 500 times (Efron and Tibshirani, "An introduction to the
    bootstrap", 1993, section 13.3).  A draw often misses the one best evaluation, which matters more to one side than
    to the other: the ratios are therefore scaled so that their median is the ratio seen.  The chance is that of a
    permutation test with 1,000 relabellings (chapter 15).

    Args:
        found, baseline: infinite costs stand for evaluations that break a bound.
        others: costs that the box covers as well.

    Raises:
        ValueError: either has no finite costs.
    """
    some = [_finite(costs) for costs in (found, baseline)]
    if not all(map(len, some)):
        raise ValueError(f"expected costs of both, got {len(some[0])} and {len(some[1])}")
    ideal, reference = shared_box([*some, *map(_finite, others)])
    rng = np.random.default_rng(seed)

    def ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
        volume, other = (relative_hypervolume(_finite(c), ideal, reference) for c in (ours, theirs))
        return volume / other if other > 0 else np.inf if volume > 0 else 1.0

    def drawn(costs: np.ndarray) -> np.ndarray:
        return costs[rng.integers(len(costs), size=len(costs))]

    seen = ratio(found, baseline)
    ratios = [ratio(drawn(found), drawn(baseline)) for _ in range(_RESAMPLES)]
    low, middle, high = np.quantile(ratios, [(1 - _SHARE) / 2, 0.5, (1 + _SHARE) / 2], method="nearest")
    if 0 < middle < np.inf:
        low, high = low * seen / middle, high * seen / middle
    both = np.concatenate([found, baseline])
    orders = (rng.permutation(len(both)) for _ in range(_RELABELLED))
    as_high = sum(ratio(both[order[: len(found)]], both[order[len(found) :]]) >= seen for order in orders)
    return Advantage(float(seen), float(low), float(high), (1 + as_high) / (1 + _RELABELLED))


def _finite(costs: np.ndarray) -> np.ndarray:
    return costs[np.isfinite(costs).all(axis=1)]


def advantages(groups: Mapping[str, Sequence[Evaluation]]) -> dict[str, dict[str, Any]]:
    """Of the group `search` over each other group, as JSON; of those that have feasible evaluations.

    All in one box, that of `hypervolumes`.
    """
    costs = {
        name: np.array([e.costs if e.violation == 0 else (np.inf,) * len(e.costs) for e in found])
        for name, found in groups.items()
        if any(e.violation == 0 for e in found)
    }
    if "search" not in costs:
        return {}
    every = list(costs.values())
    return {
        name: advantage(costs["search"], own, others=every).plain() for name, own in costs.items() if name != "search"
    }
