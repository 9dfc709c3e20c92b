"""What lower precision costs: a sum over blocks that never shrinks as bits fall.

    drop(policy) = Σ_b Σ_k c_bk [block b has at most the k-th least bits],  c_bk ≥ 0

in a unit in which the damages of blocks add up, such as the logit of the error rate: noises of independent blocks add
(HAWQ-V2, arXiv:1911.03852, equation 10, sums their damages), and an error rate has a ceiling.  Fitted by ridge
regression without negative coefficients (Lawson and Hanson, "Solving least squares problems", 1974, chapter 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from search_spaces.space import SearchSpace

_NOISE, _WIDTH = 0.3, 0.8  # of one observation, and of coefficients before any data, as deviations in logits
_PASSES = 100  # of the active-set method, for each coefficient: it ends by itself


@dataclass(frozen=True, eq=False)
class Policies:
    """The choices of a joint space that say how many bits a block has, from few to many.

    Args:
        columns: which of the space's choices these are (k,).

    Raises:
        ValueError: a column that the space does not have, or one given twice.
    """

    space: SearchSpace
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        wrong = [j for j in self.columns if not 0 <= j < len(self.space)]
        if wrong or len(set(self.columns)) < len(self.columns):
            known = f"space {self.space.name!r} has the choices 0 to {len(self.space) - 1}"
            raise ValueError(f"columns of policies are choices of the space, each once, got {self.columns}: {known}")

    def lowered(self, population: np.ndarray) -> np.ndarray:
        """Which blocks have at most which bits (n, f): 1 where the block is there and its option is not above k."""
        parts: list[np.ndarray] = [np.zeros((len(population), 0))]
        for j in self.columns:
            active = self.space.active_column(population, j)
            at_most = population[:, j][:, None] <= np.arange(len(self.space.choices[j].options) - 1)
            parts.append(at_most if active is None else at_most & np.asarray(active, dtype=bool)[:, None])
        return np.concatenate(parts, axis=1, dtype=float)

    def plain(self, population: np.ndarray) -> np.ndarray:
        """The population (n, d) with all blocks in the most bits there are."""
        rows = np.array(population)
        for j in self.columns:
            rows[:, j] = len(self.space.choices[j].options) - 1
        return self.space.canonical(rows)


@dataclass(frozen=True, eq=False)
class Drop:
    """A fitted drop, with coefficients (f,) of none below 0."""

    policies: Policies
    coefficients: np.ndarray

    def __call__(self, population: np.ndarray) -> np.ndarray:
        """What each row of a population (n, d) loses by its policy (n,): 0 in the most bits, and never below."""
        lost: np.ndarray = self.policies.lowered(population) @ self.coefficients
        return lost


def no_drop(policies: Policies) -> Drop:
    """Of policies that cost nothing, for all that is known."""
    return Drop(policies, np.zeros(policies.lowered(np.zeros((0, len(policies.space)), dtype=int)).shape[1]))


def fit_drop(policies: Policies, population: np.ndarray, drops: Sequence[float] | np.ndarray) -> Drop:
    """Fits what a population (n, d) has lost by its policies (n,), in logits; O(n f²).

    Raises:
        ValueError: not as many drops, or one that is not finite.
    """
    lost, lowered = np.asarray(drops, dtype=float), policies.lowered(population)
    if lost.shape != (len(lowered),) or not np.isfinite(lost).all():
        raise ValueError(f"a drop is fitted to one finite number for each of {len(lowered)} rows, got {lost}")
    width = lowered.shape[1]
    if not len(lowered) or not width:
        return no_drop(policies)
    rows = np.concatenate([lowered, _NOISE / _WIDTH * np.eye(width)])
    return Drop(policies, nnls(rows, np.concatenate([lost, np.zeros(width)]), maxiter=_PASSES * width)[0])
