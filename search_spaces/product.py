"""The product of spaces: an architecture joined with a quantization policy is a point of it."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice


def product(name: str, space: SearchSpace, extra: Sequence[Choice]) -> SearchSpace:
    """`space` extended by more choices, whose conditions may name its choices; what is equivalent in it stays so.

    Raises:
        ValueError: as `SearchSpace`.
    """
    return SearchSpace(name, (*space.choices, *extra), space.equivalence)


def project(arch: Architecture, factor: SearchSpace) -> Architecture:
    """The part of an architecture of a product that lies in one factor.

    The factor's choices must stand first in the product, or depend on no choice outside the factor.
    """
    return factor.row([choice.index(arch[choice.name]) for choice in factor.choices])
