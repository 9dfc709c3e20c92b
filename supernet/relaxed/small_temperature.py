"""Small temperature: mixtures that become all but single options while they train.

Zhang and Ding, Small temperature is all you need for differentiable architecture search (arXiv:2306.06855). The paper's
are three ideas: a small temperature that falls exponentially, a sparse-noisy softmax against its saturated gradients,
and adaptation by entropy. Their forms are this toolkit's own, after the paper's abstract, and are said below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from search_spaces.mixture import Gates
from supernet.checks import at_least, expect
from supernet.lesson import Lesson
from supernet.relaxed.search import Relaxed, Search, gumbel
from supernet.strategy import Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner

_HALVINGS = 24


@dataclass(frozen=True)
class SmallTemperature(Relaxed):
    """As `Darts`, but by the softmax of (logits + noise) / temperature over the most probable options only.

    Noise: Gumbel's times `noise`, so that an option whose weight has vanished is now and then seen again, and its logit
    has a gradient; where the temperature is below the schedule's, smaller in the same ratio. Sparse: only the `kept`
    largest have a weight and are computed. Adaptation: where the entropy of a choice is above that of the schedule, the
    share (last / first)^progress of the greatest, the choice has a smaller temperature, at which it is not. Norms in
    the mixed layers are without γ and β, as in `Darts`.

    Args:
        temperature: at the first and at the last step after the warm-up.
        noise: scale of the noise, in logits, at the schedule's temperature.
        kept: options that are mixed.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: tuple[float, float] = (1.0, 0.05)
    noise: float = 0.1
    kept: int = 3

    affine: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in self.temperature:
            expect("temperature", value, "finite and above 0", lambda v: 0 < v < math.inf)
        expect("noise", self.noise, "finite and at least 0", lambda v: 0 <= v < math.inf)
        at_least("kept", self.kept, 1)

    def start(self, learner: Learner) -> Teaching:
        """As `Relaxed.start`."""
        return _ColdSearch(self, learner)


class _ColdSearch(Search):
    """The steps of one training."""

    strategy: SmallTemperature

    def __init__(self, strategy: SmallTemperature, learner: Learner) -> None:
        self.progress = 0.0
        super().__init__(strategy, learner)

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        self.progress = lesson.progress
        return super().step(lesson)

    def probabilities(self) -> dict[str, Tensor]:
        """Probabilities (k,) at each choice's temperature; in the warm-up all logits are equal."""
        return {name: torch.softmax(values / self._temperature(values), 0) for name, values in self.logits.items()}

    def log_probabilities(self) -> dict[str, Tensor]:
        """Logarithms (k,) of the probabilities in float64: at a low temperature all but one vanish in float32."""
        cold = {name: values.double() / self._temperature(values) for name, values in self.logits.items()}
        return {name: torch.log_softmax(values, 0) for name, values in cold.items()}

    def _temperature(self, values: Tensor) -> float:
        return adapted(values.detach().double().cpu().numpy(), self.strategy.temperature, self.searched(self.progress))

    def logit_gates(self, lesson: Lesson) -> Mapping[str, Gates]:
        """Sparse-noisy softmax; in the warm-up all options alike."""
        if lesson.progress < self.strategy.warmup:
            return super().logit_gates(lesson)
        return {name: self._sparse(values, lesson) for name, values in self.logits.items()}

    def _sparse(self, values: Tensor, lesson: Lesson) -> Gates:
        temperature = self._temperature(values)
        # It is adapted to logits without noise, which would be far above what tells close ones apart.
        share = temperature / scheduled(self.strategy.temperature, self.searched(self.progress))
        noisy = values + self.strategy.noise * share * gumbel(values, lesson.rng)
        place = noisy.detach().topk(min(self.strategy.kept, len(values))).indices.sort().values
        sharp = torch.softmax(noisy[place] / temperature, 0)
        weights = torch.zeros_like(values).index_copy(0, place, sharp)
        return Gates(weights, tuple(place.tolist()))

    def state(self) -> dict[str, Tensor]:
        """As `Search.state`, with the progress that temperatures depend on."""
        return super().state() | {"progress": torch.tensor(self.progress, dtype=torch.float64)}

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """As `Search.load_`."""
        super().load_(tensors)
        self.progress = float(tensors["progress"])


def scheduled(temperature: tuple[float, float], progress: float) -> float:
    """The temperature of the schedule, which falls exponentially from its first to its last value."""
    first, last = temperature
    return float(first * (last / first) ** progress)


def adapted(logits: np.ndarray, temperature: tuple[float, float], progress: float) -> float:
    """The temperature of the schedule, or the largest below it at which logits (k,) have the scheduled entropy.

    That of the schedule as well where none is low enough, as more of the best logits are equal than would have it.
    """
    first, last = temperature
    low, high = 0.0, scheduled(temperature, progress)
    most = high / first * math.log(len(logits))
    tied = int((logits == logits.max()).sum())
    if math.log(tied) >= most or _entropy(logits / high) <= most:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _entropy(logits / middle) <= most else (low, middle)
    return max(low, last * 1e-3)


def _entropy(logits: np.ndarray) -> float:
    log_p = logits - np.logaddexp.reduce(logits)
    return -float((np.exp(log_p) * log_p).sum())
