"""Which architectures a step trains: the sandwich rule.

Sources: Yu and Huang, Universally slimmable networks (arXiv:1903.05134), section 3.2; Yu et al., BigNAS
(arXiv:2003.11142), section 3.1.
"""

from __future__ import annotations

import numpy as np

from search_spaces.space import Architecture, SearchSpace


def sandwich(space: SearchSpace, rng: np.random.Generator, randoms: int = 2) -> list[Architecture]:
    """Draw the architectures of one step: the largest, the smallest and `randoms` random ones, in this order.

    Training both ends lifts all that lies between, since every subnet's weights contain the smallest's and are
    contained in the largest's.

    Raises:
        ValueError: `randoms` is negative.
    """
    if randoms < 0:
        raise ValueError(f"randoms must be at least 0, got {randoms}")
    drawn = [space.row(row) for row in space.sample(randoms, rng)] if randoms else []
    return [space.largest(), space.smallest(), *drawn]
