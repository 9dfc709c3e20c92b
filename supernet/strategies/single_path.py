"""Uniform sampling of single paths: SPOS (Guo et al., arXiv:1904.00420), section 3.2."""

from __future__ import annotations

from dataclasses import dataclass

from supernet.checks import at_least
from supernet.lesson import Lesson
from supernet.strategy import Strategy


@dataclass(frozen=True)
class SinglePath(Strategy):
    """Each step trains random architectures on labels, every choice uniform and all of them alike.

    Args:
        paths: architectures in a step, whose gradients add up; one in the paper.

    Raises:
        ValueError: `paths` is below 1.
    """

    paths: int = 1

    def __post_init__(self) -> None:
        at_least("paths", self.paths, 1)

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        return sum(lesson.learn(arch)[1] for arch in lesson.sample(self.paths)) / self.paths
