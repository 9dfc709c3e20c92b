"""Superkernels: kernel sizes and expansions as parts of one kernel, each used where its weights outgrow a threshold.

Stamoulis et al., Single-Path NAS (arXiv:1904.02877), section 3, and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from search_spaces.elastic import Conv2d
from search_spaces.mixture import Gates
from search_spaces.network import relaxable
from search_spaces.space import SearchSpace
from search_spaces.value import Choice, choices_of, resolve
from supernet.checks import expect
from supernet.lesson import Lesson
from supernet.relaxed.search import Relaxed, Search
from supernet.strategy import Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner

_TINY = 1e-12


@dataclass(frozen=True)
class SuperKernel(Relaxed):
    """Kernel sizes and expansions of depthwise convolutions are learnt with the weights, on one path.

    What option i adds to the kernel of option i - 1, taps around it or channels after it, is used where the indicator
    of its size against a threshold holds (equations 1 to 6); its gradient is that of a sigmoid of the difference. The
    loss is label loss + cost_weight · log(cost), with the cost of what the indicators say (section 3).
    Weights and thresholds learn together from all images. All other choices are drawn at random.

    Two things are this toolkit's: the size is the root mean square of the added weights over that of the smallest
    option's, and not their norm, so that a threshold is as far away in every layer; and the indicators' dropout of the
    authors' code falls linearly to nothing.

    Args:
        cost_weight: of the cost's logarithm, where there is a table.
        drop: probability at the first step that an indicator is taken as 0.

    Raises:
        ValueError: a value outside its range.
    """

    cost_weight: float = 0.1
    drop: float = 0.5

    held_out: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("cost_weight", self.cost_weight, "finite and at least 0", lambda v: 0 <= v < math.inf)
        expect("drop", self.drop, "between 0 and 1", lambda v: 0 <= v <= 1)

    def start(self, learner: Learner) -> Teaching:
        """As `Relaxed.start`.

        Raises:
            ValueError: besides, the space has neither kernel sizes nor expansions of depthwise convolutions.
        """
        return _ThresholdSearch(self, learner)


class _ThresholdSearch(Search):
    """The steps of one training; learnt of a choice are the thresholds (k - 1,) of its options but the first."""

    strategy: SuperKernel

    def _choices(self) -> tuple[Choice, ...]:
        network, space = self.learner.network, self.learner.space
        # A choice that is a number of channels by itself is a width; an expansion only multiplies one.
        layers = [m for m in network.modules() if isinstance(m, Conv2d)]
        widths = {m.out_channels.name for m in layers if isinstance(m.out_channels, Choice)}
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for choice in relaxable(network, space):
            parts = [part for conv in filter(_is_depthwise, layers) if (part := _part(conv, choice, space)) is not None]
            if parts and choice.name not in widths:
                self.parts[choice.name] = parts
        if not self.parts:
            raise ValueError(
                f"superkernel is for spaces with kernel sizes or expansions of depthwise convolutions, such as mbconv; "
                f"{space.name!r} has none: take another strategy"
            )
        return tuple(choice for choice in space.choices if choice.name in self.parts)

    def _start(self, choice: Choice) -> Tensor:
        return torch.zeros(len(choice.options) - 1)

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        self.keep_trace(lesson)
        return self.learn_together(lesson)

    def logit_gates(self, lesson: Lesson) -> Mapping[str, Gates]:
        """Weights of which one is 1, as the indicators say."""
        drop = self.strategy.drop * (1 - lesson.progress)
        gates = {}
        for name, thresholds in self.logits.items():
            soft = torch.sigmoid(self._sizes(name) - thresholds)
            hard = (soft.detach() > 0.5).to(soft.dtype)
            kept = torch.from_numpy(lesson.rng.random(len(soft)) >= drop).to(soft)
            gates[name] = Gates(_nested((hard + soft - soft.detach()) * kept))
        return gates

    def probabilities(self) -> dict[str, Tensor]:
        """Probabilities (k,) of the options, of which the most probable one is what the indicators say.

        Each option's logit is that of the one before it and the least margin of a size over its threshold up to there:
        logits rise for as long as the indicators hold. Of two options, the larger one's probability is the sigmoid.
        """
        margins = {name: self._sizes(name) - thresholds for name, thresholds in self.logits.items()}
        return {name: torch.softmax(_summed(values), 0) for name, values in margins.items()}

    def expected_cost(self, gates: Mapping[str, Gates]) -> Tensor | None:
        """The cost of what the indicators say."""
        if self.expected is None:
            return None
        return self.expected({name: gate.weights for name, gate in gates.items()})

    def objective(self, label_loss: Tensor, cost_s: Tensor | None) -> Tensor:
        """The label loss and the cost's logarithm, weighted."""
        return label_loss if cost_s is None else label_loss + self.strategy.cost_weight * torch.log(cost_s)

    def _sizes(self, name: str) -> Tensor:
        """How large what each option adds is (k - 1,), to the smallest option's weights."""
        inside = [part.to(weight).flatten(1) for weight, part in self.parts[name]]
        squares = [i @ weight.square().flatten() for i, (weight, _) in zip(inside, self.parts[name], strict=True)]
        counts = torch.stack([i.sum(1) for i in inside]).sum(0)
        roots = (torch.stack(squares).sum(0) / counts + _TINY).sqrt()
        return roots[1:] / roots[0].detach()


def _nested(indicators: Tensor) -> Tensor:
    """From indicators (k - 1,), each of which counts where all before it hold, to weights (k,) of options."""
    reached = torch.cat([torch.ones_like(indicators[:1]), torch.cumprod(indicators, 0)])
    return reached - torch.cat([reached[1:], torch.zeros_like(indicators[:1])])


def _summed(margins: Tensor) -> Tensor:
    """From margins (k - 1,) to logits (k,) of options, which rise up to the first margin that is not above 0."""
    return torch.cat([torch.zeros_like(margins[:1]), torch.cumsum(torch.cummin(margins, 0).values, 0)])


def _is_depthwise(conv: Conv2d) -> bool:
    return conv.in_channels == conv.out_channels == conv.groups != 1


def _part(conv: Conv2d, choice: Choice, space: SearchSpace) -> tuple[Tensor, Tensor] | None:
    """The weight of a convolution, and which entries of it each option adds (k, …); None where it reads another."""
    values = (conv.kernel_size, conv.in_channels)
    kernel, channels = (choice.name in {c.name for c in choices_of(value)} for value in values)
    if kernel == channels:
        return None
    value = conv.kernel_size if kernel else conv.in_channels
    largest = {c.name: c.options[-1] for c in space.choices}
    sizes = [cast(int, resolve(value, {**largest, choice.name: option})) for option in choice.options]
    if sizes != sorted(set(sizes)):
        return None
    inside = torch.zeros(len(sizes), *conv.weight.shape)
    for i, size in enumerate(sizes):
        margin = (conv.weight.shape[2] - size) // 2 if kernel else 0
        taps = slice(margin, conv.weight.shape[2] - margin)
        inside[i, : len(conv.weight) if kernel else size, :, taps, taps] = 1
    return conv.weight, torch.cat([inside[:1], inside[1:] - inside[:-1]])
