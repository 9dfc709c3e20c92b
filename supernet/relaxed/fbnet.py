"""FBNet: Gumbel softmax over all options, and a loss with the logarithm of expected latency.

Wu et al., arXiv:1812.03443, sections 3.2, 3.3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from search_spaces.mixture import Gates
from supernet.checks import expect
from supernet.lesson import Lesson
from supernet.relaxed.search import Relaxed, Search, gumbel
from supernet.strategy import Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner

_MICROSECONDS = 1e6


@dataclass(frozen=True)
class FBNet(Relaxed):
    """Every step mixes all options by Gumbel-softmax weights (section 3.3), whose temperature falls exponentially
    once the warm-up is over. The paper's is multiplied by e^(-0.045) after every epoch of 90, from the first on, though
    in its first 10 only weights learn; here it falls at that rate over the other 80.

    Logits learn to lower label loss · alpha · log(latency)^beta (equation 2), where there is a table, with the latency
    of the drawn weights (equation 3, made continuous). A fifth of the images is theirs (section 4).
    Norms in the mixed layers keep their γ and β: the paper does not take them away, and as the temperature falls the
    weights come close to draws of one option, which γ cannot undo.

    Args:
        temperature: up to the first step after the warm-up, and at the last.
        alpha: factor of the loss.
        beta: exponent of the latency's logarithm.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: tuple[float, float] = (5.0, 0.14)  # 5 · e^(-0.045 · 79), section 4
    alpha: float = 0.2
    beta: float = 0.6

    held_out: ClassVar[float] = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in (*self.temperature, self.alpha):
            expect("temperature and alpha", value, "finite and above 0", lambda v: 0 < v < math.inf)
        expect("beta", self.beta, "finite and at least 0", lambda v: 0 <= v < math.inf)

    def start(self, learner: Learner) -> Teaching:
        """As `Relaxed.start`."""
        return _GumbelSearch(self, learner)


class _GumbelSearch(Search):
    """The steps of one training."""

    strategy: FBNet

    def logit_gates(self, lesson: Lesson) -> Mapping[str, Gates]:
        """Gumbel-softmax weights of all options."""
        first, last = self.strategy.temperature
        temperature = first * (last / first) ** self.searched(lesson.progress)
        drawn = {name: values + gumbel(values, lesson.rng) for name, values in self.logits.items()}
        return {name: Gates(torch.softmax(values / temperature, 0)) for name, values in drawn.items()}

    def expected_cost(self, gates: Mapping[str, Gates]) -> Tensor | None:
        """The cost of the drawn weights."""
        if self.expected is None:
            return None
        return self.expected({name: gate.weights for name, gate in gates.items()})

    def objective(self, label_loss: Tensor, cost_s: Tensor | None) -> Tensor:
        """Equation 2, with the latency in microseconds, and 1 added to it so that its logarithm is never negative."""
        if cost_s is None:
            return label_loss
        return label_loss * self.strategy.alpha * torch.log1p(cost_s * _MICROSECONDS) ** self.strategy.beta
