"""Random changes of training images, whole batches at a time; every draw comes from the generator given."""

from __future__ import annotations

import numpy as np
import torch
from timm.data.mixup import mixup_target
from torch import Tensor

_ERASE_AREA = (0.02, 1 / 3)
_ERASE_LOG_ASPECT = float(np.log(0.3))


def shift_and_flip(x: Tensor, shift: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Shift each image of (n, c, h, w) by up to `shift` pixels both ways, and mirror half of them with `flip`.

    Equals padding with the border's pixels and cropping at random; 0 <= shift, also beyond the image's size.
    """
    n, c, h, w = x.shape
    if shift == 0 and not flip:
        return x
    offsets = rng.integers(-shift, shift + 1, (2, n, 1))
    rows = np.clip(np.arange(h) + offsets[0], 0, h - 1)
    columns = np.clip(np.arange(w) + offsets[1], 0, w - 1)
    if flip:
        columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    flat = torch.from_numpy(rows[:, :, None] * w + columns[:, None, :]).to(x.device)
    return x.reshape(n, c, h * w).gather(2, flat.reshape(n, 1, h * w).expand(n, c, h * w)).reshape(n, c, h, w)


def erase(x: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Set a random rectangle of each image of (n, c, h, w) to zero, the mean colour, with the given probability.

    The rectangle covers 2 % to a third of the image, its aspect is log-uniform between 0.3 and 1 / 0.3, its sides
    are cut to the image's. Source: Zhong et al., Random erasing (arXiv:1708.04896), algorithm 1, without its
    rejection loop.
    """
    n, _, h, w = x.shape
    if probability == 0.0:
        return x
    area = rng.uniform(*_ERASE_AREA, n) * h * w
    aspect = np.exp(rng.uniform(_ERASE_LOG_ASPECT, -_ERASE_LOG_ASPECT, n))
    hit = rng.random(n) < probability
    rows = _interval(np.sqrt(area * aspect), h, hit, rng)
    columns = _interval(np.sqrt(area / aspect), w, hit, rng)
    mask = torch.from_numpy(rows[:, None, :, None] & columns[:, None, None, :])
    return x.masked_fill(mask.to(x.device), 0.0)


def mix(
    x: Tensor, y: Tensor, alpha: float, num_classes: int, smoothing: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend the batch with itself reversed, one share Beta(alpha, alpha) for all: images and probabilities (n, k).

    With `alpha` 0 the images and the class indices `y` (n,) are given back as they are. Source: Zhang et al.,
    mixup (arXiv:1710.09412), in timm's batch form.
    """
    if alpha == 0.0:
        return x, y
    share = float(rng.beta(alpha, alpha))
    return x * share + x.flip(0) * (1.0 - share), mixup_target(y, num_classes, share, smoothing)


def _interval(length: np.ndarray, size: int, hit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random intervals of the rounded `length` (n,) inside 0..size, as masks (n, size); empty without a hit."""
    whole = np.where(hit, np.clip(np.rint(length), 1, size), 0).astype(np.int64)
    start = np.floor(rng.random(len(whole)) * (size - whole + 1)).astype(np.int64)
    at = np.arange(size)
    mask: np.ndarray = (at >= start[:, None]) & (at < (start + whole)[:, None])
    return mask
