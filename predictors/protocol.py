"""What every predictor returns: a mean and its deviation."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted values of n items: their means (n,) and standard deviations (n,)."""

    mean: np.ndarray
    std: np.ndarray

    def half_width(self, share: float = 0.9) -> np.ndarray:
        """Half the width (n,) of the interval around the mean that is to hold `share` of the truths.

        Raises:
            ValueError: a share outside 0 to 1.
        """
        if not 0 < share < 1:
            raise ValueError(f"an interval holds a share between 0 and 1, got {share}")
        width: np.ndarray = NormalDist().inv_cdf((1 + share) / 2) * self.std
        return width


class Predictor(Protocol):
    """Predicts one metric of architectures."""

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        ...
