"""What a strategy is: it says which architectures a step trains, and what each of them learns from.

A strategy is a small frozen value, part of a recipe and so of a training's identity.  `start` makes the object that
takes the steps of one training; most have no state and are that object themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor, nn

from search_spaces.space import Architecture, SearchSpace
from supernet.lesson import Lesson

if TYPE_CHECKING:
    from supernet.learner import Learner


class Teaching(Protocol):
    """The steps of one training under way."""

    def step(self, lesson: Lesson) -> float:
        """Add the gradients of one step to the network's parameters; gives the loss to record.

        Raises:
            TrainingDiverged: a loss is not finite.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that steps change beside weights, their average and the optimizer; the step's number is known."""
        ...

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        ...


class Strategy:
    """Base of strategies, and of their steps where these need no state.

    Attributes:
        held_out: share of the training images that weights do not learn from, for what a strategy learns besides.
    """

    held_out: ClassVar[float] = 0.0

    def prepare_(self, network: nn.Module) -> None:
        """Give a freshly built network what the strategy trains besides its layers."""

    def ends(self, space: SearchSpace) -> tuple[Architecture, Architecture]:
        """The dearest and the cheapest architecture that are trained, whose accuracies tell how training goes."""
        return space.largest(), space.smallest()

    def start(self, learner: Learner) -> Teaching:
        """Begin the training of a learner."""
        return self

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        raise NotImplementedError(f"{type(self).__name__} says neither step nor start")

    def state(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to take."""
