"""Quantized accuracy from many values in full precision and few of quantized networks: a process around a drop.

What networks in full precision reach is learnt first; what quantized ones lose against that is a sum over blocks that
never shrinks as bits fall (`predictors/drop.py`); and one Gaussian process over all choices, the policy's among them,
learns whatever is left of both.  The drop is an explicit mean function (Rasmussen and Williams, 2006, section 2.7): its
form is what few quantized values cannot show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictors.categorical_gp import CategoricalGP, fit_categorical_gp
from predictors.drop import Drop, Policies, fit_drop, no_drop
from predictors.protocol import Prediction
from predictors.training import training_order
from search_spaces.space import SearchSpace

_LEAST = 2  # values in full precision that a process is fitted to


@dataclass(frozen=True, eq=False)
class AroundDrop:
    """A process of what a drop leaves over."""

    process: CategoricalGP
    drop: Drop

    def predict(self, population: np.ndarray, extra: np.ndarray | None = None) -> Prediction:
        """The metric of each row of a canonical population (n, d), with the extra columns (n, s) of the fit if any."""
        found = self.process.predict(population, extra)
        return Prediction(found.mean + self.drop(population), found.std)

    def predict_off(self, population: np.ndarray, deviations: float, extra: np.ndarray | None = None) -> np.ndarray:
        """The means (n,) moved by so many deviations of the process, noise left out (confidence bounds)."""
        return self.process.predict_off(population, deviations, extra) + self.drop(population)


def fit_around_drop(
    space: SearchSpace,
    columns: Sequence[int],
    population: np.ndarray,
    targets: np.ndarray,
    extra: np.ndarray | None = None,
) -> AroundDrop:
    """Fits `targets` (n,) of a canonical population (n, d) of architectures and policies; two processes, O(n³).

    Rows in full precision tell what the others would reach without their policies; with fewer than two of them there
    is no drop, and the process is alone.

    Args:
        columns: the choices of policies, with options from few bits to many.
        targets: worse the larger they are, in a unit in which damages add up: logits of error rates.
        extra: more numbers about each row (n, s) that do not depend on its policy, such as its MACs.

    Raises:
        ValueError: as `fit_categorical_gp` and `Policies`.
    """
    policies = Policies(space, tuple(columns))
    training_order(population, targets)  # refuses what cannot be fitted
    rows, y = np.asarray(population), np.asarray(targets, dtype=float)
    more = np.zeros((len(rows), 0)) if extra is None else np.asarray(extra, dtype=float)
    if more.ndim != 2 or len(more) != len(rows):
        raise ValueError(f"extra columns belong to {len(rows)} architectures, got an array of {more.shape}")
    lowered = policies.lowered(rows).any(axis=1)
    drop = no_drop(policies)
    if lowered.any() and (~lowered).sum() >= _LEAST:
        whole = fit_categorical_gp(space, rows[~lowered], y[~lowered], more[~lowered])
        kept = whole.predict_mean(policies.plain(rows[lowered]), more[lowered])
        drop = fit_drop(policies, rows[lowered], y[lowered] - kept)
    return AroundDrop(fit_categorical_gp(space, rows, y - drop(rows), extra), drop)
