"""What every predictor returns: a mean and its deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted values of n items: their means (n,) and standard deviations (n,)."""

    mean: np.ndarray
    std: np.ndarray


class Predictor(Protocol):
    """Predicts one metric of architectures."""

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        ...
