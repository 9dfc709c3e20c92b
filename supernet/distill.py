"""Losses: from labels, and from a teacher's outputs.

Sources: in-place distillation, Yu and Huang (arXiv:1903.05134), section 3.3; AlphaNet (arXiv:2102.07954).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Callable[[Tensor, Tensor], Tensor]
"""From logits and a teacher's logits (b, k) to a loss."""

_LARGEST_POWER = 5.0  # of the paper's section 5, as are alphas of -1 and 1


def label_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy of logits (b, k) with class indices (b,) or class probabilities (b, k).

    Class indices are smoothed: probability `1 - smoothing` on the label and `smoothing / k` on every class.
    Probabilities are taken as they are.
    """
    return F.cross_entropy(logits, target, label_smoothing=0.0 if target.is_floating_point() else smoothing)


def kl_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(p || q) = Σ p (log p - log q), teacher p, student q, logits (b, k).

    No gradient flows into the teacher. At the optimum the loss is zero, unlike the cross entropy with soft labels,
    which has the same gradient.
    """
    log_p = F.log_softmax(teacher_logits.detach(), 1)
    return F.kl_div(F.log_softmax(logits, 1), log_p, reduction="batchmean", log_target=True)


def alpha_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """A loss with the gradient of the adaptive alpha-divergence between logits (b, k) and a teacher's.

    Of each image, the larger of the divergences at alpha -1, which punishes a student that is sure where its teacher
    is not, and at 1, the Kullback-Leibler divergence, which punishes the reverse:
    D(p || q) = Σ q ((p / q)^α - 1) / (α (α - 1)), with powers (p / q)^α of at most 5 at alpha -1.  Kullback-Leibler's
    gradient is bounded as it is: at most 5 q of each class would leave little of it where q is small.  The value
    itself means nothing.
    Source: Wang et al., AlphaNet (arXiv:2102.07954), equations 4 and 5, gradient as in equation 3.
    """
    log_q = F.log_softmax(logits, 1)
    log_p = F.log_softmax(teacher_logits.detach(), 1)
    fixed = log_q.detach()
    low, low_weights = _reverse(log_p, fixed)
    high, high_weights = (log_p.exp() * (log_p - fixed)).sum(1), log_p.exp()
    weights = torch.where((low > high)[:, None], low_weights, high_weights)
    return -(weights * log_q).sum(1).mean()


def _reverse(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha-divergences (b,) at alpha -1, and the weights (b, k) of ∇log q in their negative gradients."""
    q, powers = log_q.exp(), (log_q - log_p).exp().clamp(max=_LARGEST_POWER)
    return (q * (powers - 1)).sum(1) / 2, -q * powers
