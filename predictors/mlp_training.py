"""How the networks of `predictors/mlp.py` are trained: all members of the ensemble at once, by torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from predictors.ranking_loss import Loss, pairwise_hinge, soft_kendall, squared_error

LOSSES: dict[str, Loss] = {"squared": squared_error, "hinge": pairwise_hinge, "kendall": soft_kendall}
_MOST_PAIRED = 512  # points that a loss of pairs sees in a step, since it takes their number squared
_DECAY = 1e-2
_RATE = 5e-3

Layers = list[tuple[np.ndarray, np.ndarray]]
"""Weights (members, in, out) and biases (members, 1, out) of each layer."""


def new_layers(sizes: Sequence[int], members: int, seed: int) -> Layers:
    """Random layers from `sizes[0]` inputs to `sizes[-1]` outputs (He et al., arXiv:1502.01852)."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.normal(0, np.sqrt(2 / max(a, 1)), size=(members, a, b)).astype(np.float32),
            np.zeros((members, 1, b), dtype=np.float32),
        )
        for a, b in itertools.pairwise(sizes)
    ]


def train(
    layers: Layers,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    loss: str,
    steps: int,
    rng: np.random.Generator,
) -> Layers:
    """Layers trained from `layers` on features x (n, f) and targets y (n, outputs); the given ones stay as they are.

    AdamW over all points at once, the rate falling to zero along a cosine; a loss of pairs sees at most 512 points in a
    step, drawn from `rng`.

    Args:
        weights: of the points for each member (members, n); 0 for those it must not see.
    """
    parameters = [torch.tensor(a, requires_grad=True) for layer in layers for a in layer]
    points, values, known = (torch.tensor(np.asarray(a, dtype=np.float32)) for a in (x, y, weights))
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        inputs, targets, seen = points, values, known
        if loss != "squared" and len(x) > _MOST_PAIRED:
            some = torch.from_numpy(rng.choice(len(x), _MOST_PAIRED, replace=False))
            inputs, targets, seen = points[some], values[some], known[:, some]
        outputs = inputs
        for i in range(0, len(parameters), 2):
            outputs = outputs @ parameters[i] + parameters[i + 1]
            if i + 2 < len(parameters):
                outputs = torch.relu(outputs)
        missed = torch.stack(
            [LOSSES[loss](outputs[..., o], targets[:, o], seen) for o in range(targets.shape[1])]
        ).sum()
        optimizer.zero_grad()
        missed.backward()
        optimizer.step()
        schedule.step()
    trained = [p.detach().numpy() for p in parameters]
    return list(zip(trained[::2], trained[1::2], strict=True))
