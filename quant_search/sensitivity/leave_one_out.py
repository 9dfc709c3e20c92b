"""The accuracy that a precision costs, one group quantized at a time or all but one.

Source: the sensitivity analysis of Wu et al. (arXiv:2004.09602), after which the most sensitive layers stay in fp32.
"""

from __future__ import annotations

import numpy as np

from quant_search.sensitivity.running import Direction, by_running
from quant_search.sensitivity.subject import Progress, Sensitivity, Subject


def leave_one_out(
    subject: Subject, progress: Progress | None = None, *, direction: Direction = "one", threads: int = 1
) -> Sensitivity:
    """Damage: accuracy in fp32 less accuracy with the group quantized, a share of the images.

    On n images it comes in steps of 1 / n, and may be below 0.  With the direction `all-but-one`, damage is the
    accuracy that the group wins back by staying in fp32 while all others are quantized.

    Raises:
        ValueError: as `by_running`, or no labels.
    """
    labels = subject.classes("leave-one-out")

    def drop(outputs: np.ndarray, fp32: np.ndarray) -> float:
        before, after = (np.mean(logits.argmax(axis=1) == labels) for logits in (fp32, outputs))
        return float(before - after)

    return by_running("leave-one-out", subject, drop, direction, progress, threads)
