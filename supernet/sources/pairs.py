"""Any torch-style data set: a length, and items (image, label)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from supernet.capacity import check_fits
from supernet.images import Images, Part, class_count, make_part

_VAL_FRACTION = 0.2


class Pairs(Protocol):
    """A map-style data set: item `i` is (image, label)."""

    def __len__(self) -> int:
        """Count the items."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Give item `index`: (image, label)."""
        ...


def images_of(train: Pairs, test: Pairs, val: Pairs | None, *, name: str, flip: bool) -> Images:
    """Read whole data sets into arrays; every item is asked for once, so random transforms are drawn once.

    An image is a PIL picture, a tensor (c, h, w) or (h, w), a uint8 array (h, w) or (h, w, c), or a float array
    (c, h, w); a label is an integer.

    Raises:
        ValueError: an empty set, an item of another form or shape (with its index), or too many for the memory.
    """
    parts = {
        which: _read(pairs, f"{name}: {which}")
        for which, pairs in (("train", train), ("test", test), ("val", val))
        if pairs is not None
    }
    count = class_count(parts["train"].y, f"{name}: train")
    return Images(name, parts["train"], parts["test"], parts.get("val"), count, flip, _VAL_FRACTION)


def _read(pairs: Pairs, what: str) -> Part:
    count = len(pairs)
    if count == 0:
        raise ValueError(f"{what} has no items")
    first, _ = _item(pairs, 0, what)
    check_fits(what, count, first.size)
    x, y = np.empty((count, *first.shape), first.dtype), np.empty(count, np.int64)
    for index in range(count):
        image, label = _item(pairs, index, what)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise ValueError(
                f"{what} item {index} is {image.dtype} of shape {image.shape}, item 0 is {first.dtype} of shape "
                f"{first.shape}; resize the images to one size first"
            )
        x[index], y[index] = image, label
    return make_part(x, y, what)


def _item(pairs: Pairs, index: int, what: str) -> tuple[np.ndarray, int]:
    item = pairs[index]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise ValueError(f"{what} item {index} must be a pair (image, label), got {type(item).__name__}")
    image, label = item
    if isinstance(label, (torch.Tensor, np.ndarray)) and label.size in (1, torch.Size([])):
        label = label.item()
    if isinstance(label, torch.Tensor) and label.numel() == 1:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
        raise ValueError(f"{what} item {index} must have an integer label, got {label!r}")
    return _array(image), int(label)


def _array(image: Any) -> np.ndarray:
    """Bring an image to the layout of its dtype: uint8 (h, w) or (h, w, c), float (c, h, w)."""
    if isinstance(image, Image.Image):
        return np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
        if array.dtype == np.uint8:
            return array.transpose(1, 2, 0) if array.ndim == 3 else array
        return array[None] if array.ndim == 2 else array
    return np.asarray(image)
