"""Data sets that small studies train on within minutes on one core."""

from __future__ import annotations

from pathlib import Path

from experiments.decode_images import decode
from supernet.data import Dataset, from_datasets, load_data

IMAGES = {"train": 12_000, "test": 2_000}  # of CIFAR-10, evenly spread over its files, which are sorted by class
PIXELS, VALIDATION = 16, 0.2


def read_small(name: str, data: Path) -> Dataset:
    """A data set by its name; of `cifar10`, some images at 16 pixels from the JPEGs in the folder `data`."""
    if name != "cifar10":
        return load_data(name)
    parts = (decode(data / f"cifar10_jpg_{split}.npz", n) for split, n in IMAGES.items())
    train, test = (list(zip(x, y.tolist(), strict=True)) for x, y in parts)
    return from_datasets(train, test, name=name, flip=True, image_size=PIXELS, val_fraction=VALIDATION)
