"""In-place distillation: the largest network learns from labels, all others from its outputs of the same step.

Sources: Yu and Huang (arXiv:1903.05134), section 3.3; BigNAS (arXiv:2003.11142), section 3.1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def label_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy of logits (b, k) with class indices (b,) or class probabilities (b, k).

    Class indices are smoothed: probability `1 - smoothing` on the label and `smoothing / k` on every class.
    Probabilities are taken as they are.
    """
    return F.cross_entropy(logits, target, label_smoothing=0.0 if target.is_floating_point() else smoothing)


def distillation_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(p || q) = Σ p (log p - log q), teacher p, student q, logits (b, k).

    No gradient flows into the teacher. At the optimum the loss is zero, unlike the cross entropy with soft labels,
    which has the same gradient.
    """
    log_p = F.log_softmax(teacher_logits.detach(), 1)
    return F.kl_div(F.log_softmax(logits, 1), log_p, reduction="batchmean", log_target=True)
