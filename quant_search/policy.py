"""Quantization policies: the precision of each block, as choices joined with the architecture's.

A policy is an architecture of another space (HAQ and APQ, arXiv:1811.08886 and 2006.08509): the joint
search is a search over the product, and no searcher knows about bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quant_search.precision import is_precision, parse_precision
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Channels, Dense
from search_spaces.product import product
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice

if TYPE_CHECKING:
    from search_spaces.network import Block

SUFFIX = ".precision"
DENSITIES = (0.5, 0.75)
"""Shares of channels that blocks may keep, where nothing else is said."""

PRECISIONS = ("fp32", "int8")
"""What has kernels of its own; all others run in those of one of them, and are only smaller."""


def check_precisions(precisions: Sequence[str]) -> None:
    """Refuses precisions that blocks cannot have.

    Raises:
        ValueError: an unknown precision, one given twice, or none.
    """
    for precision in precisions:
        parse_precision(precision)
    if len(set(precisions)) < len(precisions) or not precisions:
        raise ValueError(f"precisions must be given, each once, got {tuple(precisions)}")


def checked_patterns(texts: Sequence[str]) -> tuple[str, ...]:
    """The names of the patterns of sparsity that blocks may have besides dense; `channels` stands for `DENSITIES`.

    Raises:
        ValueError: no such pattern, or one given twice.
    """
    usual = tuple(f"channels:{density}" for density in DENSITIES)
    given = [text.strip() for text in texts]
    every = [name for text in given for name in (usual if text == "channels" else (text,))]
    names = [pattern.name for pattern in map(parse_pattern, every) if not isinstance(pattern, Dense)]
    if len(set(names)) < len(names):
        raise ValueError(f"patterns of sparsity must be given once each, got {', '.join(given)}")
    return tuple(sorted(names))


def densities(patterns: Sequence[str]) -> tuple[float, ...]:
    """The shares of channels that may be kept, of those of the patterns that are of channels."""
    found = map(parse_pattern, patterns)
    return tuple(pattern.share for pattern in found if isinstance(pattern, Channels))


def policy_choices(blocks: Sequence[Block], precisions: Sequence[str]) -> tuple[Choice, ...]:
    """One choice per block with weights, active where the block has them; none for a single precision.

    Raises:
        ValueError: as `check_precisions`.
    """
    check_precisions(precisions)
    if len(precisions) == 1:
        return ()
    options = tuple(sorted(precisions, key=bits))  # from cheap to dear, as every choice
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
    changed = dict.fromkeys((c.name for c in _policy_choices(arch)), precision)
    return arch.space.architecture({**arch.assignment, **changed})


def uniforms(arch: Architecture) -> dict[str, Architecture]:
    """`arch` with every block at one precision, for each that its space leaves to the blocks."""
    options = dict.fromkeys(str(option) for choice in _policy_choices(arch) for option in choice.options)
    return {precision: uniform(arch, precision) for precision in options}


def _policy_choices(arch: Architecture) -> list[Choice]:
    return [c for c in arch.space.choices if c.name.endswith(SUFFIX) and all(map(is_precision, c.options))]


def describe(policy: Mapping[str, str]) -> str:
    """A policy in a word: its one precision, or the share of blocks in each lower one (`w4a8 2/11, int8 5/11`)."""
    used = sorted(set(policy.values()), key=bits) or [PRECISIONS[0]]  # no weights: nothing to quantize
    if len(used) == 1:
        return used[0]
    return ", ".join(f"{p} {sum(q == p for q in policy.values())}/{len(policy)}" for p in used[:-1])


def bits(precision: str) -> tuple[int, int]:
    """Of weights and of activations; of two precisions the one with more is the larger."""
    found = parse_precision(precision)
    return found.weight_bits or 32, found.activation_bits or 32
