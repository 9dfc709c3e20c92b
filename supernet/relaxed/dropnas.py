"""DropNAS: options are dropped at random, those with weights and those without by themselves.

Hong et al., arXiv:2201.11679 (IJCAI 2020), section 3, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from search_spaces.elastic import OneOf
from search_spaces.mixture import Gates
from search_spaces.value import Choice
from supernet.checks import expect
from supernet.lesson import Lesson
from supernet.relaxed.search import Relaxed, Search
from supernet.strategy import Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner


_TRIES = 100


@dataclass(frozen=True)
class DropNAS(Relaxed):
    """Every step mixes the options that are not dropped by the softmax of their logits (section 3).

    Weights and logits learn together from all images. Options whose layers have weights and those whose layers have
    none are groups; where a choice is not over layers, all its options are one. Of each group at least one is kept.
    After a step the probabilities of dropped options are what they were before (alpha-adjust), and only logits of kept
    options decay (partial-decay; weights that had no gradient are not decayed by the optimizer either).

    Args:
        rate: probability that all options of a group are dropped, before one is kept: each is with rate^(1 / size).

    Raises:
        ValueError: a rate outside 0 to 1.
    """

    rate: float = 3e-5  # each of four options with 0.074

    held_out: ClassVar[float] = 0.0
    affine: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("rate", self.rate, "at least 0 and below 1", lambda v: 0 <= v < 1)

    def start(self, learner: Learner) -> Teaching:
        """As `Relaxed.start`."""
        return _DroppingSearch(self, learner)


class _DroppingSearch(Search):
    """The steps of one training, and the groups of each choice's options."""

    strategy: DropNAS

    def __init__(self, strategy: DropNAS, learner: Learner) -> None:
        super().__init__(strategy, learner)
        self.groups = {choice.name: self._groups(choice) for choice in self.choices}
        for group in self.adam.param_groups:
            group["weight_decay"] = 0.0  # in `update`, of what is kept

    def _groups(self, choice: Choice) -> list[list[int]]:
        """Positions of the options with weights, and of those without."""
        layers = [m for m in self.learner.network.modules() if isinstance(m, OneOf) and m.choice.name == choice.name]
        options = range(len(choice.options))
        weighted = [any(any(True for _ in m.get_submodule(str(i)).parameters()) for m in layers) for i in options]
        groups = [[i for i in options if weighted[i]], [i for i in options if not weighted[i]]]
        return [group for group in groups if group]

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        self.keep_trace(lesson)
        return self.learn_together(lesson)

    def logit_gates(self, lesson: Lesson) -> Mapping[str, Gates]:
        """The softmax over the options that are kept; in the warm-up all are."""
        if lesson.progress < self.strategy.warmup:
            return super().logit_gates(lesson)
        return {name: self._kept(name, values, lesson.rng) for name, values in self.logits.items()}

    def _kept(self, name: str, values: Tensor, rng: np.random.Generator) -> Gates:
        kept = sorted(i for group in self.groups[name] for i in _draw_kept(group, self.strategy.rate, rng))
        place = torch.tensor(kept, device=values.device)
        return Gates(torch.zeros_like(values).index_copy(0, place, torch.softmax(values[place], 0)), tuple(kept))

    def update(self, gradients: tuple[Tensor | None, ...], gates: Mapping[str, Gates]) -> None:
        """Decay and move kept options only, and leave the others' probabilities alone."""
        before = {name: values.detach().clone() for name, values in self.logits.items()}
        decayed = tuple(
            None if gradient is None else gradient + self.strategy.decay * _only(before[name], gates[name].computed)
            for name, gradient in zip(self.logits, gradients, strict=True)
        )
        super().update(decayed, gates)
        self.keep_others(before, gates)


def _draw_kept(group: list[int], rate: float, rng: np.random.Generator) -> list[int]:
    """Drop each with probability rate^(1 / size), all over again where none is left, and at last all but one."""
    for _ in range(_TRIES):
        kept = [i for i, u in zip(group, rng.random(len(group)), strict=True) if u >= rate ** (1 / len(group))]
        if kept:
            return kept
    return [group[rng.integers(len(group))]]


def _only(values: Tensor, positions: tuple[int, ...]) -> Tensor:
    place = torch.tensor(positions, device=values.device)
    return torch.zeros_like(values).index_copy(0, place, values[place])
