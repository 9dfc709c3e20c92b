"""Images as they come from a source: checked and brought to one layout, not yet normalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_CHANNELS = (1, 3, 4)
_MAX_FLOAT_CHANNELS = 64


@dataclass(frozen=True, eq=False)
class Part:
    """Images `x` (n, c, h, w), uint8 or float32, with their labels `y` (n,) int64."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class Images:
    """What a source gives: named parts, `val` only when the source has its own.

    `flip` says whether a mirrored image shows the same thing; `val_fraction` is the share of the training
    images held out for validation when neither the source nor the caller says otherwise.
    """

    name: str
    train: Part
    test: Part
    val: Part | None
    num_classes: int
    flip: bool
    val_fraction: float

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"{self.name}: a classification task needs at least 2 classes, got {self.num_classes}")
        shape = self.train.x.shape[1:]
        for which, part in self.parts():
            _check_labels(f"{self.name}: {which}", part.y, self.num_classes)
            if part.x.shape[1:] != shape:
                raise ValueError(
                    f"{self.name}: {which} images have shape {part.x.shape[1:]} (c, h, w), "
                    f"the training images {shape}; all must agree"
                )

    def parts(self) -> list[tuple[str, Part]]:
        """List the present parts with their names, training first."""
        own = [("train", self.train), ("val", self.val), ("test", self.test)]
        return [(which, part) for which, part in own if part is not None]


Source = Callable[[int | None], Images]
"""From the image size in pixels, or None for the source's own, to images; sources of one size leave it to later."""


def make_part(x: np.ndarray, y: np.ndarray, what: str) -> Part:
    """Check images and labels as they come and bring the images to (n, c, h, w), uint8 or float32.

    Taken are uint8 images (n, h, w) or (n, h, w, c) with values 0 to 255, and floating images (n, c, h, w) of any
    finite values; labels are integers (n,).

    Raises:
        ValueError: another layout or dtype, lengths that differ, no images, NaN or infinite pixels.
    """
    x, y = np.asarray(x), np.asarray(y)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"{what} labels must be integers of shape (n,), got {y.dtype} of shape {y.shape}")
    x = _channels_first(x, what)
    if len(x) != len(y):
        raise ValueError(f"{what} has {len(x)} images but {len(y)} labels")
    if len(x) == 0 or 0 in x.shape:
        raise ValueError(f"{what} has no pixels: shape {x.shape}")
    return Part(x, y.astype(np.int64))


def class_count(y_train: np.ndarray, what: str) -> int:
    """Number of classes that the training labels name, 0 to the largest one.

    Raises:
        ValueError: labels that do not start at 0, or more classes than images (labels that are not class indices).
    """
    low, count = int(y_train.min()), int(y_train.max()) + 1
    if low != 0:
        raise ValueError(f"{what} labels must be class indices starting at 0, the smallest is {low}")
    if count > len(y_train):
        raise ValueError(
            f"{what} labels run up to {count - 1} but there are only {len(y_train)} training images; "
            "labels must be class indices 0, 1, 2, …"
        )
    return count


def _check_labels(what: str, y: np.ndarray, num_classes: int) -> None:
    bad = y[(y < 0) | (y >= num_classes)]
    if bad.size:
        raise ValueError(f"{what} labels are out of range: got {int(bad[0])}, expected 0 to {num_classes - 1}")


def _channels_first(x: np.ndarray, what: str) -> np.ndarray:
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in _CHANNELS:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.dtype.kind == "f" and x.ndim == 4 and x.shape[1] <= _MAX_FLOAT_CHANNELS:
        return _finite(x, what)
    raise ValueError(
        f"{what} images have dtype {x.dtype} and shape {x.shape}; expected uint8 (n, h, w) or (n, h, w, c) "
        f"with c in {_CHANNELS}, or float (n, c, h, w)"
    )


def _finite(x: np.ndarray, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported below
        single = x.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        bad = int(np.argwhere(~np.isfinite(single))[0][0])
        raise ValueError(f"{what} image {bad} has NaN or infinite pixels")
    return single
