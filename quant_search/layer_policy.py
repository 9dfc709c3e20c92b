"""What a policy says of each block: in which formats its layers compute, and how many of their channels they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from quant_search.formats import Granularity, Integer
from quant_search.policy import joint_space, policy_choices, policy_of
from quant_search.precision import parse_precision
from quant_search.ranges import UINT8
from quant_search.sparsity.patterns import Channels, Dense, Pattern
from quant_search.weight_codes import weight_format
from search_spaces.densities import densities_of
from search_spaces.elastic import Elastic
from search_spaces.network import Block, find_blocks, find_space
from search_spaces.space import Architecture, SearchSpace

PER_CHANNEL, DENSE = Granularity(0), Dense()


@dataclass(frozen=True)
class LayerPolicy:
    """The formats of a block's layers; None stands for float32.

    Args:
        activation: of what its layers read and write.
        granularity: which weights share a scale; axis 0 of a convolution's weight counts its output channels.
        sparsity: of channels, those inside the block.
    """

    weight: Integer | None = None
    activation: Integer | None = None
    granularity: Granularity = PER_CHANNEL
    sparsity: Pattern = DENSE

    def __str__(self) -> str:
        weight, activation = (number.name if number else "float32" for number in (self.weight, self.activation))
        return f"weights {weight} per {self.granularity}, activations {activation}, {self.sparsity.name}"


Policy = Mapping[str, LayerPolicy]
"""Block name to what its layers compute in."""


def layer_policy(precision: str, density: float = 1.0) -> LayerPolicy:
    """What `precision` means for the files that are written, with a share of channels kept.

    Raises:
        ValueError: an unknown precision, or no share.
    """
    found = parse_precision(precision)
    return LayerPolicy(
        weight=weight_format(found.weight_bits) if found.weight_bits else None,
        activation=UINT8 if found.activation_bits else None,
        sparsity=DENSE if density == 1 else Channels(density),
    )


def policies(arch: Architecture, blocks: Sequence[Block], precisions: Sequence[str]) -> Policy:
    """The policy of each block with weights that a joint architecture has."""
    kept = densities_of(arch)
    return {
        name: layer_policy(precision, kept.get(name, 1.0))
        for name, precision in policy_of(arch, blocks, precisions).items()
    }


def policy_space(network: nn.Module, precisions: Sequence[str] = ("fp32", "int8")) -> SearchSpace:
    """The space of a network's policies, a precision for each block with weights; of an elastic one the joint space.

    Densities are choices of the network itself: see `search_spaces.densities.add_densities_`.

    Raises:
        ValueError: an unknown precision, one given twice, or fewer than two for a network without choices.
    """
    blocks = find_blocks(network)
    if any(isinstance(layer, Elastic) and layer.choices() for layer in network.modules()):
        return joint_space(find_space(network), blocks, precisions)
    choices = policy_choices(blocks, precisions)
    if not choices:
        raise ValueError(f"a policy chooses among precisions, got {', '.join(precisions)}: give two at least")
    return SearchSpace(type(network).__name__, choices)
