"""A list of architectures and no others: what networks reach whose weights are shared among these few only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces.space import Architecture, SearchSpace
from supernet.checks import at_least
from supernet.lesson import Lesson
from supernet.strategy import Strategy, Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner


@dataclass(frozen=True)
class Among(Strategy):
    """Each step trains the next ones of a list of architectures on labels, around and around: all equally often.

    Subnets that a search has found are trained so before they are judged, beside those they are compared with: the
    mixtures of a search leave weights that none of its options was trained with alone.

    Args:
        rows: their indices (n, d), from the cheapest to the dearest.
        paths: architectures in a step, whose gradients add up.

    Raises:
        ValueError: no rows, or `paths` is below 1.
    """

    rows: tuple[tuple[int, ...], ...]
    paths: int = 2

    def __post_init__(self) -> None:
        at_least("the number of rows", len(self.rows), 1)
        at_least("paths", self.paths, 1)

    def ends(self, space: SearchSpace) -> tuple[Architecture, Architecture]:
        """As `Strategy.ends`: of the list."""
        return space.row(self.rows[-1]), space.row(self.rows[0])

    def start(self, learner: Learner) -> Teaching:
        """As `Strategy.start`."""
        return _Round(self)


class _Round:
    """The steps of one training, which knows whose turn it is."""

    def __init__(self, strategy: Among) -> None:
        self.strategy, self.next = strategy, 0

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        rows, paths = self.strategy.rows, min(self.strategy.paths, len(self.strategy.rows))
        turn = [rows[(self.next + i) % len(rows)] for i in range(paths)]
        self.next = (self.next + paths) % len(rows)
        return sum(lesson.learn(lesson.space.row(row))[1] for row in turn) / paths

    def state(self) -> dict[str, Tensor]:
        """As `Teaching.state`."""
        return {"next": torch.tensor(self.next)}

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """As `Teaching.load_`."""
        self.next = int(tensors["next"])
