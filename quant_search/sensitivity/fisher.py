"""The diagonal of the empirical Fisher information, weight by weight, times the squared change of each.

Near a minimum the Fisher information stands for the Hessian, and needs gradients alone (Theis et al.,
arXiv:1801.05787, who prune by it; for bits: FIT, arXiv:2210.08502, of which this is the part of the weights, with
each weight's own change in place of the mean).
"""

from __future__ import annotations

import time

import numpy as np
import torch

from quant_search.sensitivity.subject import Progress, Sensitivity, Subject
from quant_search.sensitivity.weight_loss import WeightLoss


def fisher(subject: Subject, progress: Progress | None = None) -> Sensitivity:
    """Damage: Σ over a group's weights of mean over images of (dL/dw)² x (Q(w) - w)², L the loss of one image.

    One gradient for each image; what activations lose is not in it.

    Raises:
        ValueError: as `WeightLoss`.
    """
    start, loss = time.perf_counter(), WeightLoss(subject, "fisher")
    information = _diagonal(loss, len(subject.images), progress)

    def damage(group: str, option: str) -> float:
        changes = loss.changes(group, option)
        return sum(float((information[name] * np.square(change)).sum()) for name, change in changes.items())

    found = subject.table(damage)
    return Sensitivity("fisher", tuple(subject.groups), subject.every_option, found, time.perf_counter() - start)


def _diagonal(loss: WeightLoss, images: int, progress: Progress | None) -> dict[str, np.ndarray]:
    """Of each weight, the mean over images of the squared gradients of their own losses."""
    weights = list(loss.weights.values())
    squares = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    for done, part in enumerate(loss.parts(batch=1)):  # a part is the loss of an image over their number
        for square, gradient in zip(squares, torch.autograd.grad(part, weights, materialize_grads=True), strict=True):
            square += gradient.double().square() * images
        if progress is not None:
            progress(done + 1, images)
    return {name: square.numpy() for name, square in zip(loss.weights, squares, strict=True)}
