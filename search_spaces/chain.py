"""A network as a chain of links: the finest parts that are run one after the other under an architecture.

Two architectures whose chains begin with equal links compute the same up to there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces import elastic
from search_spaces.elastic import BatchNorm2d, Elastic, OneOf, bound, children_of, plain_copy
from search_spaces.network import Network
from search_spaces.space import Architecture
from search_spaces.value import Choice, Option

_RUN_IN_ORDER = (nn.Sequential.forward, elastic.Sequence.forward, Network.forward, OneOf.forward)


@dataclass(frozen=True)
class Link:
    """One module of a chain and the options that it reads; equal links compute the same.

    Args:
        layer: the (elastic) module, which is not copied.
    """

    layer: nn.Module
    options: tuple[Option, ...]


class Chain:
    """A network opened up into links, as far as its sequences and picked layers go.

    A network that does not run its children in order, or that uses one batch norm at several places (calibrated on
    all of them together), is a chain of one link.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._whole = _shares_a_norm(network)
        self._choices: dict[nn.Module, tuple[Choice, ...]] = {}

    def links(self, arch: Architecture) -> tuple[Link, ...]:
        """The links of `arch`, in order."""
        layers = (self.network,) if self._whole else _layers(self.network, arch)
        return tuple(Link(layer, tuple(arch[c.name] for c in self._read(layer))) for layer in layers)

    def _read(self, layer: nn.Module) -> tuple[Choice, ...]:
        if layer not in self._choices:
            elastics = (module for module in layer.modules() if isinstance(module, Elastic))
            self._choices[layer] = tuple(dict.fromkeys(c for module in elastics for c in module.choices()))
        return self._choices[layer]


def extract_links(links: Sequence[Link], arch: Architecture) -> nn.Module:
    """A copy of consecutive links of `arch` as a sequence of plain torch layers, with its own weights."""
    with bound(arch):
        return plain_copy(nn.Sequential(*(link.layer for link in links)))


def _layers(module: nn.Module, arch: Architecture) -> Iterator[nn.Module]:
    if type(module).forward not in _RUN_IN_ORDER:
        yield module
        return
    conditions = module.branch_conditions() if isinstance(module, Elastic) else {}
    for name, child in children_of(module):
        condition = conditions.get(name)
        if condition is None or arch[condition.choice] in condition.options:
            yield from _layers(child, arch)


def _shares_a_norm(network: nn.Module) -> bool:
    """Whether a batch norm stands at several places of a network, in modules that are opened up."""
    seen = Counter(module for layer in _all_layers(network) for module in layer.modules())
    return any(count > 1 and isinstance(module, (BatchNorm2d, _BatchNorm)) for module, count in seen.items())


def _all_layers(module: nn.Module) -> Iterator[nn.Module]:
    """As `_layers`, of all architectures together."""
    if type(module).forward not in _RUN_IN_ORDER:
        yield module
        return
    for _, child in children_of(module):
        yield from _all_layers(child)
