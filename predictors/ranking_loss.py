"""Losses that ask a predictor for the order of architectures instead of their values.

All are differentiable in the scores, which come as rows (members, n), one member's independent of the others'.
Where a value is not known to a member, its weight is zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From scores (members, n), targets (n,) and weights (members, n) to the sum of the members' losses."""


def squared_error(scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted mean of squared differences."""
    return (weights * (scores - targets) ** 2).sum(dim=1).div(weights.sum(dim=1)).sum()


def pairwise_hinge(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, margin: float = 0.3
) -> torch.Tensor:
    """max(0, margin - (s_i - s_j)), mean over the pairs with y_i > y_j.

    Source: Xu et al., "ReNAS: relativistic evaluation of neural architecture search", arXiv:1910.01523, equation 4.
    """
    order, pairs = _pairs(targets, weights)
    short = (margin - order * _differences(scores)).clamp(min=0)
    return (pairs * short).sum(dim=(1, 2)).div(pairs.sum(dim=(1, 2)).clamp(min=1)).sum()


def soft_kendall(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, sharpness: float = 2.0
) -> torch.Tensor:
    """1 - tau with tanh(sharpness (s_i - s_j)) for the sign of the scores' difference.

    Source: Dong et al., "ParZC: parametric zero-cost proxies for efficient NAS", arXiv:2402.02105, section 3.3.
    """
    order, pairs = _pairs(targets, weights)
    agreement = order * torch.tanh(sharpness * _differences(scores))
    return (1 - (pairs * agreement).sum(dim=(1, 2)).div(pairs.sum(dim=(1, 2)).clamp(min=1))).sum()


def _differences(scores: torch.Tensor) -> torch.Tensor:
    return scores[:, :, None] - scores[:, None, :]


def _pairs(targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The order (n, n) of each pair, -1, 0 or 1, and how much it counts (members, n, n): ties do not."""
    order = torch.sign(targets[:, None] - targets[None, :])
    return order, weights[:, :, None] * weights[:, None, :] * order.abs()
