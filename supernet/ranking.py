"""A quick predictor of inherited accuracy, fitted while a supernet trains (AttentiveNAS, arXiv:2011.09011, §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor

from search_spaces.encoding import one_hot
from search_spaces.space import INDEX, SearchSpace
from supernet.calibrate import inherited_accuracy

if TYPE_CHECKING:
    from supernet.learner import Learner

_TAKEN = 128  # inherited accuracies


@dataclass(frozen=True, eq=False)
class Ranking:
    """A random forest over architectures, as the paper has it.

    Args:
        rows: architectures (n, d).
        accuracies: inherited ones (n,).
    """

    space: SearchSpace
    rows: np.ndarray
    accuracies: np.ndarray

    @cached_property
    def _forest(self) -> RandomForestRegressor:
        forest = RandomForestRegressor(100, random_state=0)
        return forest.fit(one_hot(self.space, self.rows), self.accuracies)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Accuracies (n,) of architectures (n, d)."""
        predicted: np.ndarray = self._forest.predict(one_hot(self.space, rows))
        return predicted

    def tensors(self) -> dict[str, Tensor]:
        """What it was fitted to."""
        return {"rows": torch.from_numpy(self.rows.astype(np.int64)), "accuracies": torch.from_numpy(self.accuracies)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], space: SearchSpace) -> Ranking:
        """Fit again to what `tensors` gave."""
        return cls(space, tensors["rows"].cpu().numpy().astype(INDEX), tensors["accuracies"].cpu().numpy())


def fit_ranking(learner: Learner) -> Ranking:
    """Take inherited accuracies of random architectures with the averaged weights, and fit a predictor to them."""
    space = learner.space
    rows = np.unique(space.sample(_TAKEN, np.random.default_rng(learner.recipe.seed)), axis=0)
    accuracies = [inherited_accuracy(learner.averaged, space.row(row), learner.dataset) for row in rows]
    return Ranking(space, rows, np.array(accuracies))
