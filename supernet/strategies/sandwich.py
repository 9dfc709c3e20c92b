"""The sandwich rule with in-place distillation.

Sources: Yu and Huang, Universally slimmable networks (arXiv:1903.05134), sections 3.2 and 3.3; Yu et al., BigNAS
(arXiv:2003.11142), section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from supernet.checks import at_least
from supernet.distill import Divergence, kl_divergence
from supernet.lesson import Lesson
from supernet.strategy import Strategy


@dataclass(frozen=True)
class Sandwich(Strategy):
    """Each step trains the largest architecture on labels; the smallest and random ones imitate it.

    Training both ends lifts all that lies between, since every subnet's weights contain the smallest's and are
    contained in the largest's.

    Args:
        randoms: random architectures in a step.

    Raises:
        ValueError: `randoms` is negative.
    """

    randoms: int = 4

    def __post_init__(self) -> None:
        at_least("randoms", self.randoms, 0)

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        teacher, loss = lesson.learn(lesson.space.largest())
        for arch in (lesson.space.smallest(), *lesson.sample(self.randoms)):
            lesson.imitate(arch, teacher, self.divergence)
        return loss

    @property
    def divergence(self) -> Divergence:
        """From the largest architecture's outputs to those of the others."""
        return kl_divergence
