"""The nas_bench_201 space: the cells of NAS-Bench-201, as one elastic network and as plain ones.

Dong and Yang, arXiv:2001.00326, section 2.1 and figure 1: a cell has four nodes, and each of its six edges one of five
operations; the network is a stem, and three stages of five equal cells with a residual block of stride 2 between them.
Of the 15,625 cells, 5,260 are different functions (`equal_cells`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, OneOf, current, plain_copy
from search_spaces.equal_cells import EDGES, OPERATIONS, representatives
from search_spaces.mixture import gates_of
from search_spaces.network import Network, extract, find_space
from search_spaces.preset import find_preset
from search_spaces.space import Equivalence
from search_spaces.value import Choice, Option

_STRING = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")


@dataclass(frozen=True)
class Preset:
    """The sizes of a network.

    Args:
        channels: of each stage.
        cells: in each stage.
        largest_image: the largest native image size the preset is meant for.
    """

    channels: tuple[int, int, int]
    cells: int
    largest_image: int


PRESETS = {
    "tiny": Preset(channels=(8, 16, 32), cells=1, largest_image=16),
    "full": Preset(channels=(16, 32, 64), cells=5, largest_image=4096),
}


class PlainCell(nn.Module):
    """Four nodes; each is the sum of its edges' operations on the nodes before it, and the last one the output.

    Args:
        operations: of those edges that are there, by `_name`.
    """

    def __init__(self, operations: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, operation in operations.items():
            self.add_module(name, operation)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → the same shape."""
        return _through(x, dict(self.named_children()))


class Zero(nn.Module):
    """The operation `none`, which is only run where its choice is relaxed."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → zeros of the same shape."""
        return torch.zeros_like(x)


class Cell(Elastic):
    """A cell whose edges are choices."""

    def __init__(self, edges: Sequence[Choice], channels: int) -> None:
        super().__init__()
        self.values = self.edges = tuple(edges)
        for edge, choice in zip(EDGES, edges, strict=True):
            layers: dict[Option, nn.Module] = {option: _operation(str(option), channels) for option in choice.options}
            self.add_module(_name(edge), OneOf(choice, layers))

    def _there(self) -> dict[str, nn.Module]:
        """The edges of the bound architecture that are not `none`, and those that are relaxed, by name."""
        names = (
            _name(edge)
            for edge, choice in zip(EDGES, self.edges, strict=True)
            if gates_of(choice.name) is not None or current(choice) != "none"
        )
        return {name: self.get_submodule(name) for name in names}

    def rigid(self) -> tuple[Choice, ...]:
        """None."""
        return ()

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → the same shape."""
        return _through(x, self._there())

    def plain(self) -> PlainCell:
        """The plain cell of the bound architecture."""
        return PlainCell({name: plain_copy(edge) for name, edge in self._there().items()})


def _name(edge: tuple[int, int]) -> str:
    return f"{edge[0]}to{edge[1]}"


def _through(x: Tensor, edges: Mapping[str, nn.Module]) -> Tensor:
    """The last node; None stands for a node that no edge leads to, and is only made zeros where it is the output."""
    nodes: list[Tensor | None] = [x]
    for target in (1, 2, 3):
        total: Tensor | None = None
        for source, node in enumerate(nodes):
            edge = edges.get(_name((source, target)))
            if edge is not None and node is not None:
                total = edge(node) if total is None else total + edge(node)
        nodes.append(total)
    return torch.zeros_like(x) if nodes[-1] is None else nodes[-1]


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

    def __init__(self, preset: Preset, edges: Sequence[Choice], in_channels: int, num_classes: int) -> None:
        super().__init__()
        self._edges = tuple(edges)
        width = preset.channels[0]
        self.stem = nn.Sequential(Conv2d(in_channels, width, 3, bias=False), BatchNorm2d(width))
        for i, channels in enumerate(preset.channels, start=1):
            if i > 1:
                self.add_module(f"reduction{i - 1}", Reduction(width, channels))
            self.add_module(f"stage{i}", nn.Sequential(*(Cell(edges, channels) for _ in range(preset.cells))))
            width = channels
        self.head = nn.Sequential(BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(width, num_classes)

    def equivalence(self) -> Equivalence | None:
        """Cells that are the same function are one, where there are all of them."""
        if any(choice.options != OPERATIONS for choice in self._edges):
            return None
        return Equivalence(tuple(choice.name for choice in self._edges), representatives)


def _relu_conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), Conv2d(inputs, outputs, kernel, stride, bias=False), BatchNorm2d(outputs))


def _operation(name: str, channels: int) -> nn.Module:
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    return _relu_conv_norm(channels, channels, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name])


def nas_bench_201(image_size: int, in_channels: int, num_classes: int, preset: str | None = None) -> CellNetwork:
    """The elastic network of NAS-Bench-201 for images (b, in_channels, image_size, image_size).

    Edge i of `EDGES` is the choice `edge{i}`.

    Args:
        preset: a name in `PRESETS`; by default the one for the image size.

    Raises:
        ValueError: an unknown preset, or an image size that is no multiple of 4.
    """
    found = find_preset("nas_bench_201", PRESETS, image_size, preset, multiple=4)  # residual blocks halve it twice
    return CellNetwork(found, [Choice(f"edge{i}", OPERATIONS) for i in range(len(EDGES))], in_channels, num_classes)


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
        edges = [Choice(f"edge{i}", (op,)) for i, op in enumerate(operations)]
        network = CellNetwork(PRESETS["full"], edges, in_channels, num_classes)
        plain = extract(network, find_space(network).smallest())
        for module in plain.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()  # elastic layers start otherwise
    return plain
