"""Networks with elastic layers: finding their space, running and extracting one architecture.

All functions take any `nn.Module` that has elastic layers; `Network` is the base that adds them as
methods and the call `net(x, arch)`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from search_spaces.elastic import Elastic, OneOf, Sequence, bound, children_of, plain_copy
from search_spaces.space import Architecture, Equivalence, SearchSpace
from search_spaces.value import Choice, Clause, Condition, Option


class Network(nn.Module):
    """Base of elastic networks: called as `net(x, arch)`.

    Subclasses build elastic layers in `__init__`; the default `forward` runs the children in order.
    """

    def __call__(self, x: Tensor, arch: Architecture | None = None) -> Tensor:
        """The logits (b, classes) of images (b, c, h, w) under `arch`; an extracted network needs none."""
        with contextlib.nullcontext() if arch is None else bound(arch):
            logits: Tensor = super().__call__(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Through the children, in order."""
        for _, child in children_of(self):
            x = child(x)
        return x

    def equivalence(self) -> Equivalence | None:
        """Which architectures are the same network; by default, no two of them."""
        return None


def run(module: nn.Module, x: Tensor, arch: Architecture) -> Tensor:
    """The output of `module` for `x` (b, c, h, w) under `arch`."""
    with bound(arch):
        logits: Tensor = module(x)
    return logits


def extract(module: nn.Module, arch: Architecture) -> nn.Module:
    """A copy of the subnet `arch` in plain torch layers, with its own weights.

    Same forward code, no choice left in it; training mode is kept.
    """
    with bound(arch):
        return plain_copy(module)


# -- the space ---------------------------------------------------------------------------------------


def _visit(module: nn.Module, clause: Clause) -> Iterator[tuple[Choice, Clause]]:
    """Every choice below `module` with the conditions on the way to it, parents first."""
    conditions: Mapping[str, Condition] = {}
    if isinstance(module, Elastic):
        yield from ((choice, clause) for choice in module.choices())
        conditions = module.branch_conditions()
    for name, child in children_of(module):
        condition = conditions.get(name)
        yield from _visit(child, clause if condition is None else (*clause, condition))


def find_space(module: nn.Module, name: str | None = None) -> SearchSpace:
    """The space of the choices found in `module`, in order of first appearance, shared ones by name.

    A choice that is only read inside layers which other choices switch off becomes conditional on them, and
    stands after them.  What a `Network` calls equivalent is one architecture.

    Raises:
        ValueError: no choices, or two different choices of one name.
    """
    found: dict[str, Choice] = {}
    clauses: dict[str, list[Clause]] = {}
    for choice, clause in _visit(module, ()):
        if found.setdefault(choice.name, choice) != choice:
            raise ValueError(
                f"two choices are named {choice.name!r} but differ: {found[choice.name].options} and {choice.options}"
            )
        clauses.setdefault(choice.name, []).append(clause)
    name = name or type(module).__name__
    if not found:
        raise ValueError(f"{name} has no choices: give at least one argument of an elastic layer a nas.Choice")
    equivalence = module.equivalence() if isinstance(module, Network) else None
    return SearchSpace(name, _parents_first([_conditional(c, clauses[c.name]) for c in found.values()]), equivalence)


def _conditional(choice: Choice, clauses: list[Clause]) -> Choice:
    """`choice` active where any of the found clauses holds, and its own conditions as well."""
    if () in clauses:
        return choice
    # A clause that contains another holds only where that one does, and adds nothing.
    found = [c for c in dict.fromkeys(clauses) if not any(set(other) < set(c) for other in clauses)]
    if not choice.when:
        return replace(choice, when=tuple(found))
    return replace(choice, when=tuple((*own, *clause) for own in choice.when for clause in found))


def _parents_first(choices: list[Choice]) -> list[Choice]:
    """`choices` in their order, but each after the choices that its conditions name."""
    by_name = {choice.name: choice for choice in choices}
    ordered: dict[str, Choice] = {}

    def place(choice: Choice, below: tuple[str, ...]) -> None:
        for condition in itertools.chain.from_iterable(choice.clauses):
            parent = condition.choice
            if parent in by_name and parent not in ordered and parent not in below:
                place(by_name[parent], (*below, choice.name))
        ordered.setdefault(choice.name, choice)

    for choice in choices:
        place(choice, ())
    return list(ordered.values())


def relaxable(module: nn.Module, space: SearchSpace) -> tuple[Choice, ...]:
    """The choices of `space` that every layer of `module` which reads them can mix (`mixture.relaxed`), in order."""
    rigid = {c.name for layer in module.modules() if isinstance(layer, Elastic) for c in layer.rigid()}
    return tuple(choice for choice in space.choices if choice.name not in rigid)


def check_network(
    module: nn.Module, space: SearchSpace, input_shape: tuple[int, ...], classes: int, only_ends: bool = False
) -> None:
    """Runs `module` at every option of every choice once, on a batch of two blank images.

    All other choices stand at their last option, but for those that must stand elsewhere to switch it on.

    Args:
        only_ends: runs the smallest and the largest architecture alone.

    Raises:
        ValueError: a forward that fails at some option, or logits of a shape other than (2, classes).
    """
    x = torch.zeros(2, *input_shape, device=next((p.device for p in module.parameters()), None))
    base = space.largest()
    tried = {space.smallest(): "every choice at its first option", base: "every choice at its last option"}
    for choice in () if only_ends else space.choices:
        for option in choice.options:
            values = {**base.assignment, **_switched_on(choice, base), choice.name: option}
            tried.setdefault(space.architecture(values), f"{choice.name}={option}")
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            for arch, what in tried.items():
                _check_one(module, x, arch, what, classes)
    finally:
        for m, mode in training.items():
            m.training = mode


def _switched_on(choice: Choice, base: Architecture) -> dict[str, Option]:
    """The options that must be taken, where `base` does not, for `choice` to matter: those of its first clause."""
    if choice.name in base.values:
        return {}
    by_name = {c.name: c for c in base.space.choices}
    taken: dict[str, Option] = {}
    for condition in choice.when[0]:
        taken |= _switched_on(by_name[condition.choice], base) | {condition.choice: condition.options[-1]}
    return taken


def _check_one(module: nn.Module, x: Tensor, arch: Architecture, what: str, classes: int) -> None:
    try:  # a user's forward may raise anything
        y = run(module, x, arch)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the forward of {type(module).__name__} does not run at {what}: {reason}") from error
    shape = tuple(y.shape) if isinstance(y, Tensor) else None
    if shape != (len(x), classes):
        got = type(y).__name__ if shape is None else f"shape {shape}"
        raise ValueError(
            f"{type(module).__name__} at {what} returns {got} for {len(x)} images of "
            f"{tuple(x.shape[1:])}; expected logits ({len(x)}, {classes})"
        )


# -- blocks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A part of a network that is timed and quantized as a whole.

    Args:
        name: the dotted path of its first member.
        members: the dotted paths of the modules in it, in order.
        when: the clauses (any of them) under which it exists; empty for always.
        weighted: whether it can hold a convolution or linear layer.
        weighted_when: the clauses (any of them) under which it holds one; empty where it does whenever it exists.
    """

    name: str
    members: tuple[str, ...]
    when: tuple[Clause, ...]
    weighted: bool
    weighted_when: tuple[Clause, ...] = ()

    def exists(self, assignment: Mapping[str, Option]) -> bool:
        """Whether an architecture with this assignment (all choices, or the active ones) has the block."""
        return _any_holds(self.when, assignment)

    def has_weights(self, assignment: Mapping[str, Option]) -> bool:
        """Whether an architecture with this assignment has the block, and a convolution or linear layer in it."""
        return self.weighted and _any_holds(self.weighted_when or self.when, assignment)


def _any_holds(clauses: tuple[Clause, ...], assignment: Mapping[str, Option]) -> bool:
    return not clauses or any(all(assignment.get(c.choice) in c.options for c in clause) for clause in clauses)


def find_blocks(module: nn.Module) -> tuple[Block, ...]:
    """The blocks of a network, in order of registration.

    A block is a child with weights (a layer, or a module of layers) and the children without weights that
    follow it, such as its norm and activation.  Sequences of elastic depth, lists, and plain sequences of
    composite modules are opened up; a plain sequence of layers is one block.
    """
    blocks: list[Block] = []
    for path, child, clause in _parts(module, "", ()):
        when = (clause,) if clause else ()
        weights = tuple((*clause, *inner) for inner in _weights_when(child))
        weighted = bool(weights)
        if blocks and blocks[-1].when == when and not weighted:
            blocks[-1] = replace(blocks[-1], members=(*blocks[-1].members, path))
        else:
            blocks.append(Block(path, (path,), when, weighted, () if clause in weights else weights))
    return tuple(blocks)


def _parts(module: nn.Module, prefix: str, clause: Clause) -> Iterator[tuple[str, nn.Module, Clause]]:
    conditions = module.branch_conditions() if isinstance(module, Sequence) else {}
    for name, child in children_of(module):
        inner = (*clause, conditions[name]) if name in conditions else clause
        if _opens(child):
            yield from _parts(child, f"{prefix}{name}.", inner)
        else:
            yield f"{prefix}{name}", child, inner


def _opens(module: nn.Module) -> bool:
    """Whether a module is a sequence of blocks rather than a block."""
    if isinstance(module, (Sequence, nn.ModuleList)):
        return True
    composite = [c for c in module.children() if _weighted(c) and next(c.children(), None) is not None]
    return isinstance(module, nn.Sequential) and len(composite) > 1


def _weighted(module: nn.Module) -> bool:
    return any(p.dim() >= 2 for p in module.parameters())


def _weights_when(module: nn.Module) -> tuple[Clause, ...]:
    """The clauses, any of which must hold for `module` to run a layer with weights: ((),) for always, () for never."""
    if any(p.dim() >= 2 for p in module.parameters(recurse=False)):
        return ((),)
    found: list[Clause] = []
    if isinstance(module, OneOf):  # options alike are one condition, and all options none
        taken: dict[Clause, tuple[Option, ...]] = {}
        for option, (_, child) in zip(module.choice.options, children_of(module), strict=True):
            for clause in _weights_when(child):
                taken[clause] = (*taken.get(clause, ()), option)
        for clause, options in taken.items():
            all_alike = len(options) == len(module.choice.options)
            found.append(clause if all_alike else (module.choice.among(*options), *clause))
    else:
        conditions = module.branch_conditions() if isinstance(module, Elastic) else {}
        for name, child in children_of(module):
            way = (conditions[name],) if name in conditions else ()
            found += [(*way, *clause) for clause in _weights_when(child)]
    return ((),) if () in found else tuple(dict.fromkeys(found))


def is_chain(module: nn.Module) -> bool:
    """Whether the network is its blocks run one after the other, so that shapes pass down the chain."""
    own = type(module).forward in (nn.Sequential.forward, Sequence.forward, Network.forward)
    return own and all(is_chain(child) for child in module.children() if _opens(child))
