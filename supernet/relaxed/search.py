"""What all differentiable searches share: logits beside the weights, a second optimizer, and a bound on expected cost.

Bilevel optimisation by alternating steps, first order: Liu et al., DARTS (arXiv:1806.09055), algorithm 1 with ξ = 0.
The bound: what the expected cost exceeds it by is charged at a price that rises for as long as it does, an exact
penalty by dual ascent (Bertsekas, Constrained Optimization and Lagrange Multiplier Methods, 1982, chapter 4). That
a search should hold a bound, and not trade it for accuracy, is HardCoRe-NAS's (arXiv:2102.11646), which keeps to it by
Frank-Wolfe steps; here `best_architectures` has the last word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from search_spaces.mixture import Gates, relaxed
from search_spaces.network import relaxable
from search_spaces.space import Architecture
from search_spaces.value import Choice
from supernet.checks import expect
from supernet.distributed import average_
from supernet.lesson import Lesson, TrainingDiverged
from supernet.relaxed.best import check_possible
from supernet.relaxed.cost_table import CostTable, ExpectedCost
from supernet.strategy import Strategy, Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner

_TRACES = 50  # records of all probabilities in a training
_PRESSURE = 100.0  # what the price gains in a training whose expected cost is twice the bound while logits learn
_TINY = 1e-30  # the least probability whose logarithm is kept

Weights = Mapping[str, Gates]


@dataclass(frozen=True)
class Relaxed(Strategy):
    """Base of strategies that learn, as they train, how probable each option is.

    Choices that layers cannot mix (`search_spaces.network.relaxable`) are drawn at random in each step.

    Args:
        reach: how far a logit can go in the whole training. Adam's steps are about its learning rate long, which so is
            reach / steps in which logits learn; DARTS' 3e-4 over its 20,000 steps make 6.
        decay: of logits towards 0, as in DARTS.
        warmup: share of the steps at the start in which only weights learn, with all options alike.
        table: what architectures cost.
        max_cost: seconds that the expected cost is held to, and that found architectures must keep to.

    Attributes:
        held_out: share of the training images from which the logits learn.
        betas: of Adam.
        affine: whether norms in mixed layers scale and shift while the search trains; without, they keep their γ and β.

    Raises:
        ValueError: a value outside its range, or a bound without a table.
    """

    reach: float = 6.0
    decay: float = 1e-3
    warmup: float = 0.2
    table: CostTable | None = None
    max_cost: float | None = None

    held_out: ClassVar[float] = 0.5
    betas: ClassVar[tuple[float, float]] = (0.5, 0.999)  # DARTS, section 3.1.1
    affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        expect("reach", self.reach, "finite and above 0", lambda v: 0 < v < math.inf)
        expect("decay", self.decay, "finite and at least 0", lambda v: 0 <= v < math.inf)
        expect("warmup", self.warmup, "at least 0 and below 1", lambda v: 0 <= v < 1)
        expect("max_cost", self.max_cost, "finite and above 0", lambda v: 0 < v < math.inf)
        if self.max_cost is not None and self.table is None:
            raise ValueError(f"a bound of {self.max_cost:g} s needs a cost table: give table as well")

    def start(self, learner: Learner) -> Teaching:
        """As `Strategy.start`.

        Raises:
            ValueError: no choice can be relaxed, or no architecture keeps to the bound.
        """
        return Search(self, learner)


class Search:
    """The steps of one training; a method changes which options a step mixes and what its logits learn from."""

    def __init__(self, strategy: Relaxed, learner: Learner) -> None:
        self.strategy, self.learner = strategy, learner
        self.choices = self._choices()
        if not self.choices:
            raise ValueError(f"no choice of {learner.space.name!r} can be relaxed: train with another strategy")
        self.logits = {c.name: self._start(c).to(learner.device).requires_grad_() for c in self.choices}
        self.adam = torch.optim.Adam(self.logits.values(), betas=strategy.betas, weight_decay=strategy.decay)
        self.expected = None if strategy.table is None else ExpectedCost(strategy.table, learner.space, learner.device)
        self.usual_s = 0.0 if self.expected is None else float(self.expected({}))  # of all options alike
        if strategy.table is not None and strategy.max_cost is not None:
            check_possible(learner.space, strategy.table, strategy.max_cost)
        self.multiplier = 0.0
        self.trace: list[Tensor] = []

    def _choices(self) -> tuple[Choice, ...]:
        """The choices that the method relaxes."""
        choices = relaxable(self.learner.network, self.learner.space)
        return tuple(choice for choice in choices if len(choice.options) > 1)

    def _start(self, choice: Choice) -> Tensor:
        """What is learnt for a choice, as it starts: logits (k,) of its options, all alike."""
        return torch.zeros(len(choice.options))

    @property
    def learning_steps(self) -> int:
        """The number of steps, at least 1, in which logits learn."""
        steps = self.learner.total_steps
        return max(1, steps - math.ceil(self.strategy.warmup * steps))

    def searched(self, progress: float) -> float:
        """The share, 0 to 1, of the steps in which logits learn that is over."""
        return max(0.0, progress - self.strategy.warmup) / (1 - self.strategy.warmup)

    # -- steps ---------------------------------------------------------------------------------------

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`: logits learn from held-out images, then weights from the step's."""
        self.keep_trace(lesson)
        if lesson.progress >= self.strategy.warmup:
            self._learn_logits(lesson)
        return lesson.backward(lesson.label_loss(self.forward_for_weights(lesson)))

    def forward_for_weights(self, lesson: Lesson) -> Tensor:
        """Logits (b, classes) of the network from which the step's weights learn."""
        with torch.no_grad():
            gates = self.logit_gates(lesson)
        return self.forward(lesson, gates)

    def logit_gates(self, lesson: Lesson) -> Weights:
        """What the step mixes for its logits to learn: the softmax of them (DARTS, equation 2)."""
        return {name: Gates(p) for name, p in self.probabilities().items()}

    def probabilities(self) -> dict[str, Tensor]:
        """Probabilities (k,) of each relaxed choice's options."""
        return {name: torch.softmax(values, 0) for name, values in self.logits.items()}

    def log_probabilities(self) -> dict[str, Tensor]:
        """Logarithms (k,) of the probabilities, in float64; a method whose probabilities may vanish overrides it."""
        return {name: p.double().clamp(min=_TINY).log() for name, p in self.probabilities().items()}

    def objective(self, label_loss: Tensor, cost_s: Tensor | None) -> Tensor:
        """What the logits learn to lower, but for the bound."""
        return label_loss

    def forward(self, lesson: Lesson, gates: Weights, x: Tensor | None = None) -> Tensor:
        """Logits (b, classes) of the mixed network; what is not relaxed is drawn anew."""
        with relaxed(gates, self.strategy.affine):
            return lesson.logits(self._drawn(lesson), x)

    def _drawn(self, lesson: Lesson) -> Architecture:
        """Every choice drawn uniformly and not made canonical: a relaxed choice runs all that it could switch off."""
        space = self.learner.space
        return Architecture(space, tuple(int(lesson.rng.integers(len(choice.options))) for choice in space.choices))

    def learn_together(self, lesson: Lesson) -> float:
        """One step of weights and logits on the same images, and once the warm-up is over of both; the label loss."""
        learning = lesson.progress >= self.strategy.warmup
        gates = self.logit_gates(lesson)
        label_loss = lesson.label_loss(self.forward(lesson, gates))
        loss = self.objective(label_loss, self.expected_cost(gates)) + self.price() if learning else label_loss
        lesson.backward(loss)
        if learning:
            self.update(tuple(values.grad for values in self.logits.values()), gates)
        self.adam.zero_grad(set_to_none=True)
        return float(label_loss.detach())

    def _learn_logits(self, lesson: Lesson) -> None:
        """One step of the logits by themselves: no gradient is left on the network's weights."""
        x, target = lesson.held_out()
        gates = self.logit_gates(lesson)
        label_loss = lesson.label_loss(self.forward(lesson, gates, x), target)
        loss = self.objective(label_loss, self.expected_cost(gates)) + self.price()
        if not math.isfinite(float(loss.detach())):
            raise TrainingDiverged(f"the loss of the architecture parameters is {float(loss.detach())}")
        gradients = torch.autograd.grad(loss, list(self.logits.values()), allow_unused=True)
        self.update(gradients, gates)

    def expected_cost(self, gates: Weights) -> Tensor | None:
        """Expected seconds for the objective; None without a table."""
        return None if self.expected is None else self.expected(self.probabilities())

    def update(self, gradients: tuple[Tensor | None, ...], gates: Weights) -> None:
        """Let the logits follow their gradients; those without one, that nothing read, stay with their moments.

        Of several processes, all have the same logits: they follow the mean of all gradients.

        Raises:
            TrainingDiverged: a gradient is not finite; no logit was moved.
        """
        given = [gradient for gradient in gradients if gradient is not None]
        average_(given)  # first, so that all processes find the same
        if given and not bool(torch.cat([gradient.flatten() for gradient in given]).isfinite().all()):
            raise TrainingDiverged("a gradient of the architecture parameters is not finite")
        for values, gradient in zip(self.logits.values(), gradients, strict=True):
            values.grad = gradient
        for group in self.adam.param_groups:
            group["lr"] = self.strategy.reach / self.learning_steps
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def keep_others(self, before: Mapping[str, Tensor], gates: Weights) -> None:
        """Take back what a step changed in the probabilities of options that were off.

        Their logits stay, and those of the options that were on are shifted to their joint probability of before.
        """
        with torch.no_grad():
            for name, values in self.logits.items():
                on = list(gates[name].computed)
                moved = values[on] + torch.logsumexp(before[name][on], 0) - torch.logsumexp(values[on], 0)
                values.copy_(before[name])
                values[on] = moved

    def price(self) -> Tensor | float:
        """What an expected cost beyond the bound is charged; the multiplier takes its step.

        Nothing is charged below the bound, and the multiplier never falls: a linear price that goes on for a while once
        the bound is kept would drive everything to the cheapest option, as Adam's steps are long whatever the gradient.

        Raises:
            TrainingDiverged: the expected cost is not finite; the multiplier stays.
        """
        if self.expected is None or self.strategy.max_cost is None:
            return 0.0
        cost_s = self.expected(self.probabilities())
        if not math.isfinite(float(cost_s.detach())):
            raise TrainingDiverged(f"the expected cost is {float(cost_s.detach())} s")
        excess = (cost_s / self.strategy.max_cost - 1).clamp(min=0)
        self.multiplier += _PRESSURE / self.learning_steps * float(excess.detach())
        return self.multiplier * excess

    # -- what is kept --------------------------------------------------------------------------------

    def keep_trace(self, lesson: Lesson) -> None:
        """Record all probabilities at even distances."""
        if len(self.trace) <= lesson.progress * _TRACES:
            with torch.no_grad():
                probabilities = torch.cat(list(self.probabilities().values()))
            self.trace.append(torch.cat([torch.tensor([lesson.progress]), probabilities.cpu()]))

    def state(self) -> dict[str, Tensor]:
        """As `Teaching.state`: what Adam moves, its moments and steps, the multiplier, the trace (t, 1 + options).

        Besides, under `logits/`, the logarithms (k,) of the probabilities as they are, for `found_architectures`.
        """
        tensors = {f"learnt/{name}": values.detach() for name, values in self.logits.items()}
        with torch.no_grad():
            tensors |= {f"logits/{name}": values for name, values in self.log_probabilities().items()}
        tensors["multiplier"] = torch.tensor(self.multiplier, dtype=torch.float64)
        if self.trace:
            tensors["trace"] = torch.stack(self.trace)
        for index, slots in self.adam.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": torch.as_tensor(value) for name, value in slots.items()}
        return tensors

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """As `Teaching.load_`."""
        with torch.no_grad():
            for name, values in self.logits.items():
                values.copy_(tensors[f"learnt/{name}"])
        self.multiplier = float(tensors["multiplier"])
        self.trace = list(tensors["trace"].cpu()) if "trace" in tensors else []
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adam/"):
                _, index, name = key.split("/")
                slots.setdefault(int(index), {})[name] = value
        self.adam.load_state_dict({"state": slots, "param_groups": self.adam.state_dict()["param_groups"]})


def one_hot(size: int, index: int, like: Tensor) -> Tensor:
    """Weights (size,) of which one is 1."""
    hard = torch.zeros(size, dtype=like.dtype, device=like.device)
    hard[index] = 1.0
    return hard


def draw(probabilities: Tensor, rng: np.random.Generator, n: int = 1) -> list[int]:
    """Draw n different positions with these probabilities (k,), one after the other."""
    p = probabilities.detach().double().cpu().numpy()
    return [int(i) for i in rng.choice(len(p), n, replace=False, p=p / p.sum())]


def gumbel(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Standard Gumbel noise of the shape of `like`."""
    return torch.from_numpy(rng.gumbel(size=like.shape)).to(like)
