"""Kullback-Leibler divergence of the predicted classes, one group quantized at a time.

Source: the sensitivity of ZeroQ (arXiv:2001.00281), on given images in place of distilled ones.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from quant_search.sensitivity.running import Direction, by_running
from quant_search.sensitivity.subject import Progress, Sensitivity, Subject


def kl(
    subject: Subject, progress: Progress | None = None, *, direction: Direction = "one", threads: int = 1
) -> Sensitivity:
    """Damage: mean over images of KL(softmax(fp32) || softmax(quantized)), in nats.

    Raises:
        ValueError: as `by_running`.
    """
    return by_running("kl", subject, divergence, direction, progress, threads)


def divergence(outputs: np.ndarray, fp32: np.ndarray) -> float:
    """The mean divergence of the classes by logits (n, k) from those by logits in fp32."""
    log_q, log_p = (log_softmax(logits.astype(np.float64), axis=1) for logits in (outputs, fp32))
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())
