"""Channel sparsity as a choice: inner channels of each block may be left out, the same weights serving all densities.

What is left are smaller dense layers, which every device turns into time.  The weights are trained for all densities
(MetaPruning's search over the widths of shared weights, arXiv:1903.10258; slimmable networks, arXiv:1812.08928), so
that the channels that are kept are the first ones, and training makes them the important ones.

Inner channels are those that a block's own layers write and read and nothing outside of it sees: the expanded channels
of an inverted residual, the narrow ones of a bottleneck.  They are found in any network, by the values that its elastic
layers were given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, OneOf
from search_spaces.network import Block, find_blocks
from search_spaces.space import Architecture
from search_spaces.value import Choice, Clause, Expression, Option, Size, Value, choices_of, resolve, thinned

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

    Weights stay as they are, and at density 1, so does the network.  A density is offered only where it makes widths
    that no other option makes: of an expansion of 4, half the channels are those of an expansion of 2.

    Args:
        densities: shares of channels to keep, below 1, which is added to them.
        multiple: of which channels are kept, as `value.thinned` says.

    Raises:
        ValueError: a density not between 0 and 1, a network that has densities already, or one none of whose blocks has
            inner channels that can become fewer.
    """
    for density in densities:
        if not 0 < density < 1:
            raise ValueError(f"a density is a share of channels to keep, between 0 and 1, got {density:g}")
    layers = [module for module in network.modules() if isinstance(module, Elastic)]
    if any(choice.name.endswith(SUFFIX) for layer in layers for choice in layer.choices()):
        raise ValueError("the network has densities already: give them once")
    thinner = []
    for block in find_blocks(network):
        inner = [each for member in block.members for each in _alternatives(network.get_submodule(member), layers)]
        choice = _density(block.name + SUFFIX, inner, tuple(sorted(set(densities))), multiple)
        if choice is not None:
            for each in inner:
                each.thin_(choice, multiple)
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


@dataclass(frozen=True)
class _Inner:
    """The inner channels of a block, or of one of the layers that it may be.

    Args:
        widths: of the values that its layers were given.
        ends: what goes into the first of these and out of the last, which others see.
        private: the choices in `widths` that nothing else of the network reads.
        when: under which the block is this.
    """

    layers: tuple[Elastic, ...]
    widths: tuple[Size, ...]
    ends: tuple[Value, ...]
    private: frozenset[str]
    when: Clause

    def thin_(self, density: Choice, multiple: int) -> None:
        """Puts thinned widths into the place of the inner ones."""
        for width in self.widths:
            for layer in self.layers:
                _replace_(layer, width, thinned(width, density, multiple), self.ends)

    def fresh(self, densities: Sequence[float], multiple: int) -> dict[float, list[Clause]]:
        """Density to the clauses under which it makes widths that no other option makes.

        Of equal widths that two densities make, the larger density counts.
        """
        choices = tuple(dict.fromkeys(c for width in self.widths for c in choices_of(width)))
        found: dict[float, list[Clause]] = {density: [] for density in densities}
        known: dict[tuple[Option, ...], set[tuple[Option, ...]]] = {}
        every = [dict(zip(choices, taken, strict=True)) for taken in itertools.product(*(c.options for c in choices))]
        for density in (1.0, *sorted(densities, reverse=True)):
            for taken in every:
                others = tuple(option for c, option in taken.items() if c.name not in self.private)
                widths = self._widths({c.name: option for c, option in taken.items()}, density, multiple)
                if widths not in known.setdefault(others, set()) and density < 1:
                    found[density].append((*self.when, *(c.among(option) for c, option in taken.items())))
                known[others].add(widths)
        return found

    def _widths(self, taken: Mapping[str, Option], density: float, multiple: int) -> tuple[Option, ...]:
        choice = Choice("density", (density,))
        return tuple(resolve(thinned(w, choice, multiple), {**taken, "density": density}) for w in self.widths)


def _density(name: str, inner: Sequence[_Inner], densities: Sequence[float], multiple: int) -> Choice | None:
    """The choice among those densities that make new widths somewhere; None where there are none."""
    offered: dict[float, list[Clause]] = {density: [] for density in densities}
    for each in inner:
        for density, clauses in each.fresh(densities, multiple).items():
            offered[density] += clauses
    kept = [density for density in densities if offered[density]]
    if not kept:
        return None
    return Choice(name, (*kept, 1.0), offered=(*(tuple(offered[density]) for density in kept), ((),)))


def _alternatives(module: nn.Module, every: Sequence[Elastic]) -> Iterator[_Inner]:
    """The inner channels of a block, or of each of what it may be, where there are any."""
    parts: list[tuple[nn.Module, Clause]] = [(module, ())]
    if isinstance(module, OneOf):
        options = zip(module.choice.options, module.children(), strict=True)
        parts = [(child, (module.choice.among(option),)) for option, child in options]
    for part, when in parts:
        layers = [layer for layer in part.modules() if isinstance(layer, Elastic)]
        own = any(not isinstance(m, Elastic) and m._parameters for m in part.modules())  # layers of fixed widths
        thinned_before = any(c.name.endswith(SUFFIX) for layer in layers for c in layer.choices())
        ends = _ends(layers)
        widths = () if own or thinned_before else _inner(layers, ends)
        if widths:
            yield _Inner(tuple(layers), widths, ends, _private(widths, layers, every), when)


def _private(widths: Sequence[Size], layers: Sequence[Elastic], every: Sequence[Elastic]) -> frozenset[str]:
    """The choices of the widths that decide nothing else in the network."""
    inside, read = set(map(id, layers)), set[Choice]()
    for layer in every:
        for value in layer.values:
            left = value
            if id(layer) in inside:
                for width in widths:
                    left = _substituted(left, width, 0)
            read.update(choices_of(left))
    return frozenset(c.name for width in widths for c in choices_of(width) if c not in read)


def _ends(layers: Sequence[Elastic]) -> tuple[Value, ...]:
    """What the first wide layer reads and the last one writes."""
    wide = [layer for layer in layers if isinstance(layer, (Conv2d, Linear))]
    return (_sides(wide[0])[0], _sides(wide[-1])[1]) if wide else ()


def _inner(layers: Sequence[Elastic], ends: Sequence[Value]) -> tuple[Size, ...]:
    """The widths that a convolution writes and a later layer reads, but for the ends.

    Of what linear layers write, such as the heads of attention, the first channels are no smaller whole.
    """
    written, found = list[Value](), list[Size]()
    for layer in layers:
        if isinstance(layer, (Conv2d, Linear)):
            read, made = _sides(layer)
            if read in written and read not in found and read not in ends and _only_channels(read, layers):
                found.append(cast("Size", read))
            written += [made] if isinstance(layer, Conv2d) else []
    # What is made of another width, as squeezed channels are of expanded ones, follows it.
    return tuple(w for w in found if not any(w != o and _substituted(w, o, 0) != w for o in found))


def _sides(layer: Conv2d | Linear) -> tuple[Value, Value]:
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _only_channels(width: Value, layers: Sequence[Elastic]) -> bool:
    """Whether a width is read as channels of layers whose first channels serve a narrower one."""
    for layer in layers:
        if isinstance(layer, Conv2d) and width in _sides(layer) and layer.groups not in (1, layer.in_channels):
            return False
        if width in layer.values and type(layer) not in _VALUES:
            return False
    return True


def _replace_(layer: Elastic, old: Value, new: Expression, ends: Sequence[Value]) -> None:
    """Puts `new` into the place of the width `old`; of convolutions with groups, these are as many as channels."""
    names = _VALUES.get(type(layer), ())
    fixed = {"kernel_size", "stride"} | ({"groups"} if getattr(layer, "groups", 1) == 1 else set())
    for name in names:
        value = getattr(layer, name)
        if name not in fixed and value not in ends:
            setattr(layer, name, _substituted(value, old, new))
    layer.values = tuple(getattr(layer, name) for name in names) or layer.values


def _substituted(value: Value, old: Value, new: Expression | int) -> Value:
    """`value` with `new` in the place of `old`; plain numbers inside of an expression are factors, not widths."""
    if value == old:
        return new
    if isinstance(value, Expression) and not isinstance(old, int):
        return replace(value, operands=tuple(_substituted(term, old, new) for term in value.operands))
    return value
