"""Progressive shrinking: once-for-all (Cai et al., arXiv:1908.09791), section 3.3.

First the largest network alone; then smaller kernels, depths and widths join, role by role and the dearest options
first, and learn from labels and from the largest network as it was, which is the teacher.  Before narrower widths join,
channels are sorted by importance, within the widths that are open already, so that they keep the best; smaller kernels
are learned transforms of larger ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, add_kernel_transforms_
from search_spaces.network import run
from search_spaces.roles import roles
from search_spaces.space import INDEX, Architecture, SearchSpace
from supernet.checks import expect
from supernet.distill import kl_divergence
from supernet.importance import channel_order
from supernet.lesson import Lesson
from supernet.strategy import Strategy, Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner

_PHASES: Final = ("kernel", "depth", "width")
_PATHS = {"kernel": 1, "depth": 2, "width": 4}  # architectures in a step of each phase, as in the authors' code
_AT_ONCE = ("resolution", "operation")  # open from the beginning, as in the paper; with the kernels


@dataclass(frozen=True)
class OnceForAll(Strategy):
    """Progressive shrinking in phases: the largest architecture alone, elastic kernel, depth and width.

    Resolutions are elastic throughout, one for all paths of a step as in the authors' code; operations from the
    kernel phase on.  A phase that a space has no choices for is left out, and its share goes to the others.

    Args:
        alone: share of the steps in which the largest architecture trains alone; the rest is divided evenly by what
            options there are to open.
        distillation: weight of the teacher beside the labels.

    Raises:
        ValueError: `alone` outside 0 to 1, or a negative `distillation`.
    """

    alone: float = 0.4
    distillation: float = 1.0

    def __post_init__(self) -> None:
        expect("alone", self.alone, "above 0 and below 1", lambda v: 0 < v < 1)
        expect("distillation", self.distillation, "finite and at least 0", lambda v: 0 <= v < math.inf)

    def prepare_(self, network: nn.Module) -> None:
        """As `Strategy.prepare_`: kernel transforms."""
        add_kernel_transforms_(network)

    def start(self, learner: Learner) -> Teaching:
        """As `Strategy.start`."""
        return _Shrinking(self, learner)


@dataclass(frozen=True)
class Opening:
    """What architectures a part of the training draws from.

    Args:
        phase: `largest`, or the role that is being opened.
        lowest: the lowest option index of each choice (d,).
        paths: architectures in a step.
    """

    phase: str
    lowest: tuple[int, ...]
    paths: int


def openings(space: SearchSpace, kinds: Mapping[str, str]) -> list[Opening]:
    """The parts of a training in order: the largest architecture, then one more option of a role's choices at a time.

    Args:
        kinds: the role of each choice, as `search_spaces.roles.roles` has it.
    """
    last = [len(choice.options) - 1 for choice in space.choices]
    role = [kinds.get(choice.name, "operation") for choice in space.choices]
    lowest = [0 if r == "resolution" else end for r, end in zip(role, last, strict=True)]
    found = [Opening("largest", tuple(lowest), 1)]
    lowest = [0 if r in _AT_ONCE else low for r, low in zip(role, lowest, strict=True)]
    for phase in _PHASES:
        members = [j for j, r in enumerate(role) if r == phase]
        for _ in range(max((last[j] for j in members), default=0)):
            lowest = [max(0, low - 1) if j in members else low for j, low in enumerate(lowest)]
            found.append(Opening(phase, tuple(lowest), _PATHS[phase]))
    if len(found) == 1:  # nothing but operations to choose
        found.append(Opening("operation", tuple(lowest), _PATHS["width"]))
    return found


class _Shrinking:
    """The steps of one training: which part it is in, and its teacher."""

    def __init__(self, strategy: OnceForAll, learner: Learner) -> None:
        self.strategy, self.learner = strategy, learner
        kinds = roles(learner.network)
        self.openings = openings(learner.space, kinds)
        self.resolutions = [name for name, role in kinds.items() if role == "resolution"]
        self.part = 0
        self.teacher: nn.Module | None = None

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        while self.part < self._due(lesson.progress):
            self._advance()
        opening = self.openings[self.part]
        archs = self._draw(opening, lesson)
        told = self._told(archs[0], lesson)
        return sum(self._learn(arch, told, lesson) for arch in archs) / len(archs)

    def _due(self, progress: float) -> int:
        """The part that a training is in after a share of its steps."""
        alone, parts = self.strategy.alone, len(self.openings) - 1
        return 0 if progress < alone else min(parts, 1 + int((progress - alone) / (1 - alone) * parts))

    def _advance(self) -> None:
        """Go on to the next part; widths that were trained with keep their channels."""
        lowest = self.openings[self.part].lowest
        opened = {c.name: c.options[low:] for c, low in zip(self.learner.space.choices, lowest, strict=True)}
        self.part += 1
        if self.teacher is None:
            self.teacher = self._new_teacher()
            self.teacher.load_state_dict(self.learner.averaged.state_dict())
        if self.openings[self.part].phase == "width":
            self.learner.permute_(channel_order(self.learner.network, opened=opened))

    def _new_teacher(self) -> nn.Module:
        teacher = copy.deepcopy(self.learner.averaged).eval().requires_grad_(False)
        for module in teacher.modules():  # which take the batch's statistics: a supernet has no others
            module.train(isinstance(module, BatchNorm2d))
        return teacher

    def _draw(self, opening: Opening, lesson: Lesson) -> list[Architecture]:
        """The architectures of a step, all at one resolution: so the teacher runs once for all of them."""
        size = (opening.paths, len(lesson.space))
        rows = lesson.rng.integers(opening.lowest, lesson.space.cardinalities, size=size).astype(INDEX)
        fixed = [choice.name in self.resolutions for choice in lesson.space.choices]
        rows[:, fixed] = rows[0, fixed]
        return [lesson.space.unmerged.row(row) for row in rows]

    def _told(self, arch: Architecture, lesson: Lesson) -> Tensor | None:
        """The teacher's logits (b, k) at the resolution of `arch`; None while there is no teacher."""
        if self.teacher is None:
            return None
        teacher = self.teacher
        with torch.no_grad():
            return lesson.forward(lambda x: run(teacher, x, self._like(arch)))

    def _learn(self, arch: Architecture, told: Tensor | None, lesson: Lesson) -> float:
        logits = lesson.logits(arch)
        labels = lesson.label_loss(logits)
        if told is None:
            return lesson.backward(labels)
        lesson.backward(labels + self.strategy.distillation * kl_divergence(logits, told))
        return float(labels.detach())

    def _like(self, arch: Architecture) -> Architecture:
        """The largest architecture at the resolution of `arch`."""
        own = {name: arch[name] for name in self.resolutions}
        return arch.space.architecture({**arch.space.largest().assignment, **own})

    def state(self) -> dict[str, Tensor]:
        """As `Teaching.state`."""
        tensors = {"part": torch.tensor(self.part)}
        if self.teacher is not None:
            tensors |= {f"teacher.{name}": value for name, value in self.teacher.state_dict().items()}
        return tensors

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """As `Teaching.load_`."""
        self.part = int(tensors["part"])
        prefix = "teacher."
        kept = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if kept:
            self.teacher = self._new_teacher()
            self.teacher.load_state_dict(kept)
