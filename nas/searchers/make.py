"""A searcher by its name."""

from __future__ import annotations

from nas.names import check_searcher
from nas.searchers.catalog import SEARCHERS
from nas.searchers.protocol import Searcher
from search_spaces.space import SearchSpace


def make_searcher(name: str, space: SearchSpace, objectives: int, seed: int) -> Searcher:
    """The searcher `name` over a space.

    Args:
        objectives: how many costs each evaluation has.

    Raises:
        ValueError: no searcher of that name, one for fewer objectives, one that needs more than a space and a seed,
            or a space that is too large for it.
    """
    check_searcher(name, objectives)
    return SEARCHERS[name].make(space, objectives, seed)
