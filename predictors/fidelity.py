"""A metric that is dear to measure, predicted with the help of a cheaper one: few epochs first.

Two Gaussian processes, one on the cheap values and one on the full values with the first's prediction as a further
column: the autoregressive scheme of Kennedy and O'Hagan ("Predicting the output from a complex computer code when
fast approximations are available", 2000) in the recursive, nonlinear form of Perdikaris et al. ("Nonlinear information
fusion algorithms for data-efficient multi-fidelity modelling", 2017, equation 2.13).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.categorical_gp import CategoricalGP, fit_categorical_gp
from predictors.protocol import Prediction
from search_spaces.space import SearchSpace


@dataclass(frozen=True, eq=False)
class TwoFidelities:
    """A process of the cheap values, and one of the full values that sees its predictions."""

    cheap: CategoricalGP
    full: CategoricalGP

    def predict(self, population: np.ndarray) -> Prediction:
        """The full metric of each row of a canonical population (n, d)."""
        return self.full.predict(population, self.cheap.predict(population).mean[:, None])


def fit_two_fidelities(
    space: SearchSpace,
    cheap_population: np.ndarray,
    cheap_values: np.ndarray,
    population: np.ndarray,
    targets: np.ndarray,
) -> TwoFidelities:
    """Fits full `targets` (n,) of a population (n, d) and cheap values (k,) of another (k, d), which may overlap.

    Raises:
        ValueError: fewer than two points of either, not as many values, or a value that is not finite.
    """
    cheap = fit_categorical_gp(space, cheap_population, cheap_values)
    told = cheap.predict(population).mean[:, None]
    return TwoFidelities(cheap, fit_categorical_gp(space, population, targets, extra=told))
