"""What a differentiable search ends with: architectures, and how its probabilities came about."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search_spaces.space import Architecture, SearchSpace
from supernet.checkpoint import Checkpoint
from supernet.relaxed.best import best_architectures
from supernet.relaxed.cost_table import CostTable

_LOGITS = "strategy/logits/"


@dataclass(frozen=True, eq=False)
class SearchTrace:
    """How probable each option was while a search trained.

    Args:
        progress: share of the steps that were taken (t,).
        probabilities: of each relaxed choice's options (t, k).
    """

    progress: np.ndarray
    probabilities: dict[str, np.ndarray]

    def entropies(self) -> dict[str, np.ndarray]:
        """Entropy (t,) of each choice as a share of the greatest, which all options alike have: 1 at first."""
        found = {}
        for name, p in self.probabilities.items():
            found[name] = -(p * np.log(np.maximum(p, 1e-30))).sum(1) / max(math.log(p.shape[1]), 1e-30)
        return found


def found_architectures(
    checkpoint: Checkpoint,
    space: SearchSpace,
    n: int = 1,
    table: CostTable | None = None,
    max_cost: float | None = None,
) -> list[Architecture]:
    """The n most probable architectures at a checkpoint of a search, none dearer than `max_cost` seconds.

    Raises:
        ValueError: the checkpoint is not one of a search in this space, or as `best_architectures`.
    """
    logits = {name: values.cpu().double().numpy() for name, values in found_logits(checkpoint).items()}
    return [space.row(row) for row in best_architectures(logits, space, table, max_cost, n)]


def found_logits(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Logits (k,) of each relaxed choice at a checkpoint.

    Raises:
        ValueError: its training was no differentiable search.
    """
    found = {n.removeprefix(_LOGITS): value for n, value in checkpoint.tensors.items() if n.startswith(_LOGITS)}
    if not found:
        raise ValueError("this checkpoint has no architecture parameters: train with a strategy that searches")
    return found


def found_trace(checkpoint: Checkpoint, space: SearchSpace) -> SearchTrace:
    """The probabilities of relaxed choices over a training, up to a checkpoint after its first step.

    The last moment is that of the checkpoint itself: progress 1 where the training has ended.

    Raises:
        ValueError: its training was no differentiable search in this space, or has not begun.
    """
    logits = found_logits(checkpoint)
    sizes = {choice.name: len(choice.options) for choice in space.choices if choice.name in logits}
    rows = checkpoint.tensors.get("strategy/trace")
    if rows is None or rows.shape[1] != 1 + sum(sizes.values()):
        raise ValueError(f"this checkpoint has no trace of a search in {space.name!r}: train at least a step of it")
    values = rows.cpu().double().numpy()
    progress = checkpoint.meta["step"] / checkpoint.meta["plan"]["total_steps"]
    now = [torch.softmax(logits[name].cpu().double(), 0).numpy() for name in sizes]
    values = np.vstack([values, np.concatenate([[progress], *now])])
    parts = np.split(values[:, 1:], np.cumsum(list(sizes.values()))[:-1], axis=1)
    return SearchTrace(values[:, 0], dict(zip(sizes, parts, strict=True)))
