"""One architecture alone: what its weights reach when they are shared with no other."""

from __future__ import annotations

from dataclasses import dataclass

from supernet.lesson import Lesson
from supernet.strategy import Strategy


@dataclass(frozen=True)
class Only(Strategy):
    """Each step trains the architecture of a row of indices (d,) on labels, and nothing else.

    Subnets that are trained so stand alone: the truth that inherited accuracies are held against.
    """

    indices: tuple[int, ...]

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        return lesson.learn(lesson.space.row(self.indices))[1]
