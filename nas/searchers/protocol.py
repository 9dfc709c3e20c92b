"""The ask/tell protocol of all searchers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from nas.objectives import Evaluation

CostModel = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From a population (n, d) to its costs (n, m) and violations (n,)."""


class Searcher(Protocol):
    """Proposes architectures and learns from their evaluations.

    The same seed and the same tells give the same asks, so that a resumed run replays.
    """

    def ask(self, n: int) -> np.ndarray:
        """Up to n architectures (≤ n, d) to evaluate next, none asked before; empty where none is left."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes the evaluations of all that was asked since the last call, in any order.

        What was asked and is not among them has failed; it is not asked again.  Evaluations of other origin
        are welcome.
        """
        ...
