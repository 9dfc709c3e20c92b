"""Given architectures and no others: for what was found before the search, as a differentiable search does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.objectives import Evaluation
from search_spaces.space import INDEX


class Listed:
    """Proposes the rows (n, d) that it is given, in their order; equal ones once.

    Raises:
        ValueError: they are no array of rows.
    """

    def __init__(self, rows: np.ndarray) -> None:
        if np.ndim(rows) != 2:
            raise ValueError(f"a list of architectures must have shape (n, d), got {np.shape(rows)}")
        self._width = np.shape(rows)[1]
        self._left = list(dict.fromkeys(map(tuple, np.asarray(rows).tolist())))

    def ask(self, n: int) -> np.ndarray:
        """The next ones (≤ n, d)."""
        rows, self._left = self._left[:n], self._left[n:]
        return np.array(rows, dtype=INDEX).reshape(len(rows), self._width)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Nothing to learn."""
