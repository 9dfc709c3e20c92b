"""Which architectures fail, such as all that are too large for a memory, learnt so that they are no more asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from nas.objectives import Evaluation
from nas.searchers.protocol import CostModel
from predictors.option_features import option_features
from search_spaces.space import INDEX, SearchSpace

_LIKELY = 0.5  # chance of success, below which an architecture counts as infeasible
_LAST = 5  # outcomes: the more of them are failures, the more of a chance is asked for


class Failures:
    """Remembers what was asked and never told, and what was told.

    Logistic regression on the options gives the chance of an architecture to succeed: a constraint of which only the
    sign is seen, as in Gelbart et al., arXiv:1403.5607.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._open: dict[tuple[int, ...], None] = {}  # asked since the last tell, in order
        self._succeeded: dict[tuple[int, ...], bool] = {}

    def asked(self, rows: Iterable[Sequence[int]]) -> None:
        """Takes what is asked for."""
        self._open.update(dict.fromkeys(map(tuple, rows)))

    def told(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes what succeeded; everything else that was asked for since the last time has failed."""
        self._succeeded.update(dict.fromkeys(self._open, False))
        self._open.clear()
        self._succeeded.update(dict.fromkeys((e.arch.indices for e in evaluations), True))

    def avoided(self, model: CostModel) -> CostModel:
        """`model`, with a violation added where an architecture probably fails; itself where none, or all, failed."""
        outcomes = np.array(list(self._succeeded.values()), dtype=bool)
        if outcomes.all() or not outcomes.any():
            return model
        rows, features = np.array(list(self._succeeded), dtype=INDEX), option_features(self._space)
        with threadpool_limits(1, user_api="blas"):
            chance = LogisticRegression().fit(features(rows), outcomes)
            least = 1 - _LIKELY * outcomes[-_LAST:].mean()
            # Where failures are mere chance, no architecture is sure.
            least = min(least, float(np.median(chance.predict_proba(features(rows[outcomes]))[:, 1])))

        def guarded(population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            costs, violations = model(population)
            with threadpool_limits(1, user_api="blas"):
                likely = chance.predict_proba(features(population))[:, 1]
            return costs, violations + np.where(likely < least, 1 + least - likely, 0.0)

        return guarded
