"""By how much a search did better than a baseline of as many evaluations, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.pareto import relative_hypervolume, shared_box

_RESAMPLES = 500
_SHARE = 0.95


@dataclass(frozen=True)
class Advantage:
    """The ratio of two hypervolumes, and its 95 % bootstrap interval."""

    ratio: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the search is better even at the interval's lower end."""
        return self.low > 1

    def plain(self) -> dict[str, float | list[float]]:
        """As JSON."""
        return {"ratio": self.ratio, "interval": [self.low, self.high]}


def advantage(found: np.ndarray, baseline: np.ndarray, seed: int = 0) -> Advantage:
    """Compares the feasible costs (n, m) of a search with those (k, m) of a baseline, in their common box.

    Evaluations of both are drawn with replacement, as often as there are, 500 times (Efron and Tibshirani, "An
    introduction to the bootstrap", 1993, section 13.3).  A draw misses some of the best, of both alike.

    Raises:
        ValueError: either has no costs.
    """
    if not len(found) or not len(baseline):
        raise ValueError(f"expected costs of both, got {len(found)} and {len(baseline)}")
    ideal, reference = shared_box([found, baseline])
    rng = np.random.default_rng(seed)

    def drawn(costs: np.ndarray) -> float:
        return relative_hypervolume(costs[rng.integers(len(costs), size=len(costs))], ideal, reference)

    pairs = [(drawn(found), drawn(baseline)) for _ in range(_RESAMPLES)]
    ratios = [a / b for a, b in pairs if b > 0] or [np.inf]
    low, high = np.quantile(ratios, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
    whole = relative_hypervolume(baseline, ideal, reference)
    ratio = relative_hypervolume(found, ideal, reference) / whole if whole > 0 else np.inf
    return Advantage(float(ratio), float(low), float(high))


def advantages(costs: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Of the group `search` over each other group that has feasible costs too, as JSON."""
    if not len(costs.get("search", ())):
        return {}
    others = {name: own for name, own in costs.items() if name != "search" and len(own)}
    return {name: advantage(costs["search"], own).plain() for name, own in others.items()}
