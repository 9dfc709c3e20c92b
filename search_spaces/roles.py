"""What each choice of a network decides: its resolution, an operation, a kernel size, a depth or a width.

Progressive shrinking opens the choices role by role (once-for-all, arXiv:1908.09791, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from search_spaces.elastic import Elastic
from search_spaces.value import Choice, Expression, choices_of

ROLES = ("resolution", "operation", "kernel", "depth", "width")
"""In the order in which shrinking opens them; a choice that is read in several roles has the last of them, since
opening it opens all."""

_ROLE_OF_ARGUMENT = {
    "resolution": "resolution",
    "choice": "operation",
    "stride": "operation",
    "kernel_size": "kernel",
    "depth": "depth",
    "in_channels": "width",
    "out_channels": "width",
    "in_features": "width",
    "out_features": "width",
    "num_features": "width",
    "groups": "width",
}


def roles(network: nn.Module) -> Mapping[str, str]:
    """The role in `ROLES` of each choice that an elastic layer of `network` reads, by the choice's name.

    It is told by the arguments of the layers.  A choice that a layer of one's own reads as an argument of another name
    is a width if its options are whole numbers, and an operation otherwise.
    """
    found: dict[str, str] = {}
    for layer in network.modules():
        if isinstance(layer, Elastic):
            for choice, role in _read_by(layer):
                found[choice.name] = max(found.get(choice.name, role), role, key=ROLES.index)
    return found


def _read_by(layer: Elastic) -> Iterator[tuple[Choice, str]]:
    """Every choice that `layer` reads with the role of the argument that it is read for."""
    told = set()
    for argument, role in _ROLE_OF_ARGUMENT.items():
        value = getattr(layer, argument, None)
        if isinstance(value, (Choice, Expression)):
            yield from ((choice, role) for choice in choices_of(value))
            told |= set(choices_of(value))
    yield from ((choice, _by_options(choice)) for choice in layer.choices() if choice not in told)


def _by_options(choice: Choice) -> str:
    return "width" if all(isinstance(o, int) and not isinstance(o, bool) for o in choice.options) else "operation"
