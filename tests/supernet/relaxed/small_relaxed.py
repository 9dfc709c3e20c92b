"""A network with every kind of relaxed choice, small enough to search in a second."""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.cell import EDGES, Cell
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, Resize, Sequence, activation
from search_spaces.network import Network, find_space
from search_spaces.value import Choice
from supernet.catalog import STRATEGIES
from supernet.data import Dataset
from supernet.recipe import Recipe
from supernet.relaxed.cost_table import CostTable

OPTIONS = ("none", "skip_connect", "nor_conv_3x3")
RELAXED = [name for name, entry in STRATEGIES.items() if entry.relaxed]


class SmallCells(Network):
    """A cell, blocks of elastic depth, width, kernel and expansion, and an elastic resolution, which is not relaxed."""

    def __init__(self) -> None:
        super().__init__()
        width, act = Choice("width", (4, 8)), Choice("act", ("relu", "h-swish"))
        self.resize = Resize(Choice("resolution", (4, 6)), native=6)
        self.stem = nn.Sequential(Conv2d(1, 4, 3, bias=False), BatchNorm2d(4))
        self.cell = Cell([Choice(f"edge{i}", OPTIONS) for i in range(len(EDGES))], 4)
        blocks, inputs = [], 4
        for i in range(2):
            kernel, expansion = Choice(f"kernel{i}", (3, 5)), Choice(f"expansion{i}", (1, 2))
            hidden = inputs * expansion
            layers = [Conv2d(inputs, hidden, bias=False), BatchNorm2d(hidden), activation(act)]
            layers += [Conv2d(hidden, hidden, kernel, groups=hidden, bias=False), BatchNorm2d(hidden)]
            blocks.append(nn.Sequential(*layers, Conv2d(hidden, width, bias=False), BatchNorm2d(width)))
            inputs = width
        self.body = Sequence(*blocks, depth=Choice("depth", (1, 2)))
        self.classifier = Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(self.cell(self.stem(self.resize(x)))).mean((2, 3)))


def small_cells(seed: int = 0) -> SmallCells:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallCells()


SPACE = find_space(small_cells())
TABLE = CostTable(1.0, {choice.name: np.arange(len(choice.options), dtype=float) for choice in SPACE.choices})


def stripes(n: int = 120, seed: int = 0) -> Dataset:
    """Three kinds of stripes under noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(0, 0.5, (n, 1, 6, 6)).astype(np.float32)
    x[y == 0, :, ::2] += 1
    x[y == 1, :, :, ::2] += 1
    cuts = [slice(0, 2 * n // 3), slice(2 * n // 3, 5 * n // 6), slice(5 * n // 6, n)]
    (a, b), (c, d), (e, f) = [(x[cut], y[cut]) for cut in cuts]
    return Dataset("stripes", a, b, c, d, e, f, 3, (0.0,), (1.0,), True)


def recipe(name: str, epochs: int = 3, **settings: object) -> Recipe:
    strategy = dataclasses.replace(STRATEGIES[name].make(), **settings)
    return Recipe(strategy=strategy, epochs=epochs, batch=20, lr=0.1, warmup=0.0, evaluations=1, shift=0)
