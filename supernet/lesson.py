"""One step's batch and the ways in which an architecture can learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.network import run
from search_spaces.space import Architecture, SearchSpace
from supernet.distill import Divergence, kl_divergence, label_loss
from supernet.distributed import average_

Costs = Callable[[np.ndarray], np.ndarray]
"""From a population (n, d) to what each architecture costs (n,), such as its MACs."""

Batch = tuple[Tensor, Tensor]
"""Images (b, c, h, w), and class indices (b,) or class probabilities (b, k)."""


class TrainingDiverged(ValueError):
    """A loss or gradient became NaN or infinite; callers may catch it and train with a lower learning rate."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a strategy has in one step; every gradient it takes adds to those of the step.

    Args:
        rng: of all draws of this step; equal for all processes of a distributed training.
        progress: share of all steps that came before, 0 to 1.
        smoothing: of labels.
        autocast: whether forward passes compute in bfloat16 where torch deems it safe.
        held_out: draws a batch of the images that are kept from the weights.
    """

    network: nn.Module
    space: SearchSpace
    x: Tensor
    target: Tensor
    rng: np.random.Generator
    progress: float
    smoothing: float
    autocast: bool
    held_out: Callable[[], Batch]

    def logits(self, arch: Architecture, x: Tensor | None = None) -> Tensor:
        """The logits (b, k) of `arch`, for the step's images unless others are given."""
        return self.forward(lambda images: run(self.network, images, arch), x)

    def forward(self, network: Callable[[Tensor], Tensor], x: Tensor | None = None) -> Tensor:
        """What `network` gives for images in the training's precision, as float32."""
        images = self.x if x is None else x
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            logits = network(images)
        return logits.float()

    def label_loss(self, logits: Tensor, target: Tensor | None = None) -> Tensor:
        """Mean cross entropy of logits (b, k) with the step's labels unless others are given."""
        return label_loss(logits, self.target if target is None else target, self.smoothing)

    def learn(self, arch: Architecture) -> tuple[Tensor, float]:
        """Let `arch` learn from the labels; its logits (b, k) without history, for others to imitate, and its loss.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        logits = self.logits(arch)
        return logits.detach(), self.backward(self.label_loss(logits))

    def imitate(self, arch: Architecture, teacher: Tensor, divergence: Divergence = kl_divergence) -> None:
        """Let `arch` learn from a teacher's logits (b, k)."""
        divergence(self.logits(arch), teacher).backward()

    def backward(self, loss: Tensor) -> float:
        """Take the gradients of a loss, and give its value.

        Raises:
            TrainingDiverged: it is not finite; no gradient was taken.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(f"the loss is {value}")
        loss.backward()
        return value

    def losses(self, archs: list[Architecture]) -> np.ndarray:
        """Label losses (n,) of architectures, without gradients."""
        with torch.no_grad():
            losses = torch.stack([self.label_loss(self.logits(arch)) for arch in archs])
        average_([losses])  # so that all processes pick the same
        return losses.cpu().numpy()

    def sample(self, n: int) -> list[Architecture]:
        """Draw `n` architectures, every choice uniformly: of equivalent ones none stands for the others."""
        space = self.space.unmerged
        return [space.row(row) for row in space.sample(n, self.rng)]
