"""The cells space: 15,625 cells of NAS-Bench-201, as one elastic network and as plain ones.

Dong and Yang, arXiv:2001.00326, section 2.1 and figure 1: a cell has four nodes, and each of its six edges one of five
operations; the network is a stem, and three stages of five equal cells with a residual block of stride 2 between them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, OneOf
from search_spaces.network import Network, extract, find_space
from search_spaces.value import Choice, Option

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")  # from the cheapest
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to), in the order of the table's strings
CHANNELS = (16, 32, 64)
CELLS_PER_STAGE = 5

_STRING = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")


class Zero(nn.Module):
    """The operation `none`: zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → the same shape."""
        return torch.zeros_like(x)


class Cell(nn.Module):
    """Four nodes; each is the sum of its edges' operations on the nodes before it, and the last one the output."""

    def __init__(self, edges: Sequence[Choice], channels: int) -> None:
        super().__init__()
        for (source, target), choice in zip(EDGES, edges, strict=True):
            self.add_module(f"{source}to{target}", _edge(choice, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → the same shape."""
        nodes = [x]
        for target in (1, 2, 3):
            first, *others = (self.get_submodule(f"{i}to{target}")(node) for i, node in enumerate(nodes))
            nodes.append(sum(others, first))
        return nodes[-1]


class Reduction(nn.Module):
    """Residual block of stride 2: two 3x3 convolutions beside a pooled 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _relu_conv_norm(inputs, outputs, 3, stride=2)
        self.second = _relu_conv_norm(outputs, outputs, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) → (b, outputs, h / 2, w / 2)."""
        shortcut: Tensor = self.shortcut(x)
        return shortcut + self.second(self.first(x))


class CellNetwork(Network):
    """The network of equal cells for images (b, in_channels, h, w) with even h / 2 and w / 2.

    Args:
        edges: one choice over `OPERATIONS`, or some of them, for each of `EDGES`.
    """

    def __init__(self, edges: Sequence[Choice], in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv2d(in_channels, CHANNELS[0], 3, bias=False), BatchNorm2d(CHANNELS[0]))
        for i, channels in enumerate(CHANNELS):
            if i:
                self.add_module(f"reduction{i}", Reduction(CHANNELS[i - 1], channels))
            cells = (Cell(edges, channels) for _ in range(CELLS_PER_STAGE))
            self.add_module(f"stage{i + 1}", nn.Sequential(*cells))
        self.head = nn.Sequential(BatchNorm2d(CHANNELS[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(CHANNELS[-1], num_classes)


def _relu_conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), Conv2d(inputs, outputs, kernel, stride, bias=False), BatchNorm2d(outputs))


def _edge(choice: Choice, channels: int) -> OneOf:
    layers: dict[Option, nn.Module] = {option: _operation(str(option), channels) for option in choice.options}
    return OneOf(choice, layers)


def _operation(name: str, channels: int) -> nn.Module:
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    return _relu_conv_norm(channels, channels, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name])


def cells(in_channels: int = 3, num_classes: int = 10) -> CellNetwork:
    """The elastic network of all cells; edge i of `EDGES` is the choice `edge{i}`."""
    return CellNetwork([Choice(f"edge{i}", OPERATIONS) for i in range(len(EDGES))], in_channels, num_classes)


def operations_of(cell: str) -> tuple[str, ...]:
    """The operations (6,), in the order of `EDGES`, of a cell written as `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        ValueError: another form, or an unknown operation.
    """
    found = _STRING.fullmatch(cell)
    unknown = [name for name in found.groups() if name not in OPERATIONS] if found else []
    if not found or unknown:
        form = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        raise ValueError(f"expected a cell {form} of operations {', '.join(OPERATIONS)}, got {cell!r}")
    return found.groups()


def cell_network(operations: Sequence[str], seed: int, in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    """The plain network of one cell in train mode, initialised as torch does by default from `seed`.

    Args:
        operations: (6,), in the order of `EDGES`.

    Raises:
        ValueError: not six operations, or an unknown one.
    """
    if len(operations) != len(EDGES) or not set(operations) <= set(OPERATIONS):
        raise ValueError(f"a cell has {len(EDGES)} operations of {', '.join(OPERATIONS)}, got {tuple(operations)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = CellNetwork([Choice(f"edge{i}", (op,)) for i, op in enumerate(operations)], in_channels, num_classes)
        plain = extract(network, find_space(network).smallest())
        for module in plain.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()  # elastic layers start otherwise
    return plain
