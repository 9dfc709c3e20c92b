"""Which images a step sees, and the random generators of a step: functions of the seed and the step alone."""

from __future__ import annotations

import functools

import numpy as np

_ORDER, _STEP = 1, 2


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches in an epoch, at least one: with fewer images than `batch`, a batch is all images."""
    return max(1, images // batch)


def batch_indices(images: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Indices (b,) of the images of step `step`; within an epoch no image comes twice."""
    epoch, position = divmod(step, steps_per_epoch(images, batch))
    return _order(images, seed, epoch)[position * batch : (position + 1) * batch]


def step_generator(seed: int, step: int) -> np.random.Generator:
    """Generator of all other draws of step `step`."""
    return np.random.default_rng((_STEP, seed, step))


@functools.lru_cache(maxsize=2)
def _order(images: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(images)
