"""Quantization policies: the precision of each block, as choices joined with the architecture's.

A policy is an architecture of another space (HAQ and APQ, arXiv:1811.08886 and 2006.08509): the joint
search is a search over the product, and no searcher knows about bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from search_spaces.product import product
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice

if TYPE_CHECKING:
    from search_spaces.network import Block

SUFFIX = ".precision"
PRECISIONS = ("fp32", "int8")


def check_precisions(precisions: Sequence[str]) -> None:
    """Refuses precisions that blocks cannot have.

    Raises:
        ValueError: an unknown precision, one given twice, or none.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: there are {', '.join(PRECISIONS)}")
    if len(set(precisions)) < len(precisions) or not precisions:
        raise ValueError(f"precisions must be given, each once, got {tuple(precisions)}")


def policy_choices(blocks: Sequence[Block], precisions: Sequence[str]) -> tuple[Choice, ...]:
    """One choice per block with weights, active where the block has them; none for a single precision.

    Raises:
        ValueError: as `check_precisions`.
    """
    check_precisions(precisions)
    if len(precisions) == 1:
        return ()
    # From dear to cheap, as every choice is listed from cheap to dear: int8 first.
    options = tuple(sorted(precisions, key=PRECISIONS.index, reverse=True))
    weighted = (block for block in blocks if block.weighted)
    return tuple(Choice(block.name + SUFFIX, options, block.weighted_when or block.when) for block in weighted)


def joint_space(space: SearchSpace, blocks: Sequence[Block], precisions: Sequence[str]) -> SearchSpace:
    """The product of an architecture space and the policy space of its network's blocks.

    Raises:
        ValueError: as `policy_choices`.
    """
    choices = policy_choices(blocks, precisions)
    return product(space.name, space, choices) if choices else space


def policy_of(arch: Architecture, blocks: Sequence[Block], precisions: Sequence[str]) -> Mapping[str, str]:
    """Block name to precision, for the blocks that exist in a joint architecture and hold weights."""
    values = arch.values
    if len(precisions) == 1:
        return {block.name: precisions[0] for block in blocks if block.has_weights(values)}
    names = [block.name for block in blocks if block.name + SUFFIX in values]
    return {name: str(values[name + SUFFIX]) for name in names}


def uniform(arch: Architecture, precision: str) -> Architecture:
    """`arch` with every block at one precision, where the space leaves it a choice.

    Raises:
        ValueError: a precision that the space does not have.
    """
    policy = [c.name for c in arch.space.choices if c.name.endswith(SUFFIX) and set(c.options) <= set(PRECISIONS)]
    changed = dict.fromkeys(policy, precision)
    return arch.space.architecture({**arch.assignment, **changed})


def describe(policy: Mapping[str, str]) -> str:
    """A policy in a word: its one precision, or the share of blocks in the lower one (`int8 7/11`)."""
    counts = {p: sum(q == p for q in policy.values()) for p in PRECISIONS}
    used = [p for p in PRECISIONS if counts[p]] or [PRECISIONS[0]]  # no weights: nothing to quantize
    return used[0] if len(used) == 1 else f"{used[-1]} {counts[used[-1]]}/{len(policy)}"
