"""Which architecture of a space a pretrained network is, told by the shapes of its layers in order; names do not count.

A depth-first search over the layers of the elastic network: each narrows the options of the choices that it reads to
those with which it has the shapes of the pretrained layer.  So spaces far too large to enumerate are searched.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from search_spaces.elastic import Elastic, children_of, plain_copy
from search_spaces.network import extract, find_space
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice, Condition, Option

Shapes = tuple[tuple[int, ...], ...]
Domains = Mapping[str, tuple[Option, ...]]
"""The options that each choice may still take."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The tensors of one module of a pretrained network, in the order of its state dict."""

    name: str
    tensors: tuple[Tensor, ...]

    @property
    def shapes(self) -> Shapes:
        """The shape of each tensor."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


@dataclass(frozen=True, eq=False)
class Match:
    """An architecture and the pretrained layers that it takes over.

    Args:
        layers: path of a module of the elastic network to its pretrained layer.
        undetermined: the choices that no shape tells, such as resolution and activation.
        left: the path of the last layer, if it has other outputs and is not taken over.
    """

    arch: Architecture
    layers: Mapping[str, Layer]
    undetermined: tuple[str, ...]
    left: str | None


def layers_of(tensors: Mapping[str, Tensor]) -> tuple[Layer, ...]:
    """The layers of a state dict, in its order; the counters of batch norms are left out."""
    grouped: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        if own != "num_batches_tracked":
            grouped.setdefault(path, []).append(tensor)
    return tuple(Layer(path, tuple(found)) for path, found in grouped.items())


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of `module` itself, without those of its children and the counters of batch norms."""
    return {n: t for n, t in module.state_dict().items() if "." not in n and n != "num_batches_tracked"}


def domains_of(space: SearchSpace, known: Mapping[str, Option]) -> Domains:
    """The options that each choice may take: all, or the one that is known.

    Raises:
        ValueError: an unknown choice or option.
    """
    by_name = {choice.name: choice for choice in space.choices}
    for name, option in known.items():
        if name not in by_name:
            raise ValueError(f"space {space.name!r} has no choice {name!r}; it has {', '.join(by_name)}")
        by_name[name].index(option)
    return {name: (known[name],) if name in known else choice.options for name, choice in by_name.items()}


def match(network: nn.Module, layers: Sequence[Layer], domains: Domains) -> Match:
    """The architecture of `network` whose layers have the shapes of `layers`, in the order of registration.

    A choice that no shape tells takes its last option.  The last layer may have other outputs, or be missing.

    Raises:
        ValueError: no architecture has these shapes, named by the first layer that does not fit.
    """
    found = _Search(network, layers).run(domains)
    arch = find_space(network).architecture({name: left[-1] for name, left in found.domains.items()})
    undetermined = tuple(name for name in arch.values if len(found.domains[name]) > 1)
    return Match(arch, dict(_unrolled(found.taken)), undetermined, found.left)


@dataclass(frozen=True, eq=False)
class _State:
    """A part of the way: the modules still to come, as a linked list, and what was found before them."""

    todo: _Todo | None
    taken: _Taken | None
    position: int
    domains: Domains
    left: str | None = None


@dataclass(frozen=True, eq=False)
class _Todo:
    path: str
    module: nn.Module
    rest: _Todo | None
    own: bool = False  # the module's own tensors only, its children stand behind it


@dataclass(frozen=True, eq=False)
class _Taken:
    path: str
    layer: Layer
    before: _Taken | None


def _unrolled(taken: _Taken | None) -> Iterator[tuple[str, Layer]]:
    while taken is not None:
        yield taken.path, taken.layer
        taken = taken.before


class _Search:
    """Steps from the first layer on; keeps the furthest layer that did not fit."""

    def __init__(self, network: nn.Module, layers: Sequence[Layer]) -> None:
        self.network, self.layers = network, layers
        self.shapes: dict[tuple[int, tuple[Option, ...]], Shapes] = {}
        self.furthest = -1
        self.expected: dict[str, dict[Shapes, None]] = {}  # at the furthest layer: path to shapes

    def run(self, domains: Domains) -> _State:
        """The first way to the end that takes over every layer, else the first that leaves the last one.

        Raises:
            ValueError: there is none.
        """
        headless: _State | None = None
        stack = [_State(_Todo("", self.network, None), None, 0, domains)]
        while stack:
            state = stack.pop()
            if state.todo is not None:
                stack.extend(reversed(list(self._next(state, state.todo))))
            elif state.left is not None:
                headless = headless or state
            elif state.position >= len(self.layers):
                return state
            else:
                self._missed(state.position, "", ())
        if headless is None:
            raise ValueError(self._why())
        return headless

    def _next(self, state: _State, todo: _Todo) -> Iterator[_State]:
        module = todo.module
        if not _weighted(module):
            yield replace(state, todo=todo.rest)
        elif todo.own or next(module.children(), None) is None:
            yield from self._layer(state, todo)
        else:
            yield from self._inside(state, todo)

    def _inside(self, state: _State, todo: _Todo) -> Iterator[_State]:
        """Into the children of a module: those which the options left of its own choices use."""
        module = todo.module
        conditions = module.branch_conditions() if isinstance(module, Elastic) else {}
        choices = module.choices() if isinstance(module, Elastic) else ()
        ways: dict[tuple[str, ...], list[tuple[Option, ...]]] = {}
        for options in _combinations(choices, state.domains):
            taken = dict(zip((c.name for c in choices), options, strict=True))
            used = [(n, child) for n, child in children_of(module) if _holds(conditions.get(n), taken)]
            ways.setdefault(tuple(n for n, child in used if _weighted(child)), []).append(options)
        for names, way in reversed(ways.items()):  # the deepest first
            rest = todo.rest
            for name in reversed(names):
                rest = _Todo(f"{todo.path}.{name}".lstrip("."), module.get_submodule(name), rest)
            if own_tensors(module):
                rest = _Todo(todo.path, module, rest, own=True)
            for domains in _narrowed(state.domains, choices, way):
                yield replace(state, todo=rest, domains=domains)

    def _layer(self, state: _State, todo: _Todo) -> Iterator[_State]:
        """Past one layer, with the options that give it the shapes of the pretrained one."""
        choices = todo.module.choices() if isinstance(todo.module, Elastic) else ()
        ways: dict[Shapes, list[tuple[Option, ...]]] = {}
        for options in _combinations(choices, state.domains):
            if _offered(choices, options):
                ways.setdefault(self._shapes(todo.module, choices, options), []).append(options)
        wanted = self.layers[state.position] if state.position < len(self.layers) else None
        if wanted is not None and wanted.shapes in ways:
            taken = _Taken(todo.path, wanted, state.taken)
            for domains in _narrowed(state.domains, choices, ways[wanted.shapes]):
                yield replace(state, todo=todo.rest, taken=taken, position=state.position + 1, domains=domains)
        elif self._is_another_head(state, todo, ways):
            yield replace(state, todo=todo.rest, position=len(self.layers), left=todo.path)
        else:
            self._missed(state.position, todo.path, ways)

    def _is_another_head(self, state: _State, todo: _Todo, expected: Iterable[Shapes]) -> bool:
        """Whether this is the last layer of the network, and what is left has the same inputs or is nothing."""
        rest = todo.rest
        while rest is not None:
            if _weighted(rest.module):
                return False
            rest = rest.rest
        left = self.layers[state.position :]
        inputs = {shapes[0][1:] for shapes in expected}
        return not left or (len(left) == 1 and left[0].shapes[0][1:] in inputs)

    def _shapes(self, module: nn.Module, choices: tuple[Choice, ...], options: tuple[Option, ...]) -> Shapes:
        key = (id(module), options)
        if key not in self.shapes:
            plain = plain_copy(module) if isinstance(module, Elastic) and not choices else module
            if choices:
                plain = extract(module, _small_architecture(choices, options))
            self.shapes[key] = tuple(tuple(tensor.shape) for tensor in own_tensors(plain).values())
        return self.shapes[key]

    def _missed(self, position: int, path: str, expected: Iterable[Shapes]) -> None:
        if position > self.furthest:
            self.furthest, self.expected = position, {}
        if position == self.furthest:
            self.expected.setdefault(path, {}).update(dict.fromkeys(expected))

    def _why(self) -> str:
        ends = self.furthest >= len(self.layers)
        got = "nothing" if ends else _told(self.layers[self.furthest].shapes)
        name = "the end" if ends else f"layer {self.furthest + 1}, {self.layers[self.furthest].name!r},"
        fits = [f"{_told(s)} at {path}" for path, shapes in self.expected.items() if path for s in shapes]
        return f"{name} has {got} where the space has {' or '.join(fits[:6]) or 'no layer'}"


def _weighted(module: nn.Module) -> bool:
    return any(True for _ in itertools.chain(module.parameters(), module.buffers()))


def _holds(condition: Condition | None, taken: Mapping[str, Option]) -> bool:
    return condition is None or taken[condition.choice] in condition.options


def _combinations(choices: Sequence[Choice], domains: Domains) -> Iterator[tuple[Option, ...]]:
    return itertools.product(*(domains[choice.name] for choice in choices))


def _narrowed(
    domains: Domains, choices: Sequence[Choice], combinations: Sequence[tuple[Option, ...]]
) -> Iterator[Domains]:
    """`domains` narrowed to `combinations`: at once where these are a product, else to each in turn."""
    if not combinations:
        return
    columns = [tuple(dict.fromkeys(column)) for column in zip(*combinations, strict=True)]
    if math.prod(map(len, columns)) == len(combinations):
        yield {**domains, **{c.name: column for c, column in zip(choices, columns, strict=True)}}
        return
    for options in reversed(combinations):  # the dearest first
        yield {**domains, **{c.name: (option,) for c, option in zip(choices, options, strict=True)}}


def _offered(choices: Sequence[Choice], options: Sequence[Option]) -> bool:
    """Whether these options may exist together, for all that they say of each other."""
    taken = {c.name: option for c, option in zip(choices, options, strict=True)}
    fits = lambda clause: all(c.choice not in taken or _holds(c, taken) for c in clause)  # noqa: E731
    return all(not c.offered or any(map(fits, c.offered[c.index(taken[c.name])])) for c in choices)


def _small_architecture(choices: Sequence[Choice], options: Sequence[Option]) -> Architecture:
    """The architecture of a space of these choices alone."""
    space = SearchSpace("layer", [replace(choice, when=(), offered=()) for choice in choices])
    return space.architecture({c.name: option for c, option in zip(choices, options, strict=True)})


def _told(shapes: Shapes) -> str:
    return " and ".join(map(str, shapes[:2])) if shapes else "no tensors"
