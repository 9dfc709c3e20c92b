"""ProxylessNAS: binary gates, of which one path is computed for weights and two for architecture parameters.

Cai, Zhu and Han, arXiv:1812.00332, sections 3.1 to 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from search_spaces.mixture import Gates
from search_spaces.space import Architecture
from supernet.checks import expect
from supernet.lesson import Lesson
from supernet.relaxed.search import Relaxed, Search, draw, one_hot
from supernet.strategy import Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner


@dataclass(frozen=True)
class ProxylessNAS(Relaxed):
    """Each step draws one option of each choice for the weights (equations 2 and 3): the memory is that of one network.

    For the logits two options are drawn, of which one is taken; gates pass their gradients to the logits of both
    (equation 4, between the two as in section 3.2.1), which are then rescaled so that the other options' probabilities
    stay. Adam is without momentum and decay, as in the authors' code. Layers of the option that is not taken, and those
    beyond the depth that is, run without history.

    Args:
        cost_weight: of the expected latency (equations 5 and 6), as a share of that of all options alike, where there
            is a table.

    Raises:
        ValueError: a value outside its range.
    """

    decay: float = 0.0
    cost_weight: float = 0.1

    held_out: ClassVar[float] = 0.2
    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("cost_weight", self.cost_weight, "finite and at least 0", lambda v: 0 <= v < math.inf)

    def start(self, learner: Learner) -> Teaching:
        """As `Relaxed.start`."""
        return _BinarySearch(self, learner)


class _BinarySearch(Search):
    """The steps of one training."""

    strategy: ProxylessNAS

    def forward_for_weights(self, lesson: Lesson) -> Tensor:
        """Logits (b, classes) of one option of each choice, drawn by its probability; nothing is mixed."""
        drawn = {name: draw(p, lesson.rng)[0] for name, p in self.probabilities().items()}
        others = self._drawn(lesson)
        names = (choice.name for choice in others.space.choices)
        indices = tuple(drawn.get(name, i) for name, i in zip(names, others.indices, strict=True))
        return lesson.logits(Architecture(others.space, indices))

    def logit_gates(self, lesson: Lesson) -> Mapping[str, Gates]:
        """Two options of each choice: one is taken, the other stands by."""
        return {name: self._two(values, lesson) for name, values in self.logits.items()}

    def _two(self, values: Tensor, lesson: Lesson) -> Gates:
        probabilities = torch.softmax(values.detach(), 0)
        pair = draw(probabilities, lesson.rng, min(2, len(values)))
        taken = pair[draw(probabilities[pair], lesson.rng)[0]]
        shares = torch.softmax(values[pair], 0)
        # In value 1 for what is taken and 0 for the rest; in gradient the shares of the two.
        passed = torch.zeros_like(values).index_add(0, torch.tensor(pair, device=values.device), shares)
        weights = one_hot(len(values), taken, values) + passed - passed.detach()
        return Gates(weights, tuple(sorted(pair)), tuple(i for i in pair if i != taken))

    def expected_cost(self, gates: Mapping[str, Gates]) -> Tensor | None:
        """Expected seconds (equations 5 and 6), a function of the two logits of each choice only."""
        if self.expected is None:
            return None
        return self.expected({name: _renewed(self.logits[name], gate.computed) for name, gate in gates.items()})

    def objective(self, label_loss: Tensor, cost_s: Tensor | None) -> Tensor:
        """Equation 7: label loss and weighted expected latency; weights' decay is the optimizer's."""
        if cost_s is None or self.usual_s <= 0:
            return label_loss
        return label_loss + self.strategy.cost_weight * cost_s / self.usual_s

    def update(self, gradients: tuple[Tensor | None, ...], gates: Mapping[str, Gates]) -> None:
        """Rescaled after the step, so that the two logits keep their joint probability (section 3.2.1)."""
        before = {name: values.detach().clone() for name, values in self.logits.items()}
        super().update(gradients, gates)
        self.keep_others(before, gates)


def _renewed(values: Tensor, pair: tuple[int, ...]) -> Tensor:
    """Probabilities (k,) with gradients to the logits of `pair` only, which share what they have."""
    probabilities = torch.softmax(values.detach(), 0)
    shares = probabilities[list(pair)].sum() * torch.softmax(values[list(pair)], 0)
    return probabilities.index_copy(0, torch.tensor(pair, device=values.device), shares)
