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

_ALPHAS = (-1.0, 1.0)  # of the paper's section 5
_LARGEST_RATIO = 5.0


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
    D(p || q) = Σ q ((p / q)^α - 1) / (α (α - 1)), with ratios (p / q)^α of at most 5.  The value itself means nothing.
    Source: Wang et al., AlphaNet (arXiv:2102.07954), equations 4 and 5, gradient as in equation 3.
    """
    log_q = F.log_softmax(logits, 1)
    log_p = F.log_softmax(teacher_logits.detach(), 1)
    fixed = log_q.detach()
    (low, low_weights), (high, high_weights) = (_divergence(log_p, fixed, alpha) for alpha in _ALPHAS)
    weights = torch.where((low > high)[:, None], low_weights, high_weights)
    return -(fixed.exp() * weights * log_q).sum(1).mean()


def _divergence(log_p: Tensor, log_q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Alpha-divergences (b,), and the weights (b, k) of q ∇log q in their negative gradients."""
    q, ratio = log_q.exp(), (log_p - log_q).exp()
    if alpha == 1.0:
        return (q * ratio * (log_p - log_q)).sum(1), ratio.clamp(max=_LARGEST_RATIO)
    powers = ((log_p - log_q) * alpha).exp().clamp(max=_LARGEST_RATIO)
    return (q * (powers - 1)).sum(1) / (alpha * (alpha - 1)), powers / alpha
