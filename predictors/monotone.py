"""From scores that only order architectures to values of the metric."""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression

from predictors.warp import Warp


def fit_monotone(scores: np.ndarray, values: np.ndarray) -> Warp:
    """The increasing map from scores (n,) to values (n,) of least squares, made strict; O(n log n).

    Isotonic regression has plateaus, on which the order of the scores would be lost: the map goes in straight lines
    from the middle of one plateau to the next.  A single plateau gets a slope too small to matter.
    """
    order = np.argsort(scores, kind="stable")
    level = IsotonicRegression().fit(scores[order], values[order]).predict(scores[order])
    starts = np.flatnonzero(np.diff(level, prepend=-np.inf) > 1e-9 * (np.ptp(values) + 1e-300))
    middles = np.add.reduceat(scores[order], starts) / np.diff(starts, append=len(level))
    if len(starts) > 1:
        return Warp(level[starts], middles)
    reach = max(float(np.std(scores)), 1e-6)
    slight = 1e-3 * max(float(np.std(values)), 1e-9 * abs(float(level[0])), 1e-12)
    return Warp(level[0] + np.array([-slight, slight]), middles[0] + np.array([-reach, reach]))
