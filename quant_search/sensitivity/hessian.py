"""Mean curvature of the loss times the perturbation of weights.

Source: HAWQ-V2 (arXiv:1911.03852): the second-order perturbation of layer i is mean(Tr(H_i)) ||Q(W_i) - W_i||², with
the trace divided by the number of weights and estimated by Hutchinson's method.
"""

from __future__ import annotations

import math
import time

import numpy as np

from quant_search.sensitivity.hutchinson import block_traces
from quant_search.sensitivity.subject import Progress, Sensitivity, Subject
from quant_search.sensitivity.weight_loss import WeightLoss

_BATCH = 32


def hessian(
    subject: Subject,
    progress: Progress | None = None,
    *,
    tolerance: float = 0.1,
    probes: int = 64,
    seed: int = 0,
    seconds: float | None = None,
    batch: int = _BATCH,
) -> Sensitivity:
    """Damage: Σ over a group's weights of Tr(H) / number x ||Q(W) - W||², H the Hessian of the mean cross-entropy.

    What activations lose is not in it.  A trace below its standard error counts as that error: neither noise nor a
    network that is not at a minimum makes a layer free.

    Args:
        tolerance, probes, seed, seconds: as for `block_traces`.
        batch: images at a time, whose activations are held twice.

    Raises:
        ValueError: as `WeightLoss` and `block_traces`.
    """
    start, loss = time.perf_counter(), WeightLoss(subject, "hessian")
    weights = list(loss.weights.values())
    traces = block_traces(lambda: loss.parts(batch), weights, tolerance, probes, seed, seconds, progress)
    seen = {name: (mean, error) for name, mean, error in zip(loss.weights, traces.mean, traces.error, strict=True)}

    def damage(group: str, option: str) -> float:
        changes = loss.changes(group, option)  # the mean of a square is ||.||² over the number of weights
        return sum(max(seen[name]) * float(np.square(change).mean()) for name, change in changes.items())

    def error(group: str, option: str) -> float:
        changes = loss.changes(group, option)
        return math.hypot(*(seen[name][1] * float(np.square(change).mean()) for name, change in changes.items()))

    groups, found = tuple(subject.groups), (subject.table(damage), subject.table(error))
    return Sensitivity("hessian", groups, subject.every_option, found[0], time.perf_counter() - start, found[1])
