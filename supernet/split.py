"""Stratified splits: the same images every time, every class in its proportion."""

from __future__ import annotations

import numpy as np

SPLIT_SEED = 20_240_229
"""Fixed, so that every command and every run holds out the same images."""


def stratified_split(
    y: np.ndarray, fraction: float, *, what: str = "fraction", seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Split the labels `y` (n,) into indices kept and indices held out, both sorted, disjoint and together all.

    Of a class with `k` images, `round(fraction * k)` are held out, at least one and at most `k - 1`; a class with
    a single image is kept. The draw depends on `y`, `fraction` and `seed` only.

    Raises:
        ValueError: `fraction` (called `what` in the message) is not strictly between 0 and 1, or no class has
            two images, so that nothing can be held out.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"{what} must lie strictly between 0 and 1, got {fraction}")
    rng = np.random.default_rng(seed)
    held = [_held_of_class(np.flatnonzero(y == label), fraction, rng) for label in np.unique(y)]
    held_out = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    if held_out.size == 0:
        raise ValueError(f"cannot hold out images of {len(y)} images: no class has two; give more images per class")
    return np.setdiff1d(np.arange(len(y)), held_out, assume_unique=True), held_out


def _held_of_class(members: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(members)
    count = min(max(1, round(fraction * len(members))), len(members) - 1)
    return order[:count]
