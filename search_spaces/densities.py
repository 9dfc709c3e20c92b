"""Channel sparsity as a choice: inner channels of each block may be left out, the same weights serving all densities.

What is left are smaller dense layers, which every device turns into time.  The weights are trained for all densities
(MetaPruning's search over the widths of shared weights, arXiv:1903.10258; slimmable networks, arXiv:1812.08928), so
that the channels that are kept are the first ones, and training makes them the important ones.

Inner channels are those that a block's own layers write and read and nothing outside of it sees: the expanded channels
of an inverted residual, the narrow ones of a bottleneck.  They are found in any network, by the values that its elastic
layers were given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, OneOf
from search_spaces.network import Block, find_blocks
from search_spaces.space import Architecture
from search_spaces.value import Choice, Expression, Size, Value, thinned

SUFFIX = ".density"
MULTIPLE = 8
"""Of which channels are kept: what kernels' vectors hold."""

_VALUES: dict[type[Elastic], tuple[str, ...]] = {
    Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "groups"),
    Linear: ("in_features", "out_features"),
    BatchNorm2d: ("num_features",),
}


def add_densities_(network: nn.Module, densities: Sequence[float], multiple: int = MULTIPLE) -> tuple[Block, ...]:
    """Gives each block with inner channels the choice `BLOCK.density`, and returns these blocks.

    Weights stay as they are, and at density 1, so does the network.

    Args:
        densities: shares of channels to keep, below 1, which is added to them.
        multiple: of which channels are kept, as `value.thinned` says.

    Raises:
        ValueError: a density not between 0 and 1, or a network none of whose blocks has inner channels.
    """
    for density in densities:
        if not 0 < density < 1:
            raise ValueError(f"a density is a share of channels to keep, between 0 and 1, got {density:g}")
    options, seen = (*sorted(set(densities)), 1.0), set[int]()
    thinner = []
    for block in find_blocks(network):
        choice = Choice(block.name + SUFFIX, options)
        parts = [part for member in block.members for part in _alternatives(network.get_submodule(member))]
        if sum(_thin_(part, choice, multiple, seen) for part in parts):
            thinner.append(block)
    if not thinner:
        raise ValueError("no block has channels of its own that could be left out: leave --sparsity out")
    return tuple(thinner)


def densities_of(arch: Architecture) -> dict[str, float]:
    """Block name to density, of the active blocks that have one."""
    return {name.removesuffix(SUFFIX): float(value) for name, value in arch.values.items() if name.endswith(SUFFIX)}


def dense_twin(arch: Architecture) -> Architecture:
    """`arch` with all channels."""
    full = {choice.name: 1.0 for choice in arch.space.choices if choice.name.endswith(SUFFIX)}
    return arch.space.architecture({**arch.assignment, **full})


def _alternatives(module: nn.Module) -> Iterator[nn.Module]:
    """What a block is, or each of what it may be."""
    if isinstance(module, OneOf):
        yield from module.children()
    else:
        yield module


def _thin_(part: nn.Module, density: Choice, multiple: int, seen: set[int]) -> bool:
    """Thins the inner channels of `part`; whether there are any."""
    layers = [module for module in part.modules() if isinstance(module, Elastic)]
    own = [module for module in part.modules() if not isinstance(module, Elastic) and module._parameters]
    if own or any(id(layer) in seen for layer in layers):  # layers of a fixed width, or those of another block too
        return False
    inner = [width for width in _inner(layers) if _only_channels(width, layers)]
    for width in inner:
        for layer in layers:
            _replace_(layer, width, thinned(width, density, multiple))
    seen.update(map(id, layers))
    return bool(inner)


def _inner(layers: Sequence[Elastic]) -> list[Size]:
    """The widths that one layer writes and a later one reads, but for what goes into the first and out of the last."""
    wide = [layer for layer in layers if isinstance(layer, (Conv2d, Linear))]
    ends = [_ends(wide[0])[0], _ends(wide[-1])[1]] if wide else []
    written, found = list[Value](), list[Size]()
    for layer in wide:
        read, made = _ends(layer)
        if read in written and read not in found and read not in ends:
            found.append(cast("Size", read))
        written.append(made)
    return found


def _ends(layer: Conv2d | Linear) -> tuple[Value, Value]:
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _only_channels(width: Value, layers: Sequence[Elastic]) -> bool:
    """Whether a width is read as channels of layers whose first channels serve a narrower one."""
    for layer in layers:
        if isinstance(layer, Conv2d) and width in _ends(layer) and layer.groups not in (1, layer.in_channels):
            return False
        if width in layer.values and not isinstance(layer, tuple(_VALUES)):
            return False
    return True


def _replace_(layer: Elastic, old: Value, new: Expression) -> None:
    """Puts `new` into the place of the width `old`; of convolutions with groups, these are as many as channels."""
    names = next((names for kind, names in _VALUES.items() if isinstance(layer, kind)), ())
    fixed = {"kernel_size", "stride"} | ({"groups"} if getattr(layer, "groups", 1) == 1 else set())
    for name in names:
        if name not in fixed:
            setattr(layer, name, _substituted(getattr(layer, name), old, new))
    layer.values = tuple(getattr(layer, name) for name in names) or layer.values


def _substituted(value: Value, old: Value, new: Expression) -> Value:
    """`value` with `new` in the place of `old`; plain numbers inside of an expression are factors, not widths."""
    if value == old:
        return new
    if isinstance(value, Expression) and not isinstance(old, int):
        return replace(value, operands=tuple(_substituted(term, old, new) for term in value.operands))
    return value
