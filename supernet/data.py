"""Preprocessed image classification data: one value that training, calibration, export and verification share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from supernet.atomic import write_atomic
from supernet.capacity import check_fits
from supernet.find_source import find_source
from supernet.images import Images, Part
from supernet.sources.pairs import Pairs, images_of
from supernet.split import stratified_split

Split = Literal["train", "val", "test"]
_RESIZE_CHUNK = 1024
_MIN_STD = 1e-6


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images ready for a network: `x_*` float32 (n, c, h, w), `y_*` int64 (n,) with 0 <= y < num_classes.

    Pixels are `(raw - mean[c]) / std[c]`, with the training images' statistics; raw uint8 values count as
    value / 255, floating values as they are. `flip` says whether a mirrored image shows the same thing.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        c, h, w = self.x_train.shape[1:]
        return int(c), int(h), int(w)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all contents but the name, 16 hexadecimal digits: equal data, equal fingerprint."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps([self.num_classes, self.mean, self.std, self.flip]).encode())
        for which in ("train", "val", "test"):
            for array in self.split(which):
                digest.update(str((array.dtype.str, array.shape)).encode())
                digest.update(np.ascontiguousarray(array).data.cast("B"))
        return digest.hexdigest()

    def split(self, which: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, c, h, w) and labels (n,) of `train`, `val` or `test`.

        Raises:
            ValueError: another name.
        """
        splits = {
            "train": (self.x_train, self.y_train),
            "val": (self.x_val, self.y_val),
            "test": (self.x_test, self.y_test),
        }
        if which not in splits:
            raise ValueError(f"split must be one of {', '.join(splits)}, got {which!r}")
        return splits[which]


def load_data(name_or_path: str, *, image_size: int | None = None, val_fraction: float | None = None) -> Dataset:
    """Load a data set by its name in `DATASETS`, from a folder of class folders or from an .npz file.

    Images are resized to `image_size` x `image_size` pixels when it is given (a folder always is: 64 by default).
    Validation images are the source's own, or a stratified `val_fraction` of its training images (default 0.4
    for digits, 0.1 for the other named sets, 0.2 otherwise), never of its test images. The split is always the same.

    Raises:
        ValueError: an unknown name (with the nearest one), or contents that are refused, saying why.
        ConnectionError: a named set that is neither cached nor can be downloaded.
    """
    _check_image_size(image_size)
    return _prepare(find_source(name_or_path)(image_size), image_size, val_fraction)


def from_datasets(
    train: Pairs,
    test: Pairs,
    val: Pairs | None = None,
    *,
    name: str = "custom",
    flip: bool = False,
    image_size: int | None = None,
    val_fraction: float | None = None,
) -> Dataset:
    """Make a `Dataset` of torch-style data sets, whose items are (image, integer label).

    An image is a PIL picture, a tensor (c, h, w), a uint8 array (h, w) or (h, w, c), or a float array (c, h, w),
    all of one shape. Items are read once, so give them without random augmentation. Validation images are split
    off `train` (a fifth by default, always the same ones) unless `val` is given.

    Raises:
        ValueError: items of another form, labels that are not class indices, or too many images for the memory.
    """
    _check_image_size(image_size)
    return _prepare(images_of(train, test, val, name=name, flip=flip), image_size, val_fraction)


def write_arrays(dataset: Dataset, split: Split, file: Path, limit: int | None = None, seed: int = 0) -> None:
    """Write a split's preprocessed `x` (n, c, h, w) and `y` (n,) to an .npz file, whole or not at all.

    With `limit` at most that many images are written, drawn without replacement from `seed`, in their own order.

    Raises:
        ValueError: an unknown split or a limit below 1.
        OSError: the file cannot be written; an older one of that name stays as it was.
    """
    x, y = dataset.split(split)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {limit}")
    if limit is not None and limit < len(y):
        index = np.sort(np.random.default_rng(seed).choice(len(y), limit, replace=False))
        x, y = x[index], y[index]

    def save(part: Path) -> None:
        with part.open("wb") as stream:
            np.savez(stream, x=x, y=y)

    write_atomic(file, save)


def _check_image_size(image_size: int | None) -> None:
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")


def _prepare(images: Images, image_size: int | None, val_fraction: float | None) -> Dataset:
    """Split off validation, resize, and normalise by the remaining training images."""
    if images.val is not None and val_fraction is not None:
        raise ValueError(f"{images.name} has its own validation images; leave val_fraction out, got {val_fraction}")
    parts = _with_val(images, val_fraction)
    _check_size(images, image_size)
    arrays = {which: _pixels(part.x, image_size) for which, part in parts.items()}
    mean, std = _statistics(arrays["train"])
    for x in arrays.values():  # our own copies, so changed in place
        x -= mean[:, None, None]
        x /= std[:, None, None]
    return Dataset(
        images.name,
        arrays["train"],
        parts["train"].y,
        arrays["val"],
        parts["val"].y,
        arrays["test"],
        parts["test"].y,
        images.num_classes,
        tuple(mean.tolist()),
        tuple(std.tolist()),
        images.flip,
    )


def _with_val(images: Images, val_fraction: float | None) -> dict[str, Part]:
    train, val = images.train, images.val
    if val is None:
        fraction = images.val_fraction if val_fraction is None else val_fraction
        keep, held = stratified_split(train.y, fraction, what="val_fraction")
        train, val = (Part(train.x[index], train.y[index]) for index in (keep, held))
    return {"train": train, "val": val, "test": images.test}


def _check_size(images: Images, image_size: int | None) -> None:
    c, h, w = images.train.x.shape[1:]
    values = c * h * w if image_size is None else c * image_size * image_size
    check_fits(images.name, sum(len(part.y) for _, part in images.parts()), values)


def _pixels(x: np.ndarray, image_size: int | None) -> np.ndarray:
    """New float32 array (n, c, h, w) of the pixels, resized; uint8 values are divided by 255."""
    values = x.astype(np.float32)
    if x.dtype == np.uint8:
        values /= 255.0
    if image_size is None or x.shape[2:] == (image_size, image_size):
        return values
    resized = np.empty((*x.shape[:2], image_size, image_size), np.float32)
    for start in range(0, len(x), _RESIZE_CHUNK):
        chunk = torch.from_numpy(values[start : start + _RESIZE_CHUNK])
        size = (image_size, image_size)
        resized[start : start + _RESIZE_CHUNK] = F.interpolate(chunk, size, mode="bilinear", antialias=True).numpy()
    return resized


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel mean and standard deviation (c,) float32; a constant channel has deviation 1."""
    mean = x.mean((0, 2, 3), dtype=np.float64)
    var = np.array([np.square(x[:, c] - mean[c], dtype=np.float32).mean(dtype=np.float64) for c in range(x.shape[1])])
    std = np.sqrt(var)
    return mean.astype(np.float32), np.where(std < _MIN_STD, 1.0, std).astype(np.float32)
