"""New architectures from a source that may repeat itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.searchers.random_search import fresh_rows
from search_spaces.space import INDEX, SearchSpace

_TRIES = 20  # proposals in a row that are known already, after which a random architecture is taken


def novel_rows(
    space: SearchSpace,
    n: int,
    propose: Callable[[], np.ndarray],
    rng: np.random.Generator,
    asked: set[tuple[int, ...]],
) -> np.ndarray:
    """Up to n architectures (≤ n, d) that are not in `asked`, and adds them to it.

    They come from `propose`, one row (d,) at a time, and at random where it gives nothing new; fewer than n where
    the space is used up.
    """
    rows = np.zeros((0, len(space)), dtype=INDEX)
    for _ in range(n):
        proposals = (tuple(propose().tolist()) for _ in range(_TRIES))
        new = next((row for row in proposals if row not in asked), None)
        if new is None:
            row = fresh_rows(space, 1, rng, asked)
        else:
            row = np.array([new], dtype=INDEX)
            asked.add(new)
        if not len(row):
            break
        rows = np.concatenate([rows, row])
    return rows
