"""The pixels that a network was trained on: a data set in a network's own units."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from supernet.data import Dataset

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KNOWN = {"unit": (0.0, 1.0), "symmetric": (0.5, 0.5), "raw": (0.0, 1 / 255)}  # mean and deviation, of 0 to 1
_GIVEN = re.compile(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")
FORMS = (
    "data (by the training images' own mean and deviation), unit (0 to 1), symmetric (-1 to 1), raw (0 to 255), "
    "imagenet, or M/S for (value - M) / S of 0 to 255, such as 127/128"
)


def check_pixels(text: str) -> None:
    """Refuses what `in_pixels` does not know.

    Raises:
        ValueError: with what there is.
    """
    match = _GIVEN.fullmatch(text)
    if text not in ("data", "imagenet", *_KNOWN) and (match is None or float(match[2]) == 0):
        raise ValueError(f"unknown pixels {text!r}: there are {FORMS}")


def in_pixels(dataset: Dataset, text: str) -> Dataset:
    """The data set with its pixels in other units than (value - mean) / std of its own training images.

    Raises:
        ValueError: as `check_pixels`, or pixels of another number of channels.
    """
    check_pixels(text)
    if text == "data":
        return dataset
    mean, std = (np.ravel(part).astype(np.float32) for part in _mean_and_std(text))
    if len(mean) not in (1, len(dataset.mean)):
        raise ValueError(f"pixels {text!r} are of {len(mean)} channels, and the images have {len(dataset.mean)}")
    mean, std = (np.broadcast_to(part, len(dataset.mean)) for part in (mean, std))
    own_mean, own_std = (np.array(part, np.float32) for part in (dataset.mean, dataset.std))
    scale, shift = (own_std / std)[:, None, None], ((own_mean - mean) / std)[:, None, None]
    x = {name: getattr(dataset, name) * scale + shift for name in ("x_train", "x_val", "x_test")}
    return replace(dataset, **x, mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def _mean_and_std(text: str) -> tuple[tuple[float, ...] | float, tuple[float, ...] | float]:
    if text == "imagenet":
        return _IMAGENET
    if text in _KNOWN:
        return _KNOWN[text]
    match = _GIVEN.fullmatch(text)
    if match is None:
        raise ValueError(f"unknown pixels {text!r}: there are {FORMS}")
    return float(match[1]) / 255, float(match[2]) / 255
